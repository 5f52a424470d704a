// kind: shared
// flags: -O2 -fno-optimize-sibling-calls
/* Allocates for itself: see callers.cpp. */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

__attribute__((noipa)) void *library_takes(size_t size) { return malloc(size); }

__attribute__((noipa)) void *library_grows(void *block, size_t size) {
    return realloc(block, size);
}

__attribute__((noipa)) void library_frees(void *block) { free(block); }

__attribute__((noipa)) void *library_maps(size_t size) {
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
