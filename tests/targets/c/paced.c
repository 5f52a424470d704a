// flags: -O2 -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// A service whose load is told to it while it runs. Each request parses, replies, and does
// some work of its own; some leak, some fill a cache, some keep what they have for a while.
//
// Prints `PID ready`; then reads lines
//   load N     N requests a second from now on; 0: as many as there can be
//   leaks 0    nothing leaks from now on, until `leaks 1`; what leaks since `leaks 2` is in the list
//              `registry`
//   grow N     N new pages a second from now on, by `grows`; 0: none
//   churn N    so many that are given back at once, by `churns`; -1: as many as there can be
//   drop       ends the load, frees all that it cached and kept, and answers `dropped`
//   pages      answers `pages GROWN CHURNED`
//   truth      answers `truth REQUESTS LEAKED CACHED KEPT SECONDS`: blocks that `leak`,
//              `cache` and `keep` allocated, and the processor time of the process
// and ends with standard input. Nothing else is allocated.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SITE __attribute__((noipa))
#define CACHE 5003
#define KEPT 2003

static void *cached[CACHE], *kept[KEPT];
static void **volatile registry;
static void *volatile sink;
static volatile unsigned work;
static volatile long load = -1;
static volatile long to_grow, to_churn;
static volatile unsigned long grown, churned;
static volatile int over, leaks = 1, to_drop;
static unsigned long requests, leaked, in_cache, in_kept;

static unsigned chance(void) {
    static unsigned state = 1;
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

SITE static void *parse(void) {
    return malloc(409);
}

SITE static void *reply(void) {
    return malloc(907);
}

SITE static void leak(void) {
    void **block = malloc(131);
    if (block && leaks == 2) {
        *block = registry;
        registry = block;
    } else {
        sink = block;
    }
    leaked++;
}

SITE static void *cache(void) {
    in_cache++;
    return malloc(307);
}

SITE static void *keep(void) {
    in_kept++;
    return malloc(503);
}

SITE static void request(void) {
    void *volatile asked = parse(), *volatile answer = reply();
    for (int i = 0; i < 20000; i++)
        work += (unsigned)i;
    free(asked);
    free(answer);
    requests++;
    if (requests % 10 == 0 && leaks)
        leak();
    if (requests % 8 == 0) {
        unsigned slot = chance() % CACHE;
        free(cached[slot]);
        cached[slot] = cache();
    }
    if (requests % 4 == 0) {
        unsigned slot = (unsigned)(in_kept % KEPT);
        free(kept[slot]);
        kept[slot] = keep();
    }
}

static void drop(void **blocks, int count) {
    for (int at = 0; at < count; at++) {
        free(blocks[at]);
        blocks[at] = NULL;
    }
}

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

// Requests come in batches of a millisecond's.
static void *serve(void *unused) {
    double due = now(CLOCK_MONOTONIC);
    long wanted = load;
    double open = 0;
    while (!over) {
        if (wanted != load) {
            wanted = load;
            due = now(CLOCK_MONOTONIC);
            open = 0; // What it could not do in time nobody wants any more.
        }
        if (wanted == 0) {
            for (int i = 0; i < 100; i++)
                request();
            continue;
        }
        usleep(1000);
        if (wanted < 0 && to_drop) {
            drop(cached, CACHE);
            drop(kept, KEPT);
            to_drop = 0;
        }
        double time = now(CLOCK_MONOTONIC);
        if (wanted > 0)
            open += (time - due) * (double)wanted;
        due = time;
        for (; open >= 1 && wanted == load; open -= 1)
            request();
    }
    return unused;
}

enum { PAGE = 4096, ROOM = 1 << 20, CHURN = 1000 };

SITE static void grows(char *page) {
    *(volatile char *)page = 1;
    grown++;
}

SITE static void churns(char *pages) {
    for (int page = 0; page < CHURN; page++)
        ((volatile char *)pages)[(size_t)page * PAGE] = 1;
    madvise(pages, (size_t)CHURN * PAGE, MADV_DONTNEED);
    churned += CHURN;
}

static char *space(size_t pages) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *start = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (start == MAP_FAILED || madvise(start, pages * PAGE, MADV_NOHUGEPAGE))
        abort();
    return start;
}

// Pages come each millisecond; given back are always so many at once.
static void *page(void *unused) {
    char *room = space(ROOM), *churn = space(CHURN);
    double last = now(CLOCK_MONOTONIC), to_come = 0, to_go = 0;
    while (!over) {
        if (to_churn >= 0)
            usleep(1000);
        double time = now(CLOCK_MONOTONIC), since = time - last;
        last = time;
        to_come = to_grow ? to_come + since * (double)to_grow : 0;
        for (; to_come >= 1; to_come--)
            grows(room + grown % ROOM * PAGE);
        to_go = to_churn > 0 ? to_go + since * (double)to_churn : 0;
        for (; to_go >= CHURN; to_go -= CHURN)
            churns(churn);
        if (to_churn < 0)
            churns(churn);
    }
    return unused;
}

int main(void) {
    static char line[64];
    setvbuf(stdin, NULL, _IONBF, 0);
    pthread_t server, pager;
    pthread_create(&server, NULL, serve, NULL);
    pthread_create(&pager, NULL, page, NULL);
    free(malloc(1));
    printf("%d ready\n", getpid());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "load ", 5)) {
            load = atol(line + 5);
        } else if (!strncmp(line, "leaks ", 6)) {
            leaks = atoi(line + 6);
        } else if (!strcmp(line, "drop\n")) {
            load = -1;
            to_drop = 1;
            while (to_drop)
                usleep(1000);
            printf("dropped\n");
            fflush(stdout);
        } else if (!strncmp(line, "grow ", 5)) {
            to_grow = atol(line + 5);
        } else if (!strncmp(line, "churn ", 6)) {
            to_churn = atol(line + 6);
        } else if (!strncmp(line, "pages", 5)) {
            printf("pages %lu %lu\n", grown, churned);
            fflush(stdout);
        } else {
            printf("truth %lu %lu %lu %lu %f\n", requests, leaked, in_cache, in_kept,
                   now(CLOCK_PROCESS_CPUTIME_ID));
            fflush(stdout);
        }
    }
    over = 1;
    pthread_join(server, NULL);
    pthread_join(pager, NULL);
    return 0;
}
