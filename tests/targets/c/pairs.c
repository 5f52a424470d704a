// flags: -O2 -fomit-frame-pointer -fno-optimize-sibling-calls
// Times pairs of malloc and free, for `cargo xtask bench`.
//
// Prints its pid and `ready`; for each line `N DEPTH` on standard input runs N
// pairs of 64 to 127 bytes, DEPTH calls further down than without, and prints
// the nanoseconds of one pair.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "pairs.h"

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("pid %d\nready\n", getpid());
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        char *rest;
        long count = strtol(line, &rest, 10);
        int depth = atoi(rest);
        double begin = now();
        if (depth > 0)
            deeper(count, depth - 1);
        else
            pairs(count);
        printf("%.1f\n", (now() - begin) / (double)count);
    }
    return 0;
}
