// flags: -O2 -ldl
/* Blocks in the eyes of jemalloc's own heap profiler, which is preloaded: after
 * each round it writes what it knows into the file $PROFILE. */
#include "target.h"
#include <dlfcn.h>

enum { BLOCKS = 1000 };

typedef int Mallctl(const char *, void *, size_t *, void *, size_t);

/* The code of this function is what has to be among the callers of each block. */
SITE static void *profiled_caller(void) {
    void *block = opaque(malloc(1009));
    __asm__ volatile("" ::: "memory"); /* no tail call */
    return block;
}

SITE static void keep_blocks(void) {
    for (int index = 0; index < BLOCKS; index++)
        opaque(profiled_caller());
}

static void profile(void) {
    Mallctl *mallctl = (Mallctl *)dlsym(RTLD_DEFAULT, "mallctl");
    const char *file = getenv("PROFILE");
    if (!mallctl || !file)
        abort();
    keep_blocks();
    if (mallctl("prof.dump", NULL, NULL, &file, sizeof file))
        abort();
    say("caller %p blocks %d\n", (void *)profiled_caller, BLOCKS);
    truth("profiled_caller", 1009, BLOCKS, 0);
    truth_others = 1; /* the dump's bookkeeping */
}

static const Command commands[] = {COMMAND(profile), {NULL, NULL}};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
