// flags: -O2 -fomit-frame-pointer -static -Wno-format-truncation
// cc: musl-gcc
/* Call paths in a static program whose libc has no tables of its own. */
#include "target.h"

/* A block that is freed at once: a command can be run any number of times. */
#define BLOCK(size) free(opaque(malloc(size)))

SITE static int recurse(int depth, size_t size) {
    volatile int kept[30] = {depth};
    BLOCK(size);
    int below = depth ? recurse(depth - 1, size) : 0;
    return below + kept[0];
}

SITE static void recursion_5(void) { recurse(5, 1429); }
SITE static void recursion_60(void) { recurse(60, 1433); }

SITE static int compare(const void *one, const void *other) {
    BLOCK(1439);
    return *(const int *)one - *(const int *)other;
}

/* Through musl's qsort, which has no row. */
SITE static void sort(void) {
    int numbers[] = {5, 3, 4, 1, 2};
    qsort(numbers, 5, sizeof *numbers, compare);
}

static const Command commands[] = {
    COMMAND(recursion_5),
    COMMAND(recursion_60),
    COMMAND(sort),
    {NULL, NULL},
};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
