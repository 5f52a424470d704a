// flags: -O1 -fno-optimize-sibling-calls -fomit-frame-pointer
/* Calls of malloc from the same place, at the same stack pointer, by paths that differ
 * far above it: what was remembered of one must not speak for the other. */
#include "target.h"
#include <alloca.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/wait.h>

/* What a function does after its last call, so that it has a frame. */
static void stay(void) {
    __asm__ volatile("" : : : "memory");
}

SITE static void leaf(size_t size, int freed) {
    void *block = opaque(malloc(any(size)));
    if (freed)
        free(block);
    stay();
}

SITE static void middle(size_t size, int freed) {
    leaf(size, freed);
    stay();
}

SITE static void down(int depth, size_t size, int freed) {
    if (depth > 0)
        down(depth - 1, size, freed);
    else
        middle(size, freed);
    stay();
}

SITE static void first_caller(int depth, size_t size, int freed) {
    down(depth, size, freed);
    stay();
}

SITE static void second_caller(int depth, size_t size, int freed) {
    down(depth, size, freed);
    stay();
}

/* The frame below counts from rbp, which is as far up as the caller says. */
SITE static void with_room(size_t room, size_t size) {
    char *space = alloca(room);
    space[0] = 1;
    opaque(space);
    middle(size, 0);
    stay();
}

SITE static void third_caller(size_t room, size_t size) {
    with_room(room, size);
    stay();
}

SITE static void fourth_caller(size_t room, size_t size) {
    with_room(room, size);
    stay();
}

static uint32_t next(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 16;
}

enum { CALLS = 20000, FIRST = 1009, SECOND = 1013, THIRD = 1019, FOURTH = 1021 };

/* One after the other, then some of one and some of the other. */
SITE static void alternate(void) {
    uint32_t state = 1;
    unsigned long counts[2][2] = {{0, 0}, {0, 0}};
    int is_second = 0;
    for (int call = 0; call < CALLS; call++) {
        is_second = call < CALLS / 2 ? !is_second : next(&state) % 8 ? is_second : !is_second;
        int freed = next(&state) % 4 != 0;
        if (is_second)
            second_caller(0, SECOND, freed);
        else
            first_caller(0, FIRST, freed);
        counts[is_second][0]++;
        counts[is_second][1] += (unsigned long)freed;
    }
    truth("first_caller", FIRST, counts[0][0], counts[0][1]);
    truth("second_caller", SECOND, counts[1][0], counts[1][1]);
}

/* The same by stacks of 1 to 60 frames more, of which few fit into what is read first. */
SITE static void recurse(void) {
    uint32_t state = 7;
    unsigned long counts[2] = {0, 0};
    for (int call = 0; call < CALLS; call++) {
        int depth = (int)(next(&state) % 60), is_second = next(&state) % 2 != 0;
        for (size_t time = 0; time < any(2); time++) {
            if (is_second)
                second_caller(depth, SECOND, 1);
            else
                first_caller(depth, FIRST, 1);
            counts[is_second]++;
        }
    }
    truth("first_caller", FIRST, counts[0], counts[0]);
    truth("second_caller", SECOND, counts[1], counts[1]);
}

/* The callers' frames are at the same place, but rbp leads to them. */
SITE static void by_frame_pointer(void) {
    uint32_t state = 3;
    for (int call = 0; call < 2000; call++) {
        size_t room = 16 * (1 + next(&state) % 3);
        third_caller(room, THIRD);
        fourth_caller(room, FOURTH);
    }
    truth("third_caller", THIRD, 2000, 0);
    truth("fourth_caller", FOURTH, 2000, 0);
}

static void *alternate_in_thread(void *nothing) {
    for (int call = 0; call < CALLS; call++) {
        first_caller(0, FIRST, 1);
        second_caller(0, SECOND, 1);
    }
    return nothing;
}

SITE static void threads(void) {
    enum { THREADS = 4 };
    pthread_t all[THREADS];
    for (int index = 0; index < THREADS; index++)
        if (pthread_create(&all[index], NULL, alternate_in_thread, NULL))
            abort();
    for (int index = 0; index < THREADS; index++)
        if (pthread_join(all[index], NULL))
            abort();
    truth("first_caller", FIRST, THREADS * CALLS, THREADS * CALLS);
    truth("second_caller", SECOND, THREADS * CALLS, THREADS * CALLS);
    truth_others = 1;
}

static void *three_blocks(void *nothing) {
    for (size_t index = 0; index < any(3); index++)
        first_caller(0, FIRST, 0);
    return nothing;
}

/* Each has the stack of the one before. */
SITE static void one_thread_after_the_other(void) {
    for (int index = 0; index < 6; index++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, three_blocks, NULL) || pthread_join(thread, NULL))
            abort();
    }
    truth("first_caller", FIRST, 18, 0);
    truth_others = 1;
}

/* A child calls from the very stack that its parent has called from. */
SITE static void fork_child(void) {
    pid_t child = -1;
    for (int round = 0; round < 8; round++) {
        if (round == 3) {
            child = fork();
            if (child < 0)
                abort();
        }
        first_caller(0, FIRST, 0);
    }
    int status;
    if (child == 0)
        _exit(0);
    if (waitpid(child, &status, 0) != child || status)
        abort();
    truth_others = 1;
}

static const Command commands[] = {
    COMMAND(alternate),
    COMMAND(recurse),
    COMMAND(by_frame_pointer),
    COMMAND(threads),
    COMMAND(one_thread_after_the_other),
    COMMAND(fork_child),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
