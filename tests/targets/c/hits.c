// flags: -O2 -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// Runs into probes exactly as often as it is told to, and says what processor time
// that took.
//
// Prints `PID ready`; then for each line
//   pairs N DEPTH   N pairs of malloc and free, DEPTH calls further down
//   threads N       the same in two threads that were there before, at once
//   end             those threads end
//   maps            blocks of 50,000 bytes make the allocator take memory, in a new
//                   thread and here; then three mappings of 1 MiB are made, from where
//                   the stack still has words of those calls; nothing is given back
// and prints `took NANOSECONDS` of the whole process. Nothing else is allocated, but
// for the new thread.
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "pairs.h"

#define THREADS 2

static sem_t begin[THREADS], ended;
static long wanted;

static double processor_time(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void *thread(void *given) {
    sem_t *mine = given;
    // The first call of a thread makes its cache.
    pairs(1);
    for (;;) {
        sem_post(&ended);
        sem_wait(mine);
        if (wanted == 0)
            return NULL;
        pairs(wanted);
    }
}

static void in_threads(long count) {
    wanted = count;
    for (int i = 0; i < THREADS; i++)
        sem_post(&begin[i]);
}

// More than the first arena and the heap have.
__attribute__((noinline)) static void *blocks(void *unused) {
    for (int i = 0; i < 50; i++) {
        void *volatile block = malloc(50000);
        memset(block, 1, 50000);
    }
    return unused;
}

// Calls from further down, over what other calls left behind.
__attribute__((noinline)) static void mapping(void) {
    volatile char left[64];
    char *made = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(made, 1, 1 << 20);
    (void)left[0];
}

__attribute__((noinline)) static void maps(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, blocks, NULL);
    pthread_join(thread, NULL);
    for (int i = 0; i < 3; i++) {
        blocks(NULL);
        mapping();
    }
}

int main(void) {
    static char input[256];
    setvbuf(stdin, input, _IOFBF, sizeof input);
    setvbuf(stdout, NULL, _IONBF, 0);
    sem_init(&ended, 0, 0);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        sem_init(&begin[i], 0, 0);
        pthread_create(&threads[i], NULL, thread, &begin[i]);
        sem_wait(&ended);
    }
    printf("%d ready\n", getpid());
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        long count = 0;
        int depth = 0;
        double before = processor_time();
        if (sscanf(line, "pairs %ld %d", &count, &depth) == 2) {
            deeper(count, depth);
        } else if (sscanf(line, "threads %ld", &count) == 1) {
            in_threads(count);
            for (int i = 0; i < THREADS; i++)
                sem_wait(&ended);
        } else if (strcmp(line, "maps\n") == 0) {
            maps();
        } else if (strcmp(line, "end\n") == 0) {
            in_threads(0);
            for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        } else {
            printf("no command\n");
            continue;
        }
        printf("took %.0f\n", processor_time() - before);
    }
    return 0;
}
