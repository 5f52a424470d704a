// flags: -O2 -fomit-frame-pointer -fno-optimize-sibling-calls
// Half a million allocations a second, of whose bytes one in a hundred is leaked: what comes
// and goes at once, a cache whose entries are replaced by chance, and what is kept a while.
#include "leaky.h"

#define REQUESTS 221000
#define CACHE 5003
#define KEPT 2003
#define LEAK 571

static void *cached[CACHE], *kept[KEPT];
static void *volatile sink;
static unsigned long requests;

SITE static void *parse(void) {
    return malloc(157);
}

SITE static void *reply(void) {
    return malloc(311);
}

SITE static void *cache(void) {
    return malloc(307);
}

SITE static void *keep(void) {
    return malloc(503);
}

SITE static void leak(void) {
    sink = malloc(LEAK);
    leaked_bytes += LEAK;
}

SITE static void request(void) {
    void *volatile asked = parse(), *volatile answer = reply();
    work(9000);
    free(asked);
    free(answer);
    requests++;
    if (requests % 8 == 0) {
        unsigned slot = chance() % CACHE;
        free(cached[slot]);
        cached[slot] = cache();
    }
    if (requests % 8 == 4) {
        unsigned slot = (unsigned)(requests / 8 % KEPT);
        free(kept[slot]);
        kept[slot] = keep();
    }
    if (requests % 100 == 0)
        leak();
}

int main(void) {
    serve_requests(REQUESTS, request);
    return 0;
}
