// kind: shared
/* malloc and free of its own, each of which goes on with libc's: two probed functions
 * for one call. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

unsigned long wrapped_calls;

__attribute__((visibility("default"))) void *malloc(size_t size) {
    static void *(*next)(size_t);
    if (!next)
        next = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
    __atomic_add_fetch(&wrapped_calls, 1, __ATOMIC_RELAXED);
    return next(size);
}

__attribute__((visibility("default"))) void free(void *block) {
    static void (*next)(void *);
    if (!next)
        next = (void (*)(void *))dlsym(RTLD_NEXT, "free");
    next(block);
}
