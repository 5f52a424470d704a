// flags: -ldl
/* A program that loads a library with a sampler while it runs, and allocates before and
 * after that. */
#include <dlfcn.h>

#include "target.h"

static void *old[20];

SITE static void before(void) {
    for (int index = 0; index < 20; index++)
        old[index] = opaque(malloc(any(1013)));
    truth("before", 1013, 20, 0);
}

static void (*samples)(int);

static void load(void) {
    void *library = dlopen("libsamples_library.so", RTLD_NOW);
    samples = library ? (void (*)(int))dlsym(library, "library_samples") : NULL;
    if (!samples)
        abort();
    truth_others = 1;
}

SITE static void sampled(void) {
    samples(30);
    for (int index = 0; index < 20; index++)
        free(old[index]);
    opaque(malloc(any(2027)));
}

static const Command commands[] = {COMMAND(before), COMMAND(load), COMMAND(sampled), {NULL, NULL}};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
