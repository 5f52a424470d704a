/* Eight threads allocate with every function; each block is freed by another
 * thread. */
#include "target.h"
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define THREADS 8
#define ROUNDS 250000 /* blocks of each thread: two million in all */
#define BATCH 64

/* --- one function for each way to allocate, each with its own size --- */

SITE static void *by_malloc(void) { return opaque(malloc(41)); }
SITE static void *by_calloc(void) { return opaque(calloc(1, 43)); }
SITE static void *by_realloc(void) { return opaque(realloc(NULL, 47)); }
SITE static void *by_reallocarray(void) { return opaque(reallocarray(NULL, 1, 53)); }
SITE static void *by_aligned_alloc(void) { return opaque(aligned_alloc(64, 59)); }
SITE static void *by_memalign(void) { return opaque(memalign(32, 61)); }
SITE static void *by_valloc(void) { return opaque(valloc(67)); }
SITE static void *by_pvalloc(void) { return opaque(pvalloc(71)); }

SITE static void *by_posix_memalign(void) {
    void *block = NULL;
    if (posix_memalign(&block, 64, 73))
        abort();
    return opaque(block);
}

SITE static void *by_growing(void) {
    void *block = opaque(malloc(79));
    return opaque(realloc(block, 10 * 79));
}

SITE static void map_and_unmap(void) {
    void *mapping = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED || munmap(opaque(mapping), 4096))
        abort();
}

/* Another thread's block, moved by realloc and freed. */
SITE static void regrow(void *block) { free(opaque(realloc(block, 1009))); }

typedef struct {
    const char *function;
    void *(*allocate)(void);
    unsigned long size;
} Way;

static const Way ways[] = {
    {"by_malloc", by_malloc, 41},
    {"by_calloc", by_calloc, 43},
    {"by_realloc", by_realloc, 47},
    {"by_reallocarray", by_reallocarray, 53},
    {"by_aligned_alloc", by_aligned_alloc, 59},
    {"by_memalign", by_memalign, 61},
    {"by_posix_memalign", by_posix_memalign, 73},
    {"by_growing", by_growing, 10 * 79},
    /* whole pages: rare */
    {"by_valloc", by_valloc, 67},
    {"by_pvalloc", by_pvalloc, 71},
};
#define FREQUENT 8
#define WAYS 10

/* --- mailboxes --- */

typedef struct {
    pthread_mutex_t lock;
    void *blocks[16 * BATCH];
    int length;
} Mailbox;

typedef struct {
    int number;
    unsigned long made[WAYS], regrown, mapped;
} Worker;

static Mailbox mailboxes[THREADS];
static Worker workers[THREADS];
static atomic_int done_sending;

/* Frees what others sent; every 16th block is regrown first. */
static void receive(Worker *worker) {
    void *blocks[16 * BATCH];
    Mailbox *mailbox = &mailboxes[worker->number];
    pthread_mutex_lock(&mailbox->lock);
    int length = mailbox->length;
    memcpy(blocks, mailbox->blocks, (size_t)length * sizeof *blocks);
    mailbox->length = 0;
    pthread_mutex_unlock(&mailbox->lock);
    for (int index = 0; index < length; index++) {
        if (index % 16 == 15) {
            regrow(blocks[index]);
            worker->regrown++;
        } else {
            free(blocks[index]);
        }
    }
}

/* Empties the own mailbox while the other's has no room. */
static void send_to(int other, Worker *worker, void **blocks) {
    for (;;) {
        Mailbox *mailbox = &mailboxes[other];
        pthread_mutex_lock(&mailbox->lock);
        int room = mailbox->length + BATCH <= 16 * BATCH;
        if (room) {
            memcpy(mailbox->blocks + mailbox->length, blocks, BATCH * sizeof *blocks);
            mailbox->length += BATCH;
        }
        pthread_mutex_unlock(&mailbox->lock);
        receive(worker);
        if (room)
            return;
        sched_yield();
    }
}

static void *work(void *argument) {
    Worker *worker = argument;
    void *blocks[BATCH];
    for (int round = 0; round < ROUNDS / BATCH; round++) {
        for (int index = 0; index < BATCH; index++) {
            int way = index == BATCH - 1 ? FREQUENT + round % 2 : index % FREQUENT;
            blocks[index] = ways[way].allocate();
            worker->made[way]++;
        }
        if (round % 16 == 0) {
            map_and_unmap();
            worker->mapped++;
        }
        int step = 1 + round % (THREADS - 1);
        send_to((worker->number + step) % THREADS, worker, blocks);
    }
    atomic_fetch_add(&done_sending, 1);
    while (atomic_load(&done_sending) < THREADS) {
        receive(worker);
        sched_yield();
    }
    receive(worker);
    return NULL;
}

SITE static void churn(void) {
    pthread_t threads[THREADS];
    unsigned long regrown = 0, mapped = 0;
    atomic_store(&done_sending, 0);
    for (int index = 0; index < THREADS; index++) {
        Worker fresh = {.number = index};
        workers[index] = fresh;
        pthread_mutex_init(&mailboxes[index].lock, NULL);
        if (pthread_create(&threads[index], NULL, work, &workers[index]))
            abort();
    }
    for (int index = 0; index < THREADS; index++)
        pthread_join(threads[index], NULL);
    for (int index = 0; index < THREADS; index++) {
        for (int way = 0; way < WAYS; way++) {
            unsigned long made = workers[index].made[way];
            truth(ways[way].function, ways[way].size, made, made);
        }
        regrown += workers[index].regrown;
        mapped += workers[index].mapped;
    }
    unsigned long grown = truth_entry("by_growing", 0, "heap")->allocated_count;
    truth("by_growing", 79, grown, grown);
    truth("regrow", 1009, regrown, regrown);
    truth_whole_mapping("map_and_unmap", 4096, mapped, mapped);
    truth_others = 1; /* the threads' own bookkeeping */
}

static const Command commands[] = {COMMAND(churn), {NULL, NULL}};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
