// flags: -O2 -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// A service whose load is told to it while it runs. Each request parses, replies, and does
// some work of its own; some leak, some fill a cache, some keep what they have for a while.
//
// Prints `PID ready`; then reads lines
//   load N     N requests a second from now on; 0: as many as there can be
//   truth      answers `truth REQUESTS LEAKED CACHED KEPT SECONDS`: blocks that `leak`,
//              `cache` and `keep` allocated, and the processor time of the process
// and ends with standard input. Nothing else is allocated.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SITE __attribute__((noipa))
#define CACHE 5003
#define KEPT 2003

static void *cached[CACHE], *kept[KEPT];
static void *volatile sink;
static volatile unsigned work;
static volatile long load = -1;
static volatile int over;
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
    sink = malloc(131);
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
    if (requests % 10 == 0)
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
        }
        if (wanted == 0) {
            for (int i = 0; i < 100; i++)
                request();
            continue;
        }
        usleep(1000);
        double time = now(CLOCK_MONOTONIC);
        if (wanted > 0)
            open += (time - due) * (double)wanted;
        due = time;
        for (; open >= 1 && wanted == load; open -= 1)
            request();
    }
    return unused;
}

int main(void) {
    static char line[64];
    setvbuf(stdin, NULL, _IONBF, 0);
    pthread_t server;
    pthread_create(&server, NULL, serve, NULL);
    free(malloc(1));
    printf("%d ready\n", getpid());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "load ", 5)) {
            load = atol(line + 5);
        } else {
            printf("truth %lu %lu %lu %lu %f\n", requests, leaked, in_cache, in_kept,
                   now(CLOCK_PROCESS_CPUTIME_ID));
            fflush(stdout);
        }
    }
    over = 1;
    pthread_join(server, NULL);
    return 0;
}
