/* Labelled behaviours in C: see verdicts.h, and labels.json for what each of them is. */
#include "verdicts.h"
#include <pthread.h>
#include <sys/mman.h>

/* Blocks in the order in which they came, each with the time at which it goes. */
enum { ROOM = 8192 };
typedef struct {
    void *block;
    long size;
    double until;
} Entry;
static Entry entries[ROOM];
static unsigned first, length;

static void enter(void *block, long size, double until) {
    if (length == ROOM)
        abort();
    Entry entry = {opaque(block), size, until};
    entries[(first + length++) % ROOM] = entry;
    held[0] += size;
}

static void drop_first(void) {
    Entry *entry = &entries[first++ % ROOM];
    first %= ROOM;
    length--;
    held[0] -= entry->size;
    free(entry->block);
}

static void drop_due(double now) {
    while (length && entries[first].until <= now)
        drop_first();
}

static void keep(void *block, long size) {
    opaque(block);
    held[0] += size;
}

/* Leaks. */

SITE static void steady_leak(double now) {
    (void)now;
    for (int come = arrivals(100); come > 0; come--)
        keep(malloc(1009), 1009);
}

SITE static void trickle_leak(double now) {
    (void)now;
    for (int come = arrivals(0.5); come > 0; come--)
        keep(malloc(4099), 4099);
}

SITE static void burst_leak(double now) {
    static double next = 1;
    if (now < next)
        return;
    next += 6;
    for (int come = 40; come > 0; come--)
        keep(malloc(2003), 2003);
}

/* At work for ten seconds, at rest for fifteen. */
SITE static void pausing_leak(double now) {
    if (now - 25 * (double)(long)(now / 25) < 10)
        for (int come = arrivals(30); come > 0; come--)
            keep(malloc(1511), 1511);
}

SITE static void stopping_leak(double now) {
    if (now < 9)
        for (int come = arrivals(60); come > 0; come--)
            keep(malloc(907), 907);
}

/* Each request has a text that is enlarged as it comes in; it is forgotten. */
SITE static void appending_leak(double now) {
    (void)now;
    for (int come = arrivals(8); come > 0; come--) {
        void *text = opaque(malloc(64));
        for (size_t size = 128; size <= 2048; size *= 2) {
            void *more = realloc(text, size);
            if (!more)
                abort();
            text = opaque(more);
        }
        keep(text, 2048);
    }
}

static void *touched(void *map) {
    if (map == MAP_FAILED)
        abort();
    return memset(map, 1, 65536);
}

