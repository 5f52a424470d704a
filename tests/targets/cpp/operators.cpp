// flags: -O2 -fno-omit-frame-pointer -faligned-new
/* Every form of `operator new` and `operator delete`, and functions that only
 * some allocators have, under whichever allocator is loaded. Sizes are primes,
 * or multiples of the alignment, to which libstdc++ rounds them up. */
#include "../c/target.h"
#include <cstdint>
#include <new>
#include <sys/resource.h>

/* What only one allocator exports. */
extern "C" {
__attribute__((weak)) void *mallocx(size_t, int);
__attribute__((weak)) void *rallocx(void *, size_t, int);
__attribute__((weak)) size_t xallocx(void *, size_t, size_t, int);
__attribute__((weak)) void dallocx(void *, int);
__attribute__((weak)) void sdallocx(void *, size_t, int);
__attribute__((weak)) void *tc_malloc(size_t);
__attribute__((weak)) void tc_free(void *);
__attribute__((weak)) void *tc_new(size_t);
__attribute__((weak)) void tc_delete_sized(void *, size_t);
__attribute__((weak)) void *mi_malloc(size_t);
__attribute__((weak)) void *mi_zalloc(size_t);
__attribute__((weak)) void *mi_malloc_aligned(size_t, size_t);
__attribute__((weak)) void *mi_new_n(size_t, size_t);
__attribute__((weak)) void *mi_rezalloc(void *, size_t);
__attribute__((weak)) void *mi_recalloc(void *, size_t, size_t);
__attribute__((weak)) void *mi_reallocf(void *, size_t);
__attribute__((weak)) void *mi_heap_new(void);
__attribute__((weak)) void *mi_heap_malloc(void *, size_t);
__attribute__((weak)) void *mi_heap_calloc(void *, size_t, size_t);
__attribute__((weak)) void *mi_heap_realloc(void *, void *, size_t);
__attribute__((weak)) void mi_free(void *);
__attribute__((weak)) void mi_free_size(void *, size_t);
}

static const std::align_val_t wide{64};

/* A heap of mimalloc's, made before anybody looks. */
static void *heap;

template <typename Make, typename Drop>
static void twice(const char *site, size_t size, Make make, Drop drop) {
    for (int index = 0; index < 4; index++)
        opaque(make());
    for (int index = 0; index < 3; index++)
        drop(opaque(make()));
    truth(site, size, 7, 3);
}

