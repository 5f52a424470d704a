// flags: -O0
/* An allocator of the program's own, and its own munmap, that wait within a
 * call until they are told to go on. */
#include "target.h"
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { NEW = 10007, OLD = 10009, GROWN = 10037, MAPPED = 3 * 4096, WORKERS = 3 };

static sem_t begin[WORKERS], go_on, inside, returned;
static int waits;
static void *old_block, *mapping;

static void wait_inside(void) {
    if (!waits)
        return;
    sem_post(&inside);
    while (sem_wait(&go_on))
        ;
}

/* --- the allocator: blocks are never used again --- */

static char arena[1 << 20] __attribute__((aligned(16)));
static size_t used;

static void *take(size_t size) {
    size_t room = (size + 31) & ~(size_t)15;
    size_t at = __atomic_fetch_add(&used, room, __ATOMIC_RELAXED);
    if (at + room > sizeof arena)
        return NULL;
    *(size_t *)(arena + at) = size;
    return arena + at + 16;
}

SITE void *malloc(size_t size) {
    void *block = take(size);
    if (size == NEW)
        wait_inside();
    return block;
}

SITE void free(void *block) {
    (void)opaque(block);
}

SITE void *calloc(size_t count, size_t size) {
    return take(count * size);
}

SITE void *realloc(void *old, size_t size) {
    void *block = take(size);
    if (old && block) {
        size_t before = *(size_t *)((char *)old - 16);
        memcpy(block, old, before < size ? before : size);
    }
    if (size == GROWN)
        wait_inside();
    return block;
}

/* --- mappings --- */

SITE void *mmap(void *address, size_t length, int protection, int flags, int file, off_t offset) {
    return (void *)syscall(SYS_mmap, address, length, protection, flags, file, offset);
}

SITE int munmap(void *address, size_t length) {
    /* What the kernel has done has happened, whoever waits afterwards. */
    if (length == MAPPED)
        wait_inside();
    return (int)syscall(SYS_munmap, address, length);
}

/* --- what is done in other threads --- */

SITE static void allocate(void) {
    opaque(malloc(NEW));
}

SITE static void grow(void) {
    old_block = opaque(realloc(old_block, GROWN));
}

SITE static void unmap(void) {
    if (munmap(mapping, MAPPED))
        abort();
}

static void (*const work[WORKERS])(void) = {allocate, grow, unmap};

/* Each does its work once, and ends. */
static void *worker(void *argument) {
    intptr_t number = (intptr_t)argument;
    while (sem_wait(&begin[number]))
        ;
    work[number]();
    sem_post(&returned);
    return NULL;
}

/* --- commands --- */

SITE static void prepare(void) {
    old_block = opaque(malloc(OLD));
    mapping = mmap(NULL, MAPPED, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        abort();
    truth("prepare", OLD, 1, 0);
    truth_whole_mapping("prepare", MAPPED, 1, 0);
}

/* All are within a call after this. */
static void hold(void) {
    waits = 1;
    for (int number = 0; number < WORKERS; number++)
        sem_post(&begin[number]);
    for (int number = 0; number < WORKERS; number++)
        while (sem_wait(&inside))
            ;
}

/* All calls have returned after this. */
static void let_go(void) {
    for (int number = 0; number < WORKERS; number++)
        sem_post(&go_on);
    for (int number = 0; number < WORKERS; number++)
        while (sem_wait(&returned))
            ;
    truth("allocate", NEW, 1, 0);
    truth("grow", GROWN, 1, 0);
    truth("prepare", OLD, 1, 1);
    truth_whole_mapping("prepare", MAPPED, 1, 1);
}

static const Command commands[] = {COMMAND(prepare), COMMAND(hold), COMMAND(let_go), {NULL, NULL}};

int main(int count, char **arguments) {
    sem_init(&go_on, 0, 0);
    sem_init(&inside, 0, 0);
    sem_init(&returned, 0, 0);
    for (intptr_t number = 0; number < WORKERS; number++) {
        pthread_t thread;
        sem_init(&begin[number], 0, 0);
        if (pthread_create(&thread, NULL, worker, (void *)number))
            abort();
    }
    return serve(count, arguments, commands);
}
