/* Allocates by a jemalloc whose functions are not called malloc and free. */
#include "target.h"

#define JOIN(one, other) one##other
#define NAMED(prefix, name) JOIN(prefix, name)

void *NAMED(PREFIX, malloc)(size_t);
void *NAMED(PREFIX, calloc)(size_t, size_t);
void *NAMED(PREFIX, realloc)(void *, size_t);
void *NAMED(PREFIX, aligned_alloc)(size_t, size_t);
void *NAMED(PREFIX, mallocx)(size_t, int);
void *NAMED(PREFIX, rallocx)(void *, size_t, int);
void NAMED(PREFIX, sdallocx)(void *, size_t, int);
void NAMED(PREFIX, dallocx)(void *, int);
void NAMED(PREFIX, free)(void *);

SITE void blocks(void) {
    for (int index = 0; index < 7; index++)
        opaque(NAMED(PREFIX, malloc)(401));
    for (int index = 0; index < 5; index++)
        NAMED(PREFIX, free)(opaque(NAMED(PREFIX, malloc)(401)));
    truth("blocks", 401, 12, 5);
}

SITE void zeroed(void) {
    opaque(NAMED(PREFIX, calloc)(1, 409));
    NAMED(PREFIX, dallocx)(opaque(NAMED(PREFIX, calloc)(1, 409)), 0);
    truth("zeroed", 409, 2, 1);
}

SITE void sized(void) {
    opaque(NAMED(PREFIX, mallocx)(419, 0));
    NAMED(PREFIX, sdallocx)(opaque(NAMED(PREFIX, mallocx)(419, 0)), 419, 0);
    truth("sized", 419, 2, 1);
}

SITE void aligned(void) {
    opaque(NAMED(PREFIX, aligned_alloc)(64, 64 * 7));
    truth("aligned", 64 * 7, 1, 0);
}

SITE void grown(void) {
    opaque(NAMED(PREFIX, realloc)(opaque(NAMED(PREFIX, malloc)(421)), 20021));
    opaque(NAMED(PREFIX, rallocx)(opaque(NAMED(PREFIX, malloc)(421)), 20021, 0));
    truth("grown", 421, 2, 2);
    Truth *entry = truth_entry("grown", 0, "heap");
    entry->allocated_count += 2;
    entry->allocated_bytes += 2 * 20021;
}

static const Command commands[] = {
    COMMAND(blocks), COMMAND(zeroed), COMMAND(sized), COMMAND(aligned), COMMAND(grown), {NULL, NULL},
};
