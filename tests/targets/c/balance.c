/* Ways in which the resident set of a program grows, or does not. Sizes are prime
 * numbers of bytes, or of pages. */
#include "target.h"

#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

/* What only one allocator exports. */
__attribute__((weak)) int mallctl(const char *, void *, size_t *, void *, size_t);
__attribute__((weak)) int MallocExtension_GetNumericProperty(const char *, size_t *);
__attribute__((weak)) void MallocExtension_ReleaseFreeMemory(void);

#define MIB ((size_t)1 << 20)
#define PAGES(count) ((size_t)(count) * 4096)

/* Made before anybody looks: a block that is written to, and a mapping that is not. */
static char *old_block;
static char *old_mapping;

SITE static void keep_large(void) {
    for (int index = 0; index < 31; index++)
        memset(opaque(malloc(1048583)), 1, 1048583);
}

SITE static void keep_small(void) {
    for (int index = 0; index < 20011; index++)
        memset(opaque(malloc(509)), 1, 509);
}

static void keep(void) {
    keep_large();
    keep_small();
    truth("keep_large", 1048583, 31, 0);
    truth("keep_small", 509, 20011, 0);
}

/* A block of which nothing is written to but its first byte. */
SITE static void keep_untouched(void) {
    char *block = opaque(malloc(67108879));
    *block = 1;
    truth("keep_untouched", 67108879, 1, 0);
}

SITE static void keep_few(void) {
    for (int index = 0; index < 503; index++)
        memset(opaque(malloc(1409)), 1, 1409);
    truth("keep_few", 1409, 503, 0);
}

/* All of it is freed again: what an allocator keeps has no block in it. */
SITE static void peak_alone(void) {
    enum { COUNT = 60013 };
    static char *blocks[COUNT];
    for (int index = 0; index < COUNT; index++) {
        blocks[index] = opaque(malloc(1021));
        memset(blocks[index], 1, 1021);
    }
    for (int index = 0; index < COUNT; index++)
        free(blocks[index]);
    truth("peak_alone", 1021, COUNT, COUNT);
}

/* --- a child that stays --- */

static void fork_child(void) {
    int ready[2], life[2];
    if (pipe(ready) || pipe(life))
        abort();
    pid_t child = fork();
    if (child < 0)
        abort();
    char byte;
    if (child == 0) {
        close(life[1]);
        for (int index = 0; index < 5003; index++)
            memset(opaque(malloc(1019)), 1, 1019);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        /* Until its parent has ended. */
        _exit(read(life[0], &byte, 1) != 0);
    }
    if (read(ready[0], &byte, 1) != 1)
        abort();
    say("child %d\n", child);
}

/* What the child has, too, until one of both writes to it. */
SITE static void write_shared(void) {
    memset(old_block, 2, 31 * MIB);
}

/* --- what no resident set has --- */

/* Frames that nobody closes, in files without a name. */
SITE static void keep_frames(void) {
    static char frame[1 << 20];
    memset(frame, 1, sizeof frame);
    for (int index = 0; index < 7; index++) {
        int file = memfd_create("frame", 0);
        if (file < 0 || write(file, frame, sizeof frame) != sizeof frame)
            abort();
    }
}

/* For seven seconds ever more pipes. */
SITE static void keep_pipes(void) {
    int ends[2];
    for (int index = 0; index < 70; index++) {
        if (pipe(ends))
            abort();
        usleep(100000);
    }
}

/* As many that are closed again. */
SITE static void close_pipes(void) {
    int ends[2];
    for (int index = 0; index < 70; index++) {
        if (pipe(ends) || close(ends[0]) || close(ends[1]))
            abort();
        usleep(100000);
    }
}

/* A mapping of which ever more is touched, for nine seconds: a heap that fills. */
SITE static void fill_mapping(void) {
    char *heap = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (heap == MAP_FAILED)
        abort();
    madvise(heap, 64 * MIB, MADV_NOHUGEPAGE);
    for (int index = 0; index < 45; index++) {
        memset(heap + index * MIB, 1, MIB);
        usleep(200000);
    }
}

/* --- threads that reach a peak, and keep little of it --- */

#define THREADS 8
#define BLOCKS 4001
#define KEPT 41 /* one of so many */

static sem_t done;

SITE static void peak(void) {
    static __thread char *blocks[BLOCKS];
    for (int index = 0; index < BLOCKS; index++) {
        blocks[index] = opaque(malloc(1021));
        memset(blocks[index], 1, 1021);
    }
    /* From the end, so that the top of the arena stays in use. */
    for (int index = 0; index < BLOCKS; index++)
        if ((BLOCKS - 1 - index) % KEPT)
            free(blocks[index]);
}

