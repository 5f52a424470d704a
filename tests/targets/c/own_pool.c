// flags: -O2 -fno-omit-frame-pointer
/* An allocator of which nobody knows but its program. */
#include "target.h"

static char pool[1 << 20];
static size_t used;

SITE void *pool_get(void *owner, size_t size) {
    opaque(owner);
    size_t start = used;
    used += (size + 15) & ~(size_t)15;
    return used > sizeof pool ? NULL : pool + start;
}

SITE void pool_put(void *block) { opaque(block); }

SITE void pooled(void) {
    for (int index = 0; index < 9; index++)
        opaque(pool_get(pool, 449));
    for (int index = 0; index < 4; index++)
        pool_put(opaque(pool_get(pool, 449)));
    truth("pooled", 449, 13, 4);
}

static const Command commands[] = {COMMAND(pooled), {NULL, NULL}};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
