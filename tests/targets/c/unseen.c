// flags: -Ltarget/targets -lunseen_library -Wl,-rpath,$ORIGIN
/* Frees blocks that it got by a function which nobody probes, or which are older than
 * the run. */
#include "target.h"

void *unseen_get(size_t size);
void *unseen_take(size_t size);
void unseen_put(void *block);

#define OLD 503
static void *old[OLD];

/* One at a time, and many: the same places again and again. */
SITE static void take_unseen(void) {
    for (int index = 0; index < 101; index++)
        unseen_put(opaque(unseen_take(211)));
    static void *blocks[101];
    for (int round = 0; round < 3; round++) {
        for (int index = 0; index < 101; index++)
            blocks[index] = opaque(unseen_take(211));
        for (int index = 0; index < 101; index++)
            unseen_put(blocks[index]);
    }
    truth_untraced_frees = 404;
    /* Each place was free once before it was given back again: the one that is used
     * alone, and then all. */
    truth_losses = 404 - 101;
}

SITE static void free_old(void) {
    for (int index = 0; index < OLD; index++)
        unseen_put(old[index]);
    truth_untraced_frees = OLD;
}

/* What is seen, at places of old blocks. */
SITE static void get_seen(void) {
    for (int index = 0; index < OLD; index++)
        old[index] = opaque(unseen_get(223));
    for (int index = 0; index < OLD; index++)
        unseen_put(old[index]);
    truth("get_seen", 223, OLD, OLD);
}

static const Command commands[] = {
    COMMAND(take_unseen),
    COMMAND(free_old),
    COMMAND(get_seen),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    for (int index = 0; index < OLD; index++)
        old[index] = opaque(unseen_take(227));
    return serve(count, arguments, commands);
}
