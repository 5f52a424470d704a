// kind: shared
// flags: -O2 -fomit-frame-pointer
/* A library without frame pointers that paths.cpp calls, and that calls back. */
#include <cstddef>
#include <cstdlib>

#define SITE extern "C" __attribute__((noipa))

SITE void *library_allocates(std::size_t size) {
    void *block = std::malloc(size);
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

SITE int library_calls_back(int (*callback)(int), int value) {
    volatile int kept[23] = {value};
    return callback(value) + kept[0];
}

/* So short that a timer hits the stub that leads to it as often as itself. */
SITE int library_adds(int one, int other) { return one + other; }

/* Overtaken by programs that define it: called through the library's own PLT. */
SITE int library_hook(int value) { return value; }

SITE int library_calls_hook(int value) { return library_hook(value) + 1; }
