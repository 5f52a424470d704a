/* One command for each thing a program does with its own mappings. Lengths
 * are prime numbers of pages. */
#include "target.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#define PAGES(count) ((size_t)(count) * 4096)

static char *before_attach;

static char *must(void *address) {
    if (address == MAP_FAILED) {
        say("mapping failed: %s\n", strerror(errno));
        abort();
    }
    return opaque(address);
}

#define MAP(length) must(mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
#define MAP_AT(address, length, flags) \
    must(mmap(address, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (flags), -1, 0))

static void unmap(void *address, size_t length) {
    if (munmap(address, length))
        abort();
}

/* Addresses that were free before the run; each command takes some. */
#define ROOM PAGES(64)
static char *next_room;

static char *take_room(void) {
    next_room += ROOM;
    return next_room;
}

SITE static void map_anonymous(void) {
    for (int index = 0; index < 3; index++)
        MAP(PAGES(3));
    truth_whole_mapping("map_anonymous", PAGES(3), 3, 0);
}

SITE static void map_and_unmap(void) {
    for (int index = 0; index < 4; index++) {
        char *mapping = MAP(PAGES(5));
        if (index)
            unmap(mapping, PAGES(5));
    }
    truth_whole_mapping("map_and_unmap", PAGES(5), 4, 3);
}