SITE static void mapping_leak(double now) {
    (void)now;
    for (int come = arrivals(2.5); come > 0; come--)
        keep(
            touched(
                mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
            65536);
}

/* One allocating function, two that call it: what one asks for is forgotten now and then. */
SITE static void *make_buffer(long size) { return malloc((size_t)size); }

SITE static void answer_upload(void) {
    static unsigned uploads;
    void *buffer = opaque(make_buffer(1201));
    if (++uploads % 3 == 0)
        held[0] += 1201;
    else
        free(buffer);
}

SITE static void answer_download(void) {
    static void *answers[40];
    static unsigned downloads;
    void **slot = &answers[downloads++ % 40];
    if (!*slot)
        held[1] += 1301;
    free(*slot);
    *slot = opaque(make_buffer(1301));
}

static void branch_leak(double now) {
    (void)now;
    for (int come = arrivals(30); come > 0; come--)
        answer_upload();
    for (int come = arrivals(30); come > 0; come--)
        answer_download();
}

/* A hundred functions, each of which keeps something of what it decodes. */
#define FIELD(n) \
    SITE static void decode_##n(void) { keep(malloc(201 + n), 201 + n); }
#define TEN(what, n) \
    what(n##0) what(n##1) what(n##2) what(n##3) what(n##4) what(n##5) what(n##6) what(n##7) \
        what(n##8) what(n##9)
#define NINETY(what) \
    TEN(what, 1) TEN(what, 2) TEN(what, 3) TEN(what, 4) TEN(what, 5) TEN(what, 6) TEN(what, 7) \
    TEN(what, 8) TEN(what, 9)
NINETY(FIELD)
TEN(FIELD, 10)
#define NAME(n) decode_##n,
static void (*const fields[])(void) = {NINETY(NAME) TEN(NAME, 10)};

SITE static void spread_leak(double now) {
    (void)now;
    for (int come = arrivals(40); come > 0; come--)
        fields[below(sizeof fields / sizeof *fields)]();
}

static void *wait_forever(void *nothing) {
    for (;;)
        pause();
    return nothing;
}

SITE static void thread_leak(double now) {
    (void)now;
    for (int come = arrivals(0.7); come > 0; come--) {
        pthread_attr_t attributes;
        pthread_t thread;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, 65536);
        if (!pthread_create(&thread, &attributes, wait_forever, NULL))
            held[0] += 65536;
    }
}

/* What is healthy. */

SITE static void full_cache(double now) {
    (void)now;
    for (int come = arrivals(50); come > 0; come--) {
        if (length == 400)
            drop_first();
        enter(malloc(2011), 2011, 0);
    }
}

/* Of 2,000 keys one at a time is looked up: fewer and fewer are new. */
SITE static void slow_cache(double now) {
    static void *values[2000];
    (void)now;
    for (int come = arrivals(50); come > 0; come--) {
        void **value = &values[below(2000)];
        if (!*value) {
            *value = opaque(malloc(1709));
            held[0] += 1709;
        }
    }
}

SITE static void expiring_cache(double now) {
    drop_due(now);
    for (int come = arrivals(40); come > 0; come--)
        enter(malloc(1409), 1409, now + 12);
}

SITE static void request_arena(double now) {
    drop_due(now);
    for (int come = arrivals(15); come > 0; come--)
        for (int chunk = 0; chunk < 5; chunk++)
            enter(malloc(4093), 4093, now + 0.3);
}

/* Objects are given back to the pool; it has as many as were in use at once. */
SITE static void object_pool(double now) {
    unsigned in_use = (unsigned)(150 * sunlight(now));
    while (length < in_use)
        enter(malloc(3001), 3001, 0);
}

SITE static void batches(double now) {
    static double end = 8;
    if (now >= end) {
        end += 8;
        while (length)
            drop_first();
    }
    for (int come = arrivals(60); come > 0; come--)
        enter(malloc(1021), 1021, 0);
}

SITE static void daily_cycle(double now) {
    unsigned wanted = 20 + (unsigned)(300 * sunlight(now));
    while (length > wanted)
        drop_first();
    while (length < wanted)
        enter(malloc(1103), 1103, 0);
}

/* A text that is appended to, sent when it is long, and begun anew. */
SITE static void log_buffer(double now) {
    static void *text;
    (void)now;
    for (int come = arrivals(40); come > 0; come--) {
        if (held[0] >= 200000) {
            free(text);
            text = NULL;
            held[0] = 0;
        }
        void *more = realloc(text, (size_t)held[0] + 607);
        if (!more)
            abort();
        text = opaque(more);
        held[0] += 607;
    }
}

SITE static void mapped_window(double now) {
    static void *maps[20];
    static unsigned count;
    (void)now;
    for (int come = arrivals(4); come > 0; come--) {
        void **map = &maps[count++ % 20];
        if (*map)
            munmap(*map, 65536);
        else
            held[0] += 65536;
        *map = touched(
            mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    }
}

/* Blocks of all sizes come and go by chance: holes are left. */
SITE static void fragments(double now) {
    static void *blocks[600];
    static long sizes[600];
    (void)now;
    for (int come = arrivals(120); come > 0; come--) {
        unsigned at = below(600);
        free(blocks[at]);
        held[0] -= sizes[at];
        sizes[at] = 40 + below(3000);
        blocks[at] = opaque(malloc((size_t)sizes[at]));
        held[0] += sizes[at];
    }
}

static const Mode modes[] = {
    {"steady_leak", steady_leak, {0}},
    {"trickle_leak", trickle_leak, {0}},
    {"burst_leak", burst_leak, {0}},
    {"pausing_leak", pausing_leak, {0}},
    {"stopping_leak", stopping_leak, {0}},
    {"appending_leak", appending_leak, {0}},
    {"mapping_leak", mapping_leak, {0}},
    {"branch_leak", branch_leak, {"answer_upload", "answer_download"}},
    {"spread_leak", spread_leak, {0}},
    {"thread_leak", thread_leak, {0}},
    {"full_cache", full_cache, {0}},
    {"slow_cache", slow_cache, {0}},
    {"expiring_cache", expiring_cache, {0}},
    {"request_arena", request_arena, {0}},
    {"object_pool", object_pool, {0}},
    {"batches", batches, {0}},
    {"daily_cycle", daily_cycle, {0}},
    {"log_buffer", log_buffer, {0}},
    {"mapped_window", mapped_window, {0}},
    {"fragments", fragments, {0}},
    {0},
};

int main(int count, char **arguments) { return run_named(count, arguments, modes); }
