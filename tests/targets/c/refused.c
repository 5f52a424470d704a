// flags: -ldl
/* A process that the kernel refuses to probe, from a moment on. */
#include "target.h"
#include <dlfcn.h>
#include <limits.h>

SITE static void allocate_before(void) {
    for (int index = 0; index < 5; index++)
        opaque(malloc(521));
    truth("allocate_before", 521, 5, 0);
}

SITE static void open_refused(void) {
    char path[PATH_MAX] = "";
    if (readlink("/proc/self/exe", path, sizeof path - 64) <= 0)
        abort();
    strcpy(strrchr(path, '/'), "/librefused_library.so");
    if (!dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
        say("dlopen: %s\n", dlerror());
        abort();
    }
    truth_others = 1; /* the loader's own blocks */
}

SITE static void allocate_after(void) {
    for (int index = 0; index < 3; index++)
        opaque(malloc(523));
    truth("allocate_after", 523, 3, 0);
}

static const Command commands[] = {
    COMMAND(allocate_before),
    COMMAND(open_refused),
    COMMAND(allocate_after),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
