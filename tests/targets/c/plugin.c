// kind: shared
/* A library that lifecycle.c loads while it is traced. */
#include <stdlib.h>

__attribute__((noipa)) void plugin_allocates(int count) {
    while (count--) {
        void *block = malloc(541);
        __asm__ volatile("" : : "r"(block) : "memory");
    }
}