#define FORM(name, size, make, drop)                                                               \
    extern "C" SITE void name() {                                                                  \
        twice(#name, size, [] { return (make); }, [](void *block) { drop; });                      \
    }

FORM(new_plain, 211, operator new(211), operator delete(block))
FORM(new_sized, 223, operator new(223), operator delete(block, std::size_t{223}))
FORM(new_array, 227, operator new[](227), operator delete[](block))
FORM(new_array_sized, 229, operator new[](229), operator delete[](block, std::size_t{229}))
FORM(new_aligned, 320, operator new(320, wide), operator delete(block, wide))
FORM(new_aligned_sized, 448, operator new(448, wide), operator delete(block, std::size_t{448}, wide))
FORM(new_array_aligned, 704, operator new[](704, wide), operator delete[](block, wide))
FORM(new_array_aligned_sized, 832, operator new[](832, wide),
     operator delete[](block, std::size_t{832}, wide))
FORM(new_nothrow, 257, operator new(257, std::nothrow), operator delete(block, std::nothrow))
FORM(new_array_nothrow, 263, operator new[](263, std::nothrow),
     operator delete[](block, std::nothrow))
FORM(new_aligned_nothrow, 1088, operator new(1088, wide, std::nothrow),
     operator delete(block, wide, std::nothrow))
FORM(new_array_aligned_nothrow, 1216, operator new[](1216, wide, std::nothrow),
     operator delete[](block, wide, std::nothrow))

FORM(jemalloc_x, 277, mallocx(277, 0), dallocx(block, 0))
FORM(jemalloc_sized, 281, mallocx(281, 0), sdallocx(block, 281, 0))

extern "C" SITE void jemalloc_rallocx() {
    for (int index = 0; index < 5; index++)
        opaque(rallocx(opaque(mallocx(283, 0)), 20011, 0));
    truth("jemalloc_rallocx", 283, 5, 5);
    Truth *entry = truth_entry("jemalloc_rallocx", 0, "heap");
    entry->allocated_count += 5;
    entry->allocated_bytes += 5 * 20011;
}

/* Grows where there is room in the size class, and fails beyond. */
extern "C" SITE void jemalloc_xallocx() {
    for (int index = 0; index < 5; index++) {
        void *block = opaque(mallocx(97, 0));
        if (xallocx(block, 103, 0, 0) < 103 || xallocx(block, 40009, 0, 0) >= 40009)
            abort();
    }
    truth("jemalloc_xallocx", 97, 5, 5);
    Truth *entry = truth_entry("jemalloc_xallocx", 0, "heap");
    entry->allocated_count += 5;
    entry->allocated_bytes += 5 * 103;
}

FORM(tcmalloc_names, 293, tc_malloc(293), tc_free(block))
FORM(tcmalloc_new, 307, tc_new(307), tc_delete_sized(block, 307))

FORM(mimalloc_names, 311, mi_malloc(311), mi_free(block))
FORM(mimalloc_zeroed, 313, mi_zalloc(313), mi_free_size(block, 313))
FORM(mimalloc_aligned, 317, mi_malloc_aligned(317, 128), mi_free(block))
FORM(mimalloc_count, 331, mi_new_n(1, 331), mi_free(block))
FORM(mimalloc_heap, 337, mi_heap_malloc(heap, 337), mi_free(block))
FORM(mimalloc_heap_calloc, 347, mi_heap_calloc(heap, 1, 347), mi_free(block))

extern "C" SITE void mimalloc_reallocs() {
    opaque(mi_rezalloc(opaque(mi_malloc(349)), 30011));
    opaque(mi_recalloc(opaque(mi_malloc(349)), 1, 30011));
    opaque(mi_reallocf(opaque(mi_malloc(349)), 30011));
    opaque(mi_heap_realloc(heap, opaque(mi_malloc(349)), 30011));
    /* It fails, and frees all the same. */
    if (mi_reallocf(opaque(mi_malloc(349)), any(PTRDIFF_MAX)))
        abort();
    truth("mimalloc_reallocs", 349, 5, 5);
    Truth *entry = truth_entry("mimalloc_reallocs", 0, "heap");
    entry->allocated_count += 4;
    entry->allocated_bytes += 4 * 30011;
}

SITE static char *huge(std::size_t size) { return static_cast<char *>(opaque(new char[size])); }

/* A handler that allocates itself, from the frame that called `new`. */
extern "C" SITE void throws_and_allocates() {
    for (int index = 0; index < 50; index++) {
        try {
            opaque(operator new(any(PTRDIFF_MAX)));
            abort();
        } catch (const std::bad_alloc &) {
            opaque(operator new(353));
        }
        try {
            opaque(operator new(any(PTRDIFF_MAX), wide));
            abort();
        } catch (const std::bad_alloc &) {
            opaque(malloc(353));
        }
    }
    truth(NULL, 353, 100, 0);
    truth_others = 1;
}

/* Memory that runs out, as where a service limits itself: each `new` is
 * believed, and the one that fails is caught. */
extern "C" SITE void lives_on_bad_alloc() {
    struct rlimit before, limit;
    getrlimit(RLIMIT_AS, &before);
    limit = before;
    limit.rlim_cur = rlim_t{3} << 30;
    setrlimit(RLIMIT_AS, &limit);
    static char *blocks[512];
    int made = 0, caught = 0;
    while (caught < 3) {
        try {
            blocks[made] = huge((std::size_t{16} << 20) - 1);
            made++;
        } catch (const std::bad_alloc &) {
            caught++;
        }
    }
    if (made < 10)
        abort();
    while (made > 7)
        delete[] blocks[--made];
    setrlimit(RLIMIT_AS, &before);
    truth_live(NULL, (16ul << 20) - 1, 7);
}

/* A handler that throws and catches for itself, and makes room: then the `new` that has
 * called it succeeds. */
static struct rlimit all_memory;

static void makes_room() {
    try {
        throw 1;
    } catch (int) {
    }
    setrlimit(RLIMIT_AS, &all_memory);
    std::set_new_handler(nullptr);
}

extern "C" SITE void handler_catches() {
    getrlimit(RLIMIT_AS, &all_memory);
    struct rlimit limit = all_memory;
    limit.rlim_cur = rlim_t{1} << 30;
    setrlimit(RLIMIT_AS, &limit);
    std::set_new_handler(makes_room);
    huge((std::size_t{1} << 30) - 1);
    truth(NULL, (std::size_t{1} << 30) - 1, 1, 0);
    truth_others = 1;
}

static const Command commands[] = {
    COMMAND(new_plain),
    COMMAND(new_sized),
    COMMAND(new_array),
    COMMAND(new_array_sized),
    COMMAND(new_aligned),
    COMMAND(new_aligned_sized),
    COMMAND(new_array_aligned),
    COMMAND(new_array_aligned_sized),
    COMMAND(new_nothrow),
    COMMAND(new_array_nothrow),
    COMMAND(new_aligned_nothrow),
    COMMAND(new_array_aligned_nothrow),
    COMMAND(jemalloc_x),
    COMMAND(jemalloc_sized),
    COMMAND(jemalloc_rallocx),
    COMMAND(jemalloc_xallocx),
    COMMAND(tcmalloc_names),
    COMMAND(tcmalloc_new),
    COMMAND(mimalloc_names),
    COMMAND(mimalloc_zeroed),
    COMMAND(mimalloc_aligned),
    COMMAND(mimalloc_count),
    COMMAND(mimalloc_heap),
    COMMAND(mimalloc_heap_calloc),
    COMMAND(mimalloc_reallocs),
    COMMAND(throws_and_allocates),
    COMMAND(lives_on_bad_alloc),
    COMMAND(handler_catches),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    if (mi_heap_new)
        heap = mi_heap_new();
    return serve(count, arguments, commands);
}
