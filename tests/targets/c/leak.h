/* A program with three kinds of sites: a leak, a bounded cache, scratch. */
#include "target.h"

SITE static void leak_blocks(void) {
    for (int index = 0; index < 7; index++)
        opaque(malloc(1009));
    truth("leak_blocks", 1009, 7, 0);
}

/* Sixteen slots; a new block takes the place of the oldest. */
SITE static void cache_blocks(void) {
    static void *slots[16];
    static unsigned next;
    int fresh = slots[0] == NULL;
    for (int index = 0; index < 100; index++, next = (next + 1) % 16) {
        free(slots[next]);
        slots[next] = opaque(malloc(509));
    }
    if (fresh)
        truth("cache_blocks", 509, 100, 84);
    else
        truth("cache_blocks", 509, 100, 100);
}

SITE static void scratch_blocks(void) {
    for (int index = 0; index < 50; index++)
        free(opaque(calloc(1, 251)));
    truth("scratch_blocks", 251, 50, 50);
}

static const Command commands[] = {
    COMMAND(leak_blocks),
    COMMAND(cache_blocks),
    COMMAND(scratch_blocks),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
