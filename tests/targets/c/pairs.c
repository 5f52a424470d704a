// Times pairs of malloc and free, for `cargo xtask bench`.
//
// Prints its pid and `ready`; for each line N on standard input runs N pairs
// of 64 to 127 bytes and prints the nanoseconds of one.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

__attribute__((noinline)) static void pairs(long count) {
    for (long i = 0; i < count; i++) {
        void *volatile block = malloc(64 + (size_t)(i & 63));
        free(block);
    }
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("pid %d\nready\n", getpid());
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        long count = atol(line);
        double begin = now();
        pairs(count);
        printf("%.1f\n", (now() - begin) / (double)count);
    }
    return 0;
}
