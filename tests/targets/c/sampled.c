// flags: -pthread
/* Two hundred call paths that allocate the same mixture, from 16 bytes to 16 MiB, in
 * four threads: as many trials of an estimate in one run. */
#include "target.h"
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>

#define FEW 20
#define LATER 8
#define THREADS 4

/* Freed by `release`, from the main thread. */
static void *later[200][LATER];

/* Blocks of one size, every `freed`th of which is freed at once. */
static void blocks(int count, size_t size, int freed) {
    for (int index = 0; index < count; index++) {
        void *block = opaque(malloc(any(size)));
        if (freed && index % freed == 0)
            free(block);
    }
}

/* The mixture; `MIXTURE` in the test is the same in numbers. */
SITE static void mix(void **kept) {
    blocks(4096, 16, 0);
    blocks(512, 128, 2);
    for (int index = 0; index < 64; index++)
        opaque(calloc(4, any(256)));
    for (int index = 0; index < LATER; index++)
        kept[index] = opaque(malloc(any(8191)));
    opaque(memalign(64, any(65536)));
    opaque(malloc(any(512 << 10)));
    free(opaque(malloc(any(16 << 20))));
    for (int index = 0; index < 32; index++) {
        void *chain = NULL;
        for (size_t size = 16; size <= 4096; size *= 2)
            chain = opaque(realloc(chain, any(size)));
    }
}

#define TRIAL(number)                                                                          \
    SITE static void trial_##number(void **kept) {                                             \
        mix(kept);                                                                             \
        __asm__ volatile("" : : : "memory");                                                   \
    }
#define TEN(do, tens)                                                                          \
    do(tens##0) do(tens##1) do(tens##2) do(tens##3) do(tens##4) do(tens##5) do(tens##6)        \
        do(tens##7) do(tens##8) do(tens##9)
#define HUNDRED(do, hundreds)                                                                  \
    TEN(do, hundreds##0)                                                                       \
    TEN(do, hundreds##1)                                                                       \
    TEN(do, hundreds##2)                                                                       \
    TEN(do, hundreds##3)                                                                       \
    TEN(do, hundreds##4)                                                                       \
    TEN(do, hundreds##5)                                                                       \
    TEN(do, hundreds##6)                                                                       \
    TEN(do, hundreds##7)                                                                       \
    TEN(do, hundreds##8)                                                                       \
    TEN(do, hundreds##9)

HUNDRED(TRIAL, 1)
HUNDRED(TRIAL, 2)

#define ENTRY(number) trial_##number,

static void (*const trials[])(void **) = {HUNDRED(ENTRY, 1) HUNDRED(ENTRY, 2)};

static int trial_count;

static void *work(void *first) {
    for (int index = (int)(long)first; index < trial_count; index += THREADS)
        trials[index](later[index]);
    return NULL;
}

static void run(int count) {
    pthread_t threads[THREADS];
    trial_count = count;
    for (long index = 0; index < THREADS; index++)
        if (pthread_create(&threads[index], NULL, work, (void *)index))
            abort();
    for (int index = 0; index < THREADS; index++)
        pthread_join(threads[index], NULL);
    truth_others = 1;
}

static void mix_all(void) {
    run(sizeof trials / sizeof *trials);
}

static void mix_few(void) {
    run(FEW);
}

/* The same in a child, which ends without freeing any of it. */
static void mix_in_child(void) {
    int status = 1;
    pid_t child = fork();
    if (child == 0) {
        mix_few();
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status)
        abort();
    truth_others = 1;
}

static void release(void) {
    for (int index = 0; index < trial_count; index++)
        for (int block = 0; block < LATER; block++)
            free(later[index][block]);
}

/* Blocks that no sample leaves out, if it is one in 1 KiB. */
SITE static void large(void) {
    for (int index = 0; index < 7; index++) {
        void *block = opaque(malloc(any(40009)));
        if (index % 3 == 0)
            free(block);
    }
    opaque(realloc(opaque(malloc(any(30011))), any(50021)));
    truth("large", 40009, 7, 3);
    truth("large", 30011, 1, 1);
    truth("large", 50021, 1, 0);
}

static const Command commands[] = {
    COMMAND(mix_all),
    COMMAND(mix_few),
    COMMAND(mix_in_child),
    COMMAND(release),
    COMMAND(large),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
