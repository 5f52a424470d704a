/* The handshake between a target and the test that drives it.
 *
 * A target prints `PID ready`, then blocks on standard input. Each line is the
 * name of a command. The target runs it, prints `done` and what it allocated
 * as JSON, and blocks again. It exits at end of file. With arguments it runs
 * them as commands and exits without a handshake.
 *
 * Nothing here allocates: what a test sees is what its command did.
 */
#ifndef TARGET_H
#define TARGET_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A function that has a frame of its own whatever the optimizer thinks. */
#define SITE __attribute__((noipa))

typedef struct {
    const char *name;
    void (*run)(void);
} Command;

#define COMMAND(function) {#function, function}

/* How much of an entry is a promise. */
typedef enum { ALL, LIVE, LIVE_BYTES } Checked;

/* What one function allocated and freed. Without a function: all blocks of
 * this size, wherever they come from. */
typedef struct {
    const char *function;
    unsigned long size;
    const char *kind;
    Checked checked;
    unsigned long allocated_count, allocated_bytes, freed_count, freed_bytes;
} Truth;

static Truth truths[64];
static size_t truth_length;
static unsigned long truth_untraced_frees;
static unsigned long truth_losses;
static int truth_others; /* whether code outside the sites allocates too */

/* Keeps the optimizer from seeing through a pointer. */
__attribute__((unused)) static inline void *opaque(void *pointer) {
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

/* Keeps the optimizer and its warnings from seeing through a size. */
__attribute__((unused)) static inline size_t any(size_t size) {
    __asm__ volatile("" : "+r"(size));
    return size;
}

static inline int same(const char *one, const char *other) {
    return one == other || (one && other && !strcmp(one, other));
}

__attribute__((unused)) static Truth *
truth_entry(const char *function, unsigned long size, const char *kind) {
    if (function)
        size = 0;
    for (size_t index = 0; index < truth_length; index++)
        if (same(truths[index].function, function) && truths[index].size == size &&
            same(truths[index].kind, kind))
            return &truths[index];
    if (truth_length == sizeof truths / sizeof *truths)
        abort();
    Truth fresh = {function, size, kind, ALL, 0, 0, 0, 0};
    truths[truth_length] = fresh;
    return &truths[truth_length++];
}

/* Blocks of `size` bytes that `function` allocated and that were freed. */
__attribute__((unused)) static void
truth(const char *function, unsigned long size, unsigned long allocated, unsigned long freed) {
    Truth *entry = truth_entry(function, size, "heap");
    entry->allocated_count += allocated;
    entry->allocated_bytes += allocated * size;
    entry->freed_count += freed;
    entry->freed_bytes += freed * size;
}

/* Live blocks alone, where what came and went before is libc's business. */
__attribute__((unused)) static void
truth_live(const char *function, unsigned long size, unsigned long count) {
    Truth *entry = truth_entry(function, size, "heap");
    entry->checked = LIVE;
    entry->allocated_count += count;
    entry->allocated_bytes += count * size;
}

/* Anonymous mappings of `function`: bytes that are still mapped. How often a
 * mapping that was cut counts is a matter of definition. */
__attribute__((unused)) static void truth_mapped(const char *function, unsigned long live) {
    Truth *entry = truth_entry(function, 0, "mapping");
    entry->checked = LIVE_BYTES;
    entry->allocated_bytes += live;
}

/* A mapping that was never cut: counts are told as well. */
__attribute__((unused)) static void truth_whole_mapping(
    const char *function, unsigned long size, unsigned long mapped, unsigned long unmapped) {
    Truth *entry = truth_entry(function, 0, "mapping");
    entry->allocated_count += mapped;
    entry->allocated_bytes += mapped * size;
    entry->freed_count += unmapped;
    entry->freed_bytes += unmapped * size;
}

/* The same of files. */
__attribute__((unused)) static void truth_mapped_file(
    const char *function, unsigned long size, unsigned long mapped, unsigned long unmapped) {
    Truth *entry = truth_entry(function, 0, "file_mapping");
    entry->allocated_count += mapped;
    entry->allocated_bytes += mapped * size;
    entry->freed_count += unmapped;
    entry->freed_bytes += unmapped * size;
}

__attribute__((unused)) static void say(const char *format, ...) {
    static char text[16384];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof text)
        abort();
    for (int written = 0; written < length;) {
        ssize_t step = write(STDOUT_FILENO, text + written, (size_t)(length - written));
        if (step <= 0)
            _exit(74);
        written += (int)step;
    }
}

static void say_truth(void) {
    static const char *const checked[] = {"all", "live", "live_bytes"};
    static char text[15000];
    int length = 0;
    for (size_t index = 0; index < truth_length; index++) {
        Truth *entry = &truths[index];
        length += snprintf(
            text + length, sizeof text - (size_t)length,
            "%s{\"function\":\"%s\",\"size\":%lu,\"kind\":\"%s\",\"checked\":\"%s\",\"allocated_count\":%lu,"
            "\"allocated_bytes\":%lu,\"freed_count\":%lu,\"freed_bytes\":%lu}",
            index ? "," : "", entry->function ? entry->function : "", entry->size, entry->kind,
            checked[entry->checked], entry->allocated_count, entry->allocated_bytes,
            entry->freed_count, entry->freed_bytes);
        if ((size_t)length >= sizeof text)
            abort();
    }
    text[length] = 0;
    say("done {\"sites\":[%s],\"untraced_frees\":%lu,\"losses\":%lu,\"others\":%s}\n", text,
        truth_untraced_frees, truth_losses, truth_others ? "true" : "false");
}

static int run_command(const Command *commands, const char *name) {
    for (; commands->name; commands++)
        if (!strcmp(commands->name, name)) {
            commands->run();
            return 1;
        }
    return 0;
}

/* One line of standard input without its end; 0 at end of file. */
static int hear(char *line, size_t size) {
    size_t length = 0;
    char byte;
    while (read(STDIN_FILENO, &byte, 1) == 1) {
        if (byte == '\n') {
            line[length] = 0;
            return 1;
        }
        if (length + 1 < size)
            line[length++] = byte;
    }
    return 0;
}

/* Serves commands until end of file, or runs those of the command line. */
__attribute__((unused)) static int serve(int count, char **arguments, const Command *commands) {
    if (count > 1) {
        for (int index = 1; index < count; index++)
            if (!run_command(commands, arguments[index])) {
                say("no command %s\n", arguments[index]);
                return 64;
            }
        say_truth();
        return 0;
    }
    say("%d ready\n", getpid());
    char line[256];
    while (hear(line, sizeof line)) {
        truth_length = 0;
        truth_untraced_frees = truth_losses = 0;
        truth_others = 0;
        if (run_command(commands, line))
            say_truth();
        else
            say("no command %s\n", line);
    }
    return 0;
}

#endif
