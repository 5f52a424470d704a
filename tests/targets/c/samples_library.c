// kind: shared
/* A library that takes samples of what is allocated, by the first names of the contract. */
#define PROVIDER ddheap
#define NAME library
#include "samples.h"

__attribute__((noipa)) void library_samples(int count) {
    for (int index = 0; index < count; index++)
        tell_alloc(0x510000000000 + index * 4096UL, 211, 524393);
    tell_free(0x510000000000);
}
