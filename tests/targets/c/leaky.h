/* A service that leaks, at a rate that it knows: for `cargo xtask bench answers`.
 *
 * Prints `pid N` and `ready`, and then `truth SECONDS BYTES`: what it has leaked until
 * then, and when that was (seconds since 1970). That is some 50 times a second, and before
 * and after what was to be done while it had to wait, so that between two such lines its
 * leak is steady. Ends with standard input. Nothing here allocates.
 */
#ifndef LEAKY_H
#define LEAKY_H

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* A function that has a frame of its own whatever the optimizer thinks. */
#define SITE __attribute__((noipa))

static unsigned long leaked_bytes;
static volatile unsigned work_done;

static double now_of(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void tell(const char *text, int length) {
    if (write(STDOUT_FILENO, text, (size_t)length) != length)
        _exit(74);
}

static void tell_truth(void) {
    char line[96];
    double now = now_of(CLOCK_REALTIME);
    tell(line, snprintf(line, sizeof line, "truth %.6f %lu\n", now, leaked_bytes));
}

/* A number that looks like chance, the same in each run. */
__attribute__((unused)) static unsigned chance(void) {
    static unsigned state = 1;
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

/* Work of its own, a nanosecond or less each. */
static void work(unsigned long steps) {
    for (unsigned long step = 0; step < steps; step++)
        work_done += (unsigned)step;
}

/* So many requests a second, those of a millisecond at once. What cannot be done within
 * 50 ms is not done. */
static void serve_requests(double rate, void (*request)(void)) {
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    char line[64];
    tell(line, snprintf(line, sizeof line, "pid %d\nready\n", getpid()));
    tell_truth();
    double last = now_of(CLOCK_MONOTONIC), told = last, open = 0;
    while (poll(&input, 1, 1) == 0 || read(STDIN_FILENO, line, sizeof line) > 0) {
        double now = now_of(CLOCK_MONOTONIC);
        int due = now - told >= 0.02 || now - last >= 0.004;
        open += (now - last) * rate;
        last = now;
        if (open > rate / 20)
            open = rate / 20;
        if (due)
            tell_truth();
        for (; open >= 1; open -= 1)
            request();
        if (due) {
            tell_truth();
            told = now;
        }
    }
}

#endif
