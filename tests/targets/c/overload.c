/* More live blocks, more call paths and deeper stacks than a small tracer
 * holds. */
#include "target.h"
#include <stdint.h>

SITE static void many_blocks(void) {
    for (int index = 0; index < 5000; index++)
        opaque(malloc(601));
    truth("many_blocks", 601, 5000, 0);
}

/* Call paths are told apart by the order of `left` and `right`: path number
 * 5 of depth 3 is right, left, right. The block's size tells the number. */
#define DEPTH 10
#define FIRST_SIZE 10007

SITE static void right(unsigned path, int depth);

SITE static void left(unsigned path, int depth) {
    if (depth == 0)
        opaque(malloc(FIRST_SIZE + path));
    else if (path >> (depth - 1) & 1)
        right(path, depth - 1);
    else
        left(path, depth - 1);
    __asm__ volatile("");
}

SITE static void right(unsigned path, int depth) {
    if (depth == 0)
        opaque(malloc(FIRST_SIZE + path));
    else if (path >> (depth - 1) & 1)
        right(path, depth - 1);
    else
        left(path, depth - 1);
    __asm__ volatile("");
}

SITE static void many_paths(void) {
    for (unsigned path = 0; path < 1u << DEPTH; path++) {
        left(path, DEPTH);
        truth("many_paths", FIRST_SIZE + path, 1, 0);
    }
}

/* Calls that allocate nothing, so that there is nothing to lose. */
SITE static void failing_calls(void) {
    for (int index = 0; index < 50; index++)
        if (opaque(malloc(any(PTRDIFF_MAX))))
            abort();
}

SITE static void recurse(int depth) {
    if (depth > 1)
        recurse(depth - 1);
    else
        opaque(malloc(607));
    __asm__ volatile("");
}

SITE static void deep_stack(void) {
    recurse(100);
    truth("deep_stack", 607, 1, 0);
}

SITE static void too_deep_stack(void) {
    recurse(300);
    truth("recurse", 607, 1, 0);
}

static const Command commands[] = {
    COMMAND(many_blocks),
    COMMAND(many_paths),
    COMMAND(failing_calls),
    COMMAND(deep_stack),
    COMMAND(too_deep_stack),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
