// flags: -O2 -ldl
/* A program that looks at its own stack while a call of the allocator is under
 * way, as profilers and crash reporters do, and says whether it met its own
 * function there. */
#include "target.h"
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

static sigjmp_buf escape;
static volatile int met;
static char *first, *last; /* the code of the function that is looked for */

static void walking_handler(int signal) {
    void *frames[64];
    int count = backtrace(frames, 64);
    for (int index = 0; index < count; index++)
        if ((char *)frames[index] > first && (char *)frames[index] < last)
            met = 1;
    siglongjmp(escape, signal);
}

/* posix_memalign faults while it writes its result to address 8: a signal
 * within a call of the allocator, at a known place. */
SITE static int look_from_within(void) {
    int error = posix_memalign(opaque((void *)8), 64, 233);
    __asm__ volatile("" ::: "memory"); /* no tail call */
    return error;
}
SITE static void after_look_from_within(void) { __asm__ volatile("nop"); }

SITE static void walk(void) {
    struct sigaction action = {.sa_handler = walking_handler};
    first = (char *)look_from_within;
    last = first + 64;
    met = 0;
    sigaction(SIGSEGV, &action, NULL);
    if (sigsetjmp(escape, 1) == 0) {
        look_from_within();
        abort();
    }
    after_look_from_within();
    say("met %d\n", met);
    truth_losses += 1; /* the call that never returned */
}

SITE static void after_walk(void) {
    walk();
    for (int index = 0; index < 7; index++)
        opaque(malloc(307));
    free(opaque(calloc(1, 311)));
    truth("after_walk", 307, 7, 0);
    truth("after_walk", 311, 1, 1);
}

SITE static void open_library(void) {
    if (!dlopen(getenv("LIBRARY"), RTLD_NOW))
        abort();
    truth_others = 1; /* the loader's bookkeeping */
}

/* Threads that allocate until they are told to stop, and count. */
static volatile int stopping;
static pthread_t threads[2];
static unsigned long pairs[2];

SITE static void *churning_thread(void *argument) {
    unsigned long *count = argument;
    while (!stopping) {
        free(opaque(malloc(313)));
        __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
        void *block = opaque(realloc(NULL, 317));
        block = opaque(realloc(block, 3170));
        free(block);
    }
    return NULL;
}

static void churn_begins(void) {
    for (int index = 0; index < 2; index++)
        if (pthread_create(&threads[index], NULL, churning_thread, &pairs[index]))
            abort();
    truth_others = 1;
}

static void churn_goes_on(void) {
    for (int index = 0; index < 2; index++) {
        unsigned long before = __atomic_load_n(&pairs[index], __ATOMIC_RELAXED);
        while (__atomic_load_n(&pairs[index], __ATOMIC_RELAXED) < before + 1000)
            usleep(100);
    }
}

static void churn_ends(void) {
    stopping = 1;
    for (int index = 0; index < 2; index++) {
        if (pthread_join(threads[index], NULL))
            abort();
        truth("churning_thread", 313, pairs[index], pairs[index]);
        truth("churning_thread", 317, pairs[index], pairs[index]);
        truth("churning_thread", 3170, pairs[index], pairs[index]);
    }
    truth_others = 1;
}

static const Command commands[] = {
    COMMAND(walk),        COMMAND(after_walk),    COMMAND(open_library),
    COMMAND(churn_begins), COMMAND(churn_goes_on), COMMAND(churn_ends),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    void *frames[4];
    backtrace(frames, 4); /* it loads a library the first time */
    return serve(count, arguments, commands);
}
