/* Everything that what is live can do, all at once for some seconds: leaks of three kinds,
   and what looks like one for a while. Each function is a call path of its own. */
#include "target.h"
#include <time.h>

enum { TICKS = 1200, TICK_MS = 10, RING = 100, POOL = 200, GATHERED = 300 };

/* Whether keeps_all is mended, and how many blocks forgets_some forgets of twenty. */
static int mended, forgotten = 1;

static void *kept[TICKS];
static void *ring[RING];
static void *pool[POOL];
static void *gathered[GATHERED];
static void *table;

/* A leak: each block stays, until it is mended. */
SITE static void keeps_all(int tick) {
    kept[tick] = opaque(malloc(1009));
    if (mended)
        free(kept[tick]);
}

/* A leak: one of twenty blocks stays, the others live for a moment. */
SITE static void forgets_some(void) {
    void *blocks[20];
    for (int index = 0; index < 20; index++)
        blocks[index] = opaque(malloc(521));
    for (int index = forgotten; index < 20; index++)
        free(blocks[index]);
}

/* A leak that rests for as long as it works, half a second each. */
SITE static void leaks_in_bursts(int tick) {
    if (tick / 50 % 2 == 0)
        opaque(malloc(601));
}

/* A full cache: the oldest block makes room, after a second. */
SITE static void replaces_oldest(int tick) {
    free(ring[tick % RING]);
    ring[tick % RING] = opaque(malloc(4099));
}

/* What a start needs. */
SITE static void sets_up(void) {
    for (int index = 0; index < 500; index++)
        opaque(malloc(2003));
}

/* Blocks are gathered for three seconds and freed at once. */
SITE static void gathers(int tick) {
    gathered[tick % GATHERED] = opaque(malloc(3001));
    if (tick % GATHERED == GATHERED - 1)
        for (int index = 0; index < GATHERED; index++)
            free(gathered[index]);
}

/* A pool that is full after two seconds. */
SITE static void fills_a_pool(int tick) {
    if (pool[tick % POOL] == NULL)
        pool[tick % POOL] = opaque(malloc(5003));
}

/* One block, a table that gets larger now and then. */
SITE static void enlarges_a_table(int tick) {
    if (tick % 100 == 0)
        table = opaque(realloc(table, 10007 + (size_t)tick * 100));
}

/* Freed at once. */
SITE static void scratches(void) { free(opaque(malloc(307))); }

static void work(void) {
    struct timespec pause = {0, TICK_MS * 1000000};
    sets_up();
    for (int tick = 0; tick < TICKS; tick++) {
        keeps_all(tick);
        forgets_some();
        leaks_in_bursts(tick);
        replaces_oldest(tick);
        gathers(tick);
        fills_a_pool(tick);
        enlarges_a_table(tick);
        scratches();
        nanosleep(&pause, NULL);
    }
    truth("keeps_all", 1009, TICKS, mended ? TICKS : 0);
    truth("forgets_some", 521, 20 * TICKS, (20 - forgotten) * TICKS);
    truth("leaks_in_bursts", 601, TICKS / 2, 0);
    truth("replaces_oldest", 4099, TICKS, TICKS - RING);
    truth("sets_up", 2003, 500, 0);
    truth("gathers", 3001, TICKS, TICKS);
    truth("fills_a_pool", 5003, POOL, 0);
    truth("scratches", 307, TICKS, TICKS);
    truth_others = 1;
}

/* The next version of this program: one leak is mended, another got worse. */
static void next_version(void) {
    mended = 1;
    forgotten = 5;
}

static const Command commands[] = {COMMAND(work), COMMAND(next_version), {NULL, NULL}};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
