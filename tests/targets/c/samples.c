// flags: -ldl
/* A program that takes samples itself, or says that it does: which, and what they stand
 * for, is known. */
#include <dlfcn.h>
#include <sys/wait.h>

#include "target.h"
#define PROVIDER otel_memory
#define NAME own
#include "samples.h"

/* Blocks need not be there to be told of. */
#define BLOCK(at) (0x500000000000 + (unsigned long)(at) * 4096)

/* 400 of 101 bytes, each for as many as there are in 512 KiB; every fourth is freed. */
SITE static void steady(void) {
    for (int index = 0; index < 400; index++) {
        tell_alloc(BLOCK(index), 101, 524338);
        if (index % 4 == 0)
            tell_free(BLOCK(index));
    }
    __asm__ volatile("" : : : "memory");
}

/* One that is certain, one of 600,000 bytes of which 7 in 10 are chosen, and some of a
 * sampler that counts intervals. */
SITE static void large(void) {
    static const unsigned long samples[][2] = {
        {64 << 20, 64 << 20}, {600000, 880061}, {4 << 20, 7 * 524288}, {4 << 20, 9 * 524288}};
    for (size_t index = 0; index < any(4); index++)
        tell_alloc(BLOCK(1000 + index), samples[index][0], samples[index][1]);
    __asm__ volatile("" : : : "memory");
}

/* Weights that cannot be. */
SITE static void lies(void) {
    tell_alloc(BLOCK(2000), 16, 3UL << 30);
    tell_alloc(BLOCK(2002), 1 << 20, 3UL << 30);
    tell_alloc(BLOCK(2001), 1UL << 60, 1UL << 60);
    __asm__ volatile("" : : : "memory");
}

/* One that the sampler has no room to follow. */
SITE static void no_room(void) {
    tell_alloc(0, 101, 524338);
    __asm__ volatile("" : : : "memory");
}

/* What an allocator does is nobody's business here. */
SITE static void unseen(void) {
    for (int index = 0; index < 50; index++)
        opaque(malloc(any(1009)));
    free(opaque(malloc(any(300000))));
}

/* The allocator maps this for itself. */
SITE static void mapped(void) {
    opaque(malloc(any(1 << 20)));
}

/* A child frees two of its parent's, and one of its own. */
SITE static void child(void) {
    int status = 1;
    pid_t child = fork();
    if (child == 0) {
        tell_free(BLOCK(1));
        tell_free(BLOCK(2));
        tell_alloc(BLOCK(3000), 101, 524338);
        tell_free(BLOCK(3000));
        tell_alloc(BLOCK(3001), 101, 524338);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status)
        abort();
}

/* How many want to be told. */
static void wanted(void) {
    printf("wanted %d %d\n", SEMAPHORE(NAME, alloc), SEMAPHORE(NAME, free));
    fflush(stdout);
}

static const Command commands[] = {
    COMMAND(steady), COMMAND(large), COMMAND(lies),   COMMAND(unseen),
    COMMAND(mapped), COMMAND(child), COMMAND(wanted), COMMAND(no_room),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
