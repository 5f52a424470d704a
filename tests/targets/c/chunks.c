/* Large blocks, of which so few come in ten seconds that it matters what becomes of each. */
#include "target.h"
#include <string.h>
#include <time.h>

enum { SECONDS = 10, MIB = 1 << 20, CHUNK = 16 * MIB + 43, POOL = 33 * MIB + 61, UNUSED = 64 * MIB + 3 };

/* In memory at once. */
SITE static void takes_a_chunk(void) {
    char *chunk = opaque(malloc(CHUNK));
    memset(chunk, 1, CHUNK);
}

/* In memory as it is given away. */
SITE static char *takes_a_pool(void) { return opaque(malloc(POOL)); }

/* Never in memory. */
SITE static void reserves(void) { opaque(calloc(1, UNUSED)); }

static void work(void) {
    struct timespec tick = {0, 100000000};
    char *pool = NULL;
    for (int now = 0; now < SECONDS * 10; now++) {
        if (now == 5)
            pool = takes_a_pool();
        if (now == 35)
            reserves();
        if (now == 50)
            takes_a_chunk();
        if (pool != NULL && now % 3 == 0)
            memset(pool + (now / 3 - 1) * MIB, 1, MIB);
        nanosleep(&tick, NULL);
    }
    truth("takes_a_chunk", CHUNK, 1, 0);
    truth("takes_a_pool", POOL, 1, 0);
    truth("reserves", UNUSED, 1, 0);
}

static const Command commands[] = {COMMAND(work), {NULL, NULL}};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
