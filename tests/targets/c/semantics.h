/* One command for each rule of the allocator's functions. Every call site has
 * a prime size of its own. */
#include "target.h"
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>

#define HUGE any(PTRDIFF_MAX)

/* Blocks for three commands. */
static void *before_attach[3][7];

/* --- malloc, calloc, free --- */

SITE static void malloc_plain(void) {
    for (int index = 0; index < 10; index++)
        opaque(malloc(101));
    truth("malloc_plain", 101, 10, 0);
}

SITE static void malloc_and_free(void) {
    for (int index = 0; index < 13; index++) {
        void *block = opaque(malloc(103));
        if (index % 2)
            free(block);
    }
    truth("malloc_and_free", 103, 13, 6);
}

SITE static void malloc_fails(void) {
    if (opaque(malloc(HUGE)))
        abort();
    opaque(malloc(107));
    truth("malloc_fails", 107, 1, 0);
}

SITE static void malloc_zero(void) {
    opaque(malloc(any(0)));
    free(opaque(malloc(any(0))));
    truth("malloc_zero", 0, 2, 1);
}

SITE static void free_null(void) {
    for (int index = 0; index < 5; index++)
        free(opaque(NULL));
    free(opaque(malloc(109)));
    truth("free_null", 109, 1, 1);
}

SITE static void calloc_plain(void) {
    opaque(calloc(3, 113));
    free(opaque(calloc(1, 113)));
    truth("calloc_plain", 3 * 113, 1, 0);
    truth("calloc_plain", 113, 1, 1);
}

SITE static void calloc_overflow(void) {
    if (opaque(calloc(any(SIZE_MAX / 2), 3)))
        abort();
    opaque(calloc(1, 127));
    truth("calloc_overflow", 127, 1, 0);
}

SITE static void free_before_attach(void) {
    for (int index = 0; index < 7; index++)
        free(before_attach[0][index]);
    truth_untraced_frees += 7;
}

/* --- realloc: a success frees the old block and allocates a new one --- */

SITE static void realloc_grows(void) {
    void *block = opaque(malloc(131));
    opaque(realloc(block, 100 * 131));
    truth("realloc_grows", 131, 1, 1);
    truth("realloc_grows", 100 * 131, 1, 0);
}

#ifdef __GLIBC__
SITE static void realloc_shrinks(void) {
    void *block = opaque(malloc(100 * 137));
    if (opaque(realloc(block, 137)) != block)
        abort();
    truth("realloc_shrinks", 100 * 137, 1, 1);
    truth("realloc_shrinks", 137, 1, 0);
}

#endif

SITE static void realloc_moves(void) {
    void *block = opaque(malloc(139));
    opaque(malloc(139)); /* in the way */
    if (opaque(realloc(block, 1000 * 139)) == block)
        abort();
    truth("realloc_moves", 139, 2, 1);
    truth("realloc_moves", 1000 * 139, 1, 0);
}

SITE static void realloc_fails(void) {
    void *block = opaque(malloc(149));
    if (opaque(realloc(block, HUGE)))
        abort();
    memset(block, 1, 149); /* the block is still ours */
    truth("realloc_fails", 149, 1, 0);
}

#ifdef __GLIBC__ /* musl moves what shrinks, keeps a block of no bytes, and has no pvalloc */
SITE static void realloc_to_zero(void) {
    void *block = opaque(malloc(151));
    if (opaque(realloc(block, any(0))))
        abort(); /* glibc frees */
    truth("realloc_to_zero", 151, 1, 1);
}
#endif

SITE static void realloc_of_null(void) {
    opaque(realloc(opaque(NULL), 157));
    truth("realloc_of_null", 157, 1, 0);
}

SITE static void realloc_before_attach(void) {
    for (int index = 0; index < 7; index++)
        before_attach[1][index] = opaque(realloc(before_attach[1][index], 163));
    truth("realloc_before_attach", 163, 7, 0);
    truth_untraced_frees += 7;
}

