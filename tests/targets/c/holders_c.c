/* Blocks that are held in every way that C has, and some that nobody holds: see
 * holders_cpp.cpp. Its heap is in no order, and memory comes and goes meanwhile if `churn`
 * was told. */
#include <pthread.h>
#include <sys/mman.h>

#include "target.h"

#define COUNT 64

static void *g_table[COUNT];
SITE static void in_table(void) {
    for (int index = 0; index < COUNT; index++)
        g_table[index] = (char *)opaque(malloc(any(331))) + 16;
}

struct item {
    char bytes[400];
    struct item *next;
};
static struct {
    long count;
    struct item *first;
} g_queue;
SITE static void in_queue(void) {
    for (int index = 0; index < COUNT; index++) {
        struct item *item = opaque(malloc(sizeof *item));
        item->next = g_queue.first;
        g_queue.first = item;
        g_queue.count++;
    }
}

static __thread void *t_slots[COUNT];
SITE static void in_slots(void) {
    for (int index = 0; index < COUNT; index++)
        t_slots[index] = opaque(malloc(any(1201)));
}

static void **g_mapped;
SITE static void in_mapping(void) {
    g_mapped = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int index = 0; index < COUNT; index++)
        g_mapped[index] = opaque(malloc(any(811)));
}

/* Large enough for mappings of their own. */
static void *g_large[COUNT];
SITE static void large(void) {
    for (int index = 0; index < COUNT; index++)
        g_large[index] = opaque(malloc(any(200003)));
}

SITE static void forgotten(void) {
    for (int index = 0; index < COUNT; index++)
        opaque(malloc(any(947)));
}

SITE static void forgotten_large(void) {
    for (int index = 0; index < COUNT; index++)
        opaque(malloc(any(200009)));
}

SITE static void scrub(void) {
    volatile char bytes[32768];
    for (size_t index = 0; index < sizeof bytes; index++)
        bytes[index] = 1;
}

SITE static void work(void) {
    in_table();
    in_queue();
    in_slots();
    in_mapping();
    large();
    forgotten();
    forgotten_large();
    /* They may be read: so what is written to them stays. */
    opaque(g_table);
    opaque(t_slots);
    opaque(g_large);
    scrub();
    truth_others = 1;
}

/* Shelves from before a run: of each kind every other one is emptied and freed. */
static void ***g_shelves;
static void ***g_emptied;
SITE static void prepare(void) {
    g_shelves = opaque(calloc(COUNT, sizeof *g_shelves));
    g_emptied = opaque(calloc(COUNT, sizeof *g_emptied));
    for (int index = 0; index < COUNT; index++) {
        g_shelves[index] = opaque(calloc(20, sizeof(void *)));
        g_emptied[index] = opaque(calloc(20, sizeof(void *)));
    }
    scrub();
}

SITE static void in_shelves(void) {
    for (int index = 0; index < COUNT; index++)
        g_shelves[index][7] = opaque(malloc(any(1409)));
}

/* What is freed leads to them still. */
SITE static void in_emptied(void) {
    for (int index = 0; index < COUNT; index++) {
        g_emptied[index][7] = opaque(malloc(any(1427)));
        free(g_emptied[index]);
        g_emptied[index] = NULL;
    }
    truth_others = 1;
}

SITE static void fill(void) {
    in_shelves();
    in_emptied();
    opaque(g_shelves);
    scrub();
    truth_others = 1;
}

/* Vectors that are full: where nothing lies between blocks, as under jemalloc, the end of each is the
 * start of its neighbour, of which every other one has a holder. */
static struct {
    char *begin, *end, *capacity;
} g_full[COUNT];
static char *g_held[COUNT];
SITE static char *buffer(void) { return opaque(malloc(any(512))); }
SITE static char *neighbour(void) { return opaque(malloc(any(512))); }
SITE static void fill_vectors(void) {
    for (int index = 0; index < COUNT; index++) {
        g_full[index].begin = buffer();
        g_full[index].end = g_full[index].capacity = g_full[index].begin + 512;
        char *next = neighbour();
        g_held[index] = index % 2 ? next : NULL;
    }
    opaque(g_full);
    opaque(g_held);
    scrub();
    truth_others = 1;
}

/* A heap that leads to itself, while mappings and blocks come and go, until the end. */
static void *churning(void *nothing) {
    static void **ring[4096];
    for (unsigned long round = 0;; round++) {
        size_t size = 64 + round * 7919 % 60000;
        void **block = malloc(size);
        void **old = ring[round % 4096];
        for (size_t word = 0; word < size / sizeof(void *); word++)
            block[word] = word % 2 ? (void *)block : (void *)ring[(round + word) % 4096];
        ring[round % 4096] = block;
        free(old);
        char *mapped = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (size_t page = 0; page < 1 << 20; page += 4096)
            *(char **)(mapped + page) = mapped + page / 2;
        munmap(mapped, 1 << 20);
    }
    return nothing;
}

SITE static void churn(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, churning, NULL))
        abort();
    work();
}

static const Command commands[] = {COMMAND(work), COMMAND(churn), COMMAND(prepare), COMMAND(fill), COMMAND(fill_vectors),
                                   {NULL, NULL}};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
