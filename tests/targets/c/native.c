// kind: shared
/* Native functions of Erlang: what they get of its runtime. The declarations are those of
 * `erl_nif.h` that are used here. */
#include "target.h"

#include <pthread.h>

typedef unsigned long term;
typedef struct env env;

typedef struct {
    const char *name;
    unsigned arity;
    term (*run)(env *, int, const term *);
    unsigned flags;
} Native;

typedef struct {
    int major, minor;
    const char *name;
    int count;
    Native *natives;
    int (*load)(env *, void **, term);
    int (*reload)(env *, void **, term);
    int (*upgrade)(env *, void **, void **, term);
    void (*unload)(env *, void *);
    const char *variant;
    unsigned options;
    size_t resource_size;
    const char *least;
} Entry;

/* On a thread that may wait. */
#define MAY_WAIT 2

void *enif_alloc(size_t size);
void *enif_realloc(void *block, size_t size);
void enif_free(void *block);
void *driver_alloc(size_t size);
void *driver_realloc(void *block, size_t size);
void driver_free(void *block);
term enif_make_atom(env *, const char *name);

#define OLD 101
static void *old[OLD];

SITE static void kept(void) {
    for (int index = 0; index < 1013; index++)
        opaque(enif_alloc(173));
    truth("kept", 173, 1013, 0);
}

SITE static void freed(void) {
    static void *blocks[2003];
    for (int index = 0; index < 2003; index++)
        blocks[index] = opaque(enif_alloc(179));
    for (int index = 0; index < 1999; index++)
        enif_free(blocks[index]);
    truth("freed", 179, 2003, 1999);
}

/* Each time elsewhere, or where it was. */
SITE static void grown(void) {
    void *block = enif_alloc(17);
    for (int index = 0; index < 9; index++)
        block = opaque(enif_realloc(block, (size_t)17 << (index + 1)));
    truth("grown", 17, 1, 1);
    for (int index = 0; index < 9; index++)
        truth("grown", (size_t)17 << (index + 1), 1, index < 8);
}

SITE static void drivers(void) {
    for (int index = 0; index < 211; index++) {
        void *block = opaque(driver_alloc(181));
        block = opaque(driver_realloc(block, 911));
        if (index < 200)
            driver_free(block);
    }
    truth("drivers", 181, 211, 211);
    truth("drivers", 911, 211, 200);
}

/* Twenty million bytes that are in memory. */
SITE static void written(void) {
    for (int index = 0; index < 20011; index++)
        memset(opaque(enif_alloc(1009)), 1, 1009);
    truth("written", 1009, 20011, 0);
}

/* Carriers that come and go: what they are made of is no block, nor a mapping. */
SITE static void large(void) {
    for (int round = 0; round < 7; round++) {
        void *block = opaque(enif_alloc(20000003));
        memset(block, 1, 20000003);
        enif_free(block);
    }
    opaque(enif_alloc(20000003));
    truth("large", 20000003, 8, 7);
    truth_mapped("large", 0);
}

static void *free_all(void *blocks) {
    for (void **block = blocks; *block; block++)
        enif_free(*block);
    return NULL;
}

/* Another thread frees: the runtime hands such blocks back to their owner. */
SITE static void handed_over(void **blocks, int count) {
    for (int index = 0; index < count; index++)
        blocks[index] = opaque(enif_alloc(191));
    truth("handed_over", 191, (unsigned long)count, (unsigned long)count);
}

static void elsewhere(void) {
    static void *blocks[503];
    handed_over(blocks, 502);
    pthread_t thread;
    if (pthread_create(&thread, NULL, free_all, blocks) || pthread_join(thread, NULL))
        abort();
    truth_others = 1;
}

static void old_freed(void) {
    for (int index = 0; index < OLD; index++)
        enif_free(old[index]);
    truth_untraced_frees = OLD;
}

/* A steady load, for who measures. */
SITE static void load(void) {
    for (int index = 0; index < 400000; index++)
        enif_free(opaque(enif_alloc(193)));
    truth("load", 193, 400000, 400000);
}

static const Command commands[] = {
    COMMAND(kept),      COMMAND(freed), COMMAND(grown),     COMMAND(drivers), COMMAND(large),
    COMMAND(elsewhere), COMMAND(load),  COMMAND(old_freed), COMMAND(written), {NULL, NULL},
};

static term run(env *env, int count, const term *arguments) {
    (void)count;
    (void)arguments;
    for (int index = 0; index < OLD; index++)
        old[index] = enif_alloc(197);
    serve(1, NULL, commands);
    return enif_make_atom(env, "ok");
}

static Native natives[] = {{"serve", 0, run, MAY_WAIT}};
static Entry entry = {
    2, 16, "native", 1, natives, NULL, NULL, NULL, NULL, "beam.vanilla", 1, 0, "erts-12.0"};

Entry *nif_init(void) {
    return &entry;
}
