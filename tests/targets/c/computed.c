// flags: -O2 -rdynamic
/* An allocator of its own, whose calloc ends in a jump that nobody can follow
 * from outside. */
#include "target.h"

static char arena[1 << 20];
static size_t used;

SITE static void *take(size_t size) {
    void *block = arena + used;
    used += (size + 15) & ~(size_t)15;
    return used > sizeof arena ? NULL : block;
}

SITE void *malloc(size_t size) {
    void *block = take(size);
    __asm__ volatile("" ::: "memory"); /* no tail call */
    return block;
}

SITE void free(void *block) {
    opaque(block);
}

static void *cleared(size_t count, size_t size) {
    void *block = take(count * size);
    return block ? memset(block, 0, count * size) : NULL;
}

void *(*volatile computed)(size_t, size_t) = cleared;

SITE void *calloc(size_t count, size_t size) {
    return computed(count, size);
}

SITE static void allocate(void) {
    for (int index = 0; index < 11; index++)
        opaque(malloc(431));
    truth("allocate", 431, 11, 0);
}

SITE static void clear(void) {
    for (int index = 0; index < 13; index++)
        opaque(calloc(1, 433));
    truth("clear", 433, 13, 0);
}

static const Command commands[] = {COMMAND(allocate), COMMAND(clear), {NULL, NULL}};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