static void *peak_thread(void *argument) {
    peak();
    sem_post(&done);
    for (;;)
        pause();
    return argument;
}

static void keep_arenas(void) {
    sem_init(&done, 0, 0);
    for (int index = 0; index < THREADS; index++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, peak_thread, NULL))
            abort();
    }
    for (int index = 0; index < THREADS; index++)
        while (sem_wait(&done))
            ;
    unsigned long kept = (BLOCKS + KEPT - 1) / KEPT;
    truth("peak", 1021, (unsigned long)THREADS * BLOCKS, THREADS * (BLOCKS - kept));
    truth_others = 1;
}

/* What glibc itself says that is free in all arenas. */
static void tell_free(void) {
    struct mallinfo2 info = mallinfo2();
    say("free %zu\n", info.fordblks);
}

static size_t of_jemalloc(const char *name) {
    size_t value = 0, size = sizeof value;
    if (mallctl(name, &value, &size, NULL, 0))
        abort();
    return value;
}

/* What another allocator says that is free in whole pages, and how many arenas it has. */
static void tell_books(void) {
    size_t free = 0, arenas = 0;
    if (mallctl) {
        uint64_t epoch = 1;
        if (mallctl("epoch", NULL, NULL, &epoch, sizeof epoch))
            abort();
        free = 4096 * (of_jemalloc("stats.arenas.4096.pdirty") + of_jemalloc("stats.arenas.4096.pmuzzy"));
        unsigned count = 0;
        size_t size = sizeof count;
        if (mallctl("arenas.narenas", &count, &size, NULL, 0))
            abort();
        for (unsigned arena = 0; arena < count; arena++) {
            char name[64];
            snprintf(name, sizeof name, "arena.%u.initialized", arena);
            bool is_made = false;
            size = sizeof is_made;
            arenas += !mallctl(name, &is_made, &size, NULL, 0) && is_made;
        }
    } else if (!MallocExtension_GetNumericProperty("tcmalloc.pageheap_free_bytes", &free)) {
        abort();
    }
    say("books %zu %zu\n", free, arenas);
}

static void trim(void) {
    if (mallctl)
        mallctl("arena.4096.purge", NULL, NULL, NULL, 0);
    else if (MallocExtension_ReleaseFreeMemory)
        MallocExtension_ReleaseFreeMemory();
    else
        malloc_trim(0);
}

/* --- mappings --- */

static void touch_older(void) {
    memset(old_mapping + PAGES(101), 1, PAGES(9001));
    say("mapping %lx\n", (unsigned long)old_mapping);
}

SITE static void map_and_touch(void) {
    char *mapping = mmap(NULL, PAGES(8009), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        abort();
    madvise(mapping, PAGES(8009), MADV_NOHUGEPAGE);
    memset(opaque(mapping), 1, PAGES(4001));
    truth_whole_mapping("map_and_touch", PAGES(8009), 1, 0);
}

/* A pool's, by the name of Python's function. */
SITE static void new_arena(void) {
    char *arena = mmap(NULL, PAGES(2003), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena == MAP_FAILED)
        abort();
    madvise(arena, PAGES(2003), MADV_NOHUGEPAGE);
    memset(opaque(arena), 1, PAGES(2003));
    truth_whole_mapping("new_arena", PAGES(2003), 1, 0);
}

SITE static void map_shared_and_touch(void) {
    char *mapping = mmap(NULL, PAGES(4003), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        abort();
    memset(opaque(mapping), 1, PAGES(4003));
    truth_whole_mapping("map_shared_and_touch", PAGES(4003), 1, 0);
}

static void free_old(void) {
    free(old_block);
    truth_untraced_frees = 1;
}

static const Command commands[] = {
    COMMAND(keep),
    COMMAND(keep_untouched),
    COMMAND(keep_few),
    COMMAND(keep_arenas),
    COMMAND(peak_alone),
    COMMAND(fork_child),
    COMMAND(write_shared),
    COMMAND(fill_mapping),
    COMMAND(keep_frames),
    COMMAND(keep_pipes),
    COMMAND(close_pipes),
    COMMAND(tell_free),
    COMMAND(tell_books),
    COMMAND(trim),
    COMMAND(touch_older),
    COMMAND(map_and_touch),
    COMMAND(map_shared_and_touch),
    COMMAND(new_arena),
    COMMAND(free_old),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    old_block = opaque(malloc(48 * MIB));
    memset(old_block, 1, 48 * MIB);
    old_mapping = mmap(NULL, 1024 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (old_mapping == MAP_FAILED)
        abort();
    /* Pages of 4 KiB: what is touched is what is resident. */
    madvise(old_mapping, 1024 * MIB, MADV_NOHUGEPAGE);
    return serve(count, arguments, commands);
}
