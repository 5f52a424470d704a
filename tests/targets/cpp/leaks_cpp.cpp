/* Leaks of known size by C++'s operators, and exceptions through them. */
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>

struct alignas(128) Wide {
    char bytes[1024];
};

struct Plain {
    char bytes[1009];
};

template <typename T> static T *kept(T *pointer) {
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

/* 20,000 blocks: 10,000 of 1009 bytes, 5,000 of 2 * 1009 and 5,000 of 1024. */
__attribute__((noipa)) static void leak_new() {
    for (int index = 0; index < 5000; index++) {
        kept(new Plain);
        kept(new (std::nothrow) Plain);
        kept(new Plain[2]);
        kept(new Wide);
        delete kept(new Plain);
        delete[] kept(new Plain[3]);
        delete kept(new Wide);
    }
}

/* What is thrown by an operator passes through whatever stands before it. */
__attribute__((noipa)) static void throws() {
    volatile std::size_t huge = static_cast<std::size_t>(-1) >> 2;
    int caught = 0;
    for (int index = 0; index < 100; index++)
        try {
            kept(new char[huge]);
        } catch (const std::bad_alloc &) {
            caught++;
        }
    if (caught != 100)
        std::abort();
}

int main(int count, char **) {
    leak_new();
    // mimalloc ends the program instead.
    if (count > 1)
        throws();
    std::puts("whole");
    std::fflush(stdout);
    std::quick_exit(0);
}