SITE static void realloc_before_attach_fails(void) {
    for (int index = 0; index < 7; index++)
        if (opaque(realloc(before_attach[2][index], HUGE)))
            abort();
    opaque(malloc(83));
    truth("realloc_before_attach_fails", 83, 1, 0);
}

SITE static void reallocarray_plain(void) {
    void *block = opaque(reallocarray(NULL, 3, 167));
    opaque(reallocarray(block, 300, 167));
    truth("reallocarray_plain", 3 * 167, 1, 1);
    truth("reallocarray_plain", 300 * 167, 1, 0);
}

SITE static void reallocarray_overflow(void) {
    void *block = opaque(malloc(173));
    if (opaque(reallocarray(block, any(SIZE_MAX / 2), 3)))
        abort();
    if (opaque(reallocarray(block, any(SIZE_MAX / 2 + 1), 2))) /* wraps to 0 */
        abort();
    memset(block, 1, 173);
    truth("reallocarray_overflow", 173, 1, 0);
}

/* --- aligned allocation --- */

SITE static void posix_memalign_plain(void) {
    void *block = (void *)1;
    if (posix_memalign(&block, 4096, 179))
        abort();
    opaque(block);
    if (posix_memalign(&block, 64, 179))
        abort();
    free(opaque(block));
    truth("posix_memalign_plain", 179, 2, 1);
}

SITE static void posix_memalign_fails(void) {
    void *block = malloc(181);
    void *kept = opaque(block);
    if (posix_memalign(&block, any(3), 181) != EINVAL)
        abort();
    if (posix_memalign(&block, 64, HUGE) != ENOMEM)
        abort();
    memset(kept, 1, 181);
    truth("posix_memalign_fails", 181, 1, 0);
}

SITE static void aligned_alloc_plain(void) {
    opaque(aligned_alloc(64, 191));
    free(opaque(aligned_alloc(4096, 191)));
    truth("aligned_alloc_plain", 191, 2, 1);
}

SITE static void memalign_plain(void) {
    opaque(memalign(64, 193));
    free(opaque(memalign(4096, 193)));
    truth("memalign_plain", 193, 2, 1);
}

SITE static void valloc_plain(void) {
    opaque(valloc(197));
    free(opaque(valloc(197)));
    truth("valloc_plain", 197, 2, 1);
}

#ifdef __GLIBC__
SITE static void pvalloc_plain(void) {
    opaque(pvalloc(199));
    free(opaque(pvalloc(199)));
    truth("pvalloc_plain", 199, 2, 1);
}
#endif

/* --- functions that allocate through malloc. libc keeps no frame pointers, so
 * that their blocks are told by size alone --- */

SITE static void strdup_counts_once(void) {
    char text[211];
    memset(text, 'x', sizeof text);
    text[210] = 0;
    opaque(strdup(opaque(text)));
    free(opaque(strdup(opaque(text))));
    truth(NULL, 211, 2, 1);
}

SITE static void asprintf_counts_once(void) {
    char *text = NULL;
    if (asprintf(&text, "%*d", 222, 1) != 222)
        abort();
    opaque(text);
    truth_live(NULL, 223, 1);
}

/* A line for which getline's buffer grows from 120 to 240 bytes. */
SITE static void getline_counts_once(void) {
    char text[200], *line = NULL;
    size_t size = 0;
    memset(text, 'x', sizeof text);
    text[199] = '\n';
    FILE *file = fmemopen(text, sizeof text, "r");
    if (!file || getline(&line, &size, file) != 200)
        abort();
    opaque(line);
    fclose(file);
    truth_live(NULL, size, 1);
}

/* --- threads --- */

static void *handed_over;

SITE static void *freeing_thread(void *argument) {
    for (void **block = argument; *block; block++)
        free(*block);
    return NULL;
}

SITE static void in_thread(void *(*function)(void *), void *argument) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, function, argument) || pthread_join(thread, NULL))
        abort();
    truth_others = 1; /* the thread's own bookkeeping */
}

SITE static void for_another_thread(void **blocks, int count) {
    for (int index = 0; index < count; index++)
        blocks[index] = opaque(malloc(227));
}

