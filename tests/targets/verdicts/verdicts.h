/* What the C and C++ programs of the suite of labelled behaviours share.
 *
 * A program is given the name of a mode, says `PID ready`, and waits for a line on standard
 * input. From then on it does what the mode does, a hundred times a second, and tells once a
 * second what is true: `live SECONDS FUNCTION BYTES`, the bytes that are live of what this
 * function allocated, and when that was (seconds since 1970). It ends with standard input.
 *
 * A second stands for 72 minutes: a day takes 20 s. Nothing here allocates.
 */
#ifndef VERDICTS_H
#define VERDICTS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A function that has a frame of its own whatever the optimizer thinks. */
#define SITE __attribute__((noipa))
#define MAYBE __attribute__((unused))
#define DAY 20.0

/* What a mode does: `now` is the time since its begin, seconds. */
typedef struct {
    const char *name;
    void (*tick)(double now);
    /* Functions whose live bytes are told; by default the one that has the mode's name. */
    const char *functions[2];
} Mode;

/* Live bytes of both functions. */
static long held[2];
/* Seconds since the last tick. */
static double step;

MAYBE static unsigned chance(void) {
    static unsigned state = 1;
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

/* A number below a bound that looks like chance, the same in each run. */
MAYBE static unsigned below(unsigned bound) { return chance() % bound; }

/* From 0 to 1. */
MAYBE static double fraction(void) { return chance() / 16777216.0; }

/* How many come in this tick of so many a second, by chance. */
MAYBE static int arrivals(double rate) {
    double mean = rate * step;
    int trials = 8 + 2 * (int)mean, come = 0;
    for (int trial = 0; trial < trials; trial++)
        come += fraction() < mean / trials;
    return come;
}

/* A lifetime with this mean: a sum of two parts, so few are very short. */
MAYBE static double lifetime(double mean) { return mean * (fraction() + fraction()); }

/* Between 0 at night and 1 at noon. */
MAYBE static double sunlight(double now) {
    double hour = now / DAY - (double)(long)(now / DAY);
    return hour < 0.5 ? 2 * hour : 2 - 2 * hour;
}

/* Keeps the optimizer from seeing through a pointer. */
MAYBE static void *opaque(void *pointer) {
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

static void tell_live(const Mode *mode) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    for (int index = 0; index < 2; index++) {
        const char *function = mode->functions[index];
        if (!function && index)
            break;
        char line[128];
        int length = snprintf(
            line, sizeof line, "live %ld.%06ld %s %ld\n", (long)now.tv_sec, now.tv_nsec / 1000,
            function ? function : mode->name, held[index]);
        if (write(STDOUT_FILENO, line, (size_t)length) != length)
            _exit(74);
    }
}

static double uptime(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void run_mode(const Mode *mode) {
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    char text[64];
    int length = snprintf(text, sizeof text, "%d ready\n", getpid());
    if (write(STDOUT_FILENO, text, (size_t)length) != length)
        _exit(74);
    if (read(STDIN_FILENO, text, sizeof text) <= 0)
        return;
    double begin = uptime(), last = begin, told = 0;
    while (poll(&input, 1, 10) == 0 || read(STDIN_FILENO, text, sizeof text) > 0) {
        double now = uptime();
        step = now - last;
        last = now;
        mode->tick(now - begin);
        if (now - told >= 1) {
            tell_live(mode);
            told = now;
        }
    }
}

/* Runs the mode that the command line names. */
MAYBE static int run_named(int count, char **arguments, const Mode *modes) {
    for (; count == 2 && modes->name; modes++)
        if (!strcmp(modes->name, arguments[1])) {
            run_mode(modes);
            return 0;
        }
    fprintf(stderr, "usage: %s MODE\n", arguments[0]);
    return 64;
}

#endif