SITE static void map_shared(void) {
    must(mmap(NULL, PAGES(7), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    truth_whole_mapping("map_shared", PAGES(7), 1, 0);
}

SITE static void map_file(void) {
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    must(mmap(NULL, PAGES(2), PROT_READ, MAP_PRIVATE, file, 0));
    char *gone = must(mmap(NULL, PAGES(2), PROT_READ, MAP_PRIVATE, file, 0));
    unmap(gone, PAGES(2));
    close(file);
    MAP(PAGES(11));
    truth_whole_mapping("map_file", PAGES(11), 1, 0);
    truth_mapped_file("map_file", PAGES(2), 2, 1);
}

SITE static void map_fails(void) {
    if (mmap(NULL, any((size_t)1 << 62), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        abort();
    MAP(PAGES(13));
    truth_whole_mapping("map_fails", PAGES(13), 1, 0);
}

/* malloc maps blocks of this size by itself. */
SITE static void malloc_maps(void) {
    opaque(malloc(1048583));
    free(opaque(malloc(1048583)));
    truth("malloc_maps", 1048583, 2, 1);
}

/* realloc moves such a block with mremap. */
SITE static void realloc_remaps(void) {
    void *block = opaque(malloc(1048589));
    opaque(realloc(block, 3 * 1048589));
    truth("realloc_remaps", 1048589, 1, 1);
    truth("realloc_remaps", 3 * 1048589, 1, 0);
}

/* --- munmap --- */

SITE static void unmap_head(void) {
    unmap(MAP(PAGES(17)), PAGES(2));
    truth_mapped("unmap_head", PAGES(15));
}

SITE static void unmap_tail(void) {
    unmap(MAP(PAGES(17)) + PAGES(14), PAGES(3));
    truth_mapped("unmap_tail", PAGES(14));
}

SITE static void unmap_middle(void) {
    unmap(MAP(PAGES(17)) + PAGES(5), PAGES(5));
    truth_mapped("unmap_middle", PAGES(12));
}

SITE static void unmap_in_pieces(void) {
    char *mapping = MAP(PAGES(5));
    unmap(mapping + PAGES(1), PAGES(1));
    unmap(mapping + PAGES(3), PAGES(1));
    unmap(mapping, PAGES(5));
    truth_mapped("unmap_in_pieces", 0);
}

SITE static void unmap_across_two(void) {
    char *room = take_room();
    MAP_AT(room, PAGES(7), MAP_FIXED_NOREPLACE);
    MAP_AT(room + PAGES(7), PAGES(5), MAP_FIXED_NOREPLACE);
    unmap(room + PAGES(4), PAGES(5));
    truth_mapped("unmap_across_two", PAGES(7));
}

SITE static void unmap_several_with_holes(void) {
    char *room = take_room();
    for (int index = 0; index < 4; index++)
        MAP_AT(room + PAGES(5 * index), PAGES(3), MAP_FIXED_NOREPLACE);
    unmap(room + PAGES(1), PAGES(16));
    truth_mapped("unmap_several_with_holes", PAGES(2));
}

/* A length is rounded up to whole pages. */
SITE static void unmap_rounds_up(void) {
    unmap(MAP(PAGES(3)), 100);
    truth_mapped("unmap_rounds_up", PAGES(2));
}

SITE static void unmap_fails(void) {
    char *mapping = MAP(PAGES(19));
    if (munmap(mapping + 1, PAGES(1)) != -1 || errno != EINVAL)
        abort();
    if (munmap(mapping, any(0)) != -1 || errno != EINVAL)
        abort();
    truth_whole_mapping("unmap_fails", PAGES(19), 1, 0);
}

SITE static void unmap_before_attach(void) {
    unmap(before_attach, PAGES(23));
    MAP(PAGES(29));
    truth_whole_mapping("unmap_before_attach", PAGES(29), 1, 0);
}

/* --- mremap --- */

SITE static void remap_grows_in_place(void) {
    char *room = take_room();
    MAP_AT(room, PAGES(5), MAP_FIXED_NOREPLACE);
    if (mremap(room, PAGES(5), PAGES(11), 0) != room)
        abort();
    truth_mapped("remap_grows_in_place", PAGES(11));
}

SITE static void remap_moves(void) {
    char *room = take_room();
    MAP_AT(room, PAGES(5), MAP_FIXED_NOREPLACE);
    MAP_AT(room + PAGES(5), PAGES(3), MAP_FIXED_NOREPLACE); /* in the way */
    if (must(mremap(room, PAGES(5), PAGES(13), MREMAP_MAYMOVE)) == room)
        abort();
    truth_mapped("remap_moves", PAGES(16));
}

SITE static void remap_moves_then_unmap(void) {
    char *room = take_room();
    MAP_AT(room, PAGES(5), MAP_FIXED_NOREPLACE);
    MAP_AT(room + PAGES(5), PAGES(3), MAP_FIXED_NOREPLACE);
    unmap(must(mremap(room, PAGES(5), PAGES(13), MREMAP_MAYMOVE)), PAGES(13));
    truth_mapped("remap_moves_then_unmap", PAGES(3));
}

SITE static void remap_shrinks(void) {
    char *mapping = MAP(PAGES(17));
    if (mremap(mapping, PAGES(17), PAGES(7), 0) != mapping)
        abort();
    truth_mapped("remap_shrinks", PAGES(7));
}

/* Only a part of the mapping moves away. */
SITE static void remap_part(void) {
    char *mapping = MAP(PAGES(17));
    must(mremap(mapping + PAGES(10), PAGES(7), PAGES(19), MREMAP_MAYMOVE));
    truth_mapped("remap_part", PAGES(29));
}

SITE static void remap_fails(void) {
    char *mapping = MAP(PAGES(17));
    if (mremap(mapping, PAGES(17), any((size_t)1 << 62), MREMAP_MAYMOVE) != MAP_FAILED)
        abort();
    if (mremap(mapping + 1, PAGES(1), PAGES(2), MREMAP_MAYMOVE) != MAP_FAILED)
        abort();
    truth_whole_mapping("remap_fails", PAGES(17), 1, 0);
}

/* The target range of MREMAP_FIXED is unmapped first. */
SITE static void remap_over_own(void) {
    char *room = take_room();
    MAP_AT(room, PAGES(11), MAP_FIXED_NOREPLACE);
    char *mapping = MAP(PAGES(3));
    must(mremap(mapping, PAGES(3), PAGES(5), MREMAP_MAYMOVE | MREMAP_FIXED, room + PAGES(2)));
    truth_mapped("remap_over_own", PAGES(11));
}

/* MREMAP_DONTUNMAP leaves the old range mapped, and empty. */
SITE static void remap_keeps_old(void) {
    must(mremap(MAP(PAGES(7)), PAGES(7), PAGES(7), MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
    truth_mapped("remap_keeps_old", PAGES(14));
}

/* --- MAP_FIXED --- */

SITE static void map_over_own(void) {
    char *mapping = MAP(PAGES(17));
    MAP_AT(mapping + PAGES(3), PAGES(2), MAP_FIXED);
    truth_mapped("map_over_own", PAGES(17));
}

SITE static void map_file_over_own(void) {
    char *mapping = MAP(PAGES(17));
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    must(mmap(mapping + PAGES(3), PAGES(2), PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0));
    close(file);
    truth_mapped("map_file_over_own", PAGES(15));
    truth_mapped_file("map_file_over_own", PAGES(2), 1, 0);
}

/* What is only reserved is no memory; what is committed in it is, until it is given back. */
SITE static void reserve_and_commit(void) {
    const int reserve = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *reserved = must(mmap(NULL, PAGES(31), PROT_NONE, reserve, -1, 0));
    MAP_AT(reserved + PAGES(3), PAGES(7), MAP_FIXED);
    must(mmap(reserved + PAGES(4), PAGES(2), PROT_NONE, reserve | MAP_FIXED, -1, 0));
    truth_mapped("reserve_and_commit", PAGES(5));
}

/* Refused because the range is in use: the old mapping stays. */
SITE static void map_noreplace_fails(void) {
    char *mapping = MAP(PAGES(17));
    if (mmap(mapping, PAGES(2), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) !=
        MAP_FAILED)
        abort();
    truth_whole_mapping("map_noreplace_fails", PAGES(17), 1, 0);
}

static const Command commands[] = {
    COMMAND(map_anonymous),
    COMMAND(map_and_unmap),
    COMMAND(map_shared),
    COMMAND(map_file),
    COMMAND(map_fails),
    COMMAND(malloc_maps),
    COMMAND(realloc_remaps),
    COMMAND(unmap_head),
    COMMAND(unmap_tail),
    COMMAND(unmap_middle),
    COMMAND(unmap_in_pieces),
    COMMAND(unmap_across_two),
    COMMAND(unmap_several_with_holes),
    COMMAND(unmap_rounds_up),
    COMMAND(unmap_fails),
    COMMAND(unmap_before_attach),
    COMMAND(remap_grows_in_place),
    COMMAND(remap_moves),
    COMMAND(remap_moves_then_unmap),
    COMMAND(remap_shrinks),
    COMMAND(remap_part),
    COMMAND(remap_fails),
    COMMAND(remap_over_own),
    COMMAND(remap_keeps_old),
    COMMAND(map_over_own),
    COMMAND(map_file_over_own),
    COMMAND(reserve_and_commit),
    COMMAND(map_noreplace_fails),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    before_attach = MAP(PAGES(23));
    next_room = MAP(100 * ROOM);
    unmap(next_room, 100 * ROOM);
    return serve(count, arguments, commands);
}