static void freed_in_another_thread(void) {
    static void *blocks[9], *last;
    for_another_thread(blocks, 8);
    in_thread(freeing_thread, blocks);
    for_another_thread(&last, 1);
    truth("for_another_thread", 227, 9, 8);
}

SITE static void *allocating_thread(void *argument) {
    for (int index = 0; index < 11; index++)
        handed_over = opaque(malloc(229));
    return argument;
}

SITE static void thread_after_attach(void) {
    in_thread(allocating_thread, NULL);
    free(handed_over);
    truth("allocating_thread", 229, 11, 1);
}

/* --- a call that never returns --- */

static sigjmp_buf escape;

static void escaping_handler(int signal) {
    siglongjmp(escape, signal);
}

/* posix_memalign faults while it writes its result to address 8; the handler
 * jumps out of the call, so its return probe never runs. At this alignment
 * glibc calls no other function that is probed. */
SITE static void miss_a_return(void) {
    struct sigaction action = {.sa_handler = escaping_handler};
    sigaction(SIGSEGV, &action, NULL);
    if (sigsetjmp(escape, 1) == 0) {
        int error = posix_memalign(opaque((void *)8), 64, 233);
        say("no fault, error %d\n", error);
        abort();
    }
    truth_losses += 1;
}

SITE static void after_missed_return(void) {
    miss_a_return();
    for (int index = 0; index < 6; index++) {
        void *block = opaque(malloc(239));
        if (index < 4)
            free(block);
    }
    free(opaque(calloc(1, 241)));
    opaque(realloc(NULL, 251));
    truth("after_missed_return", 239, 6, 4);
    truth("after_missed_return", 241, 1, 1);
    truth("after_missed_return", 251, 1, 0);
}

/* --- options --- */

SITE static void small_block(void) {
    free(opaque(malloc(97)));
    opaque(malloc(97));
}

SITE static void large_block(void) {
    free(opaque(malloc(5003)));
    opaque(malloc(5003));
    truth("large_block", 5003, 2, 1);
}

/* A traced block that shrinks below the limit, and one that grows above it. */
SITE static void across_the_limit(void) {
    void *shrinks = opaque(malloc(7001));
    opaque(realloc(shrinks, 7));
    void *grows = opaque(malloc(11));
    opaque(realloc(grows, 7013));
    truth("across_the_limit", 7001, 1, 1);
    truth("across_the_limit", 7013, 1, 0);
}

static const Command commands[] = {
    COMMAND(malloc_plain),
    COMMAND(malloc_and_free),
    COMMAND(malloc_fails),
    COMMAND(malloc_zero),
    COMMAND(free_null),
    COMMAND(calloc_plain),
    COMMAND(calloc_overflow),
    COMMAND(free_before_attach),
    COMMAND(realloc_grows),
    COMMAND(realloc_moves),
    COMMAND(realloc_fails),
#ifdef __GLIBC__
    COMMAND(realloc_shrinks),
    COMMAND(realloc_to_zero),
    COMMAND(pvalloc_plain),
#endif
    COMMAND(realloc_of_null),
    COMMAND(realloc_before_attach),
    COMMAND(realloc_before_attach_fails),
    COMMAND(reallocarray_plain),
    COMMAND(reallocarray_overflow),
    COMMAND(posix_memalign_plain),
    COMMAND(posix_memalign_fails),
    COMMAND(aligned_alloc_plain),
    COMMAND(memalign_plain),
    COMMAND(valloc_plain),
    COMMAND(strdup_counts_once),
    COMMAND(asprintf_counts_once),
    COMMAND(getline_counts_once),
    COMMAND(freed_in_another_thread),
    COMMAND(thread_after_attach),
    COMMAND(after_missed_return),
    COMMAND(small_block),
    COMMAND(large_block),
    COMMAND(across_the_limit),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    for (int index = 0; index < 3 * 7; index++)
        before_attach[index / 7][index % 7] = opaque(malloc(89));
    return serve(count, arguments, commands);
}
