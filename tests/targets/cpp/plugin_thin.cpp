// kind: shared
// flags: -O2 -fomit-frame-pointer -falign-functions=64 -Wl,-z,separate-code
/* A library without frame pointers that changing.cpp loads while it is traced.
 * plugin_wide.cpp is the same with larger frames: each table is wrong for the
 * other, wherever one takes the other's place. */
#include <cstddef>
#include <cstdlib>

#ifndef WORDS
#define WORDS 3
#endif

#define SITE extern "C" __attribute__((noipa))

SITE int plugin_descends(int depth, std::size_t size, int (*around)(int)) {
    volatile long kept[WORDS] = {depth};
    void *block = std::malloc(size);
    __asm__ volatile("" : "+r"(block) : : "memory");
    std::free(block);
    int below = depth ? plugin_descends(depth - 1, size, around) : 0;
    return around(below) + static_cast<int>(kept[0]);
}
