/* Every function by which C allocates, from several threads at once, in sizes
 * of all classes. Counts and bytes are known. */
#include "target.h"

#include <malloc.h>
#include <pthread.h>

#define THREADS 4
#define ROUNDS 300

/* Every second block is freed at once. */
static void keep_or_free(void *block, int round) {
    if (!block)
        abort();
    if (round % 2)
        free(block);
}

SITE static void by_malloc(int round) { keep_or_free(opaque(malloc(any(1009))), round); }

SITE static void by_malloc_of_pages(int round) {
    keep_or_free(opaque(malloc(any(40009))), round);
}

SITE static void by_malloc_of_much(int round) {
    keep_or_free(opaque(malloc(any(2000003))), round);
}

SITE static void by_calloc(int round) { keep_or_free(opaque(calloc(any(7), any(101))), round); }

SITE static void by_calloc_of_one(int round) {
    keep_or_free(opaque(calloc(any(1), any(5003))), round);
}

SITE static void by_posix_memalign(int round) {
    void *block = NULL;
    if (posix_memalign(&block, any(64), any(1201)))
        abort();
    keep_or_free(opaque(block), round);
}

SITE static void by_aligned_alloc(int round) {
    keep_or_free(opaque(aligned_alloc(any(128), any(1301))), round);
}

SITE static void by_memalign(int round) {
    keep_or_free(opaque(memalign(any(256), any(1409))), round);
}

SITE static void by_realloc(int round) {
    void *block = opaque(realloc(opaque(NULL), any(503)));
    keep_or_free(opaque(realloc(block, any(15013))), round);
}

SITE static void frees_null(void) { free(opaque(NULL)); }

SITE static void *use(void *unused) {
    for (int round = 0; round < ROUNDS; round++) {
        by_malloc(round);
        by_malloc_of_pages(round);
        by_malloc_of_much(round);
        by_calloc(round);
        by_calloc_of_one(round);
        by_posix_memalign(round);
        by_aligned_alloc(round);
        by_memalign(round);
        by_realloc(round);
        frees_null();
    }
    return unused;
}

static void halves(const char *function, unsigned long size) {
    truth(function, size, THREADS * ROUNDS, THREADS * ROUNDS / 2);
}

static void all_apis(void) {
    pthread_t threads[THREADS];
    for (int index = 0; index < THREADS; index++)
        if (pthread_create(&threads[index], NULL, use, NULL))
            abort();
    for (int index = 0; index < THREADS; index++)
        pthread_join(threads[index], NULL);
    halves("by_malloc", 1009);
    halves("by_malloc_of_pages", 40009);
    halves("by_malloc_of_much", 2000003);
    halves("by_calloc", 7 * 101);
    halves("by_calloc_of_one", 5003);
    halves("by_posix_memalign", 1201);
    halves("by_aligned_alloc", 1301);
    halves("by_memalign", 1409);
    truth("by_realloc", 503, THREADS * ROUNDS, THREADS * ROUNDS);
    halves("by_realloc", 15013);
    truth_others = 1;
}

static const Command commands[] = {
    COMMAND(all_apis),
    {NULL, NULL},
};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
