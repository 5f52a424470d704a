/* A cache that is full when tracing begins, and replaces one old entry after the other. */
#include "target.h"
#include <string.h>
#include <time.h>

enum { ENTRIES = 30011, SIZE = 701, SECONDS = 8, EACH = 20 };

static char *entries[ENTRIES];

SITE static char *entry(void) {
    char *made = opaque(malloc(any(SIZE)));
    memset(made, 1, SIZE);
    return made;
}

static void fill(void) {
    for (int index = 0; index < ENTRIES; index++)
        entries[index] = entry();
}

static void renew(void) {
    struct timespec tick = {0, 10000000};
    int renewed = 0;
    for (; renewed < SECONDS * 100 * EACH; renewed++) {
        free(entries[renewed]);
        entries[renewed] = entry();
        if (renewed % EACH == 0)
            nanosleep(&tick, NULL);
    }
    truth("entry", SIZE, renewed, 0);
    truth_untraced_frees = renewed;
}

static const Command commands[] = {COMMAND(fill), COMMAND(renew), {NULL, NULL}};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
