// Pairs of malloc and free, so many calls further down.
#ifndef PAIRS_H
#define PAIRS_H

#include <stdlib.h>

__attribute__((noinline)) static void pairs(long count) {
    for (long i = 0; i < count; i++) {
        void *volatile block = malloc(64 + (size_t)(i & 63));
        free(block);
    }
}

// Frames with room for something, as real ones have.
__attribute__((noinline)) static void deeper(long count, int depth) {
    volatile char room[40];
    room[0] = 0;
    if (depth > 0)
        deeper(count, depth - 1);
    else
        pairs(count);
    (void)room[0];
}

#endif
