// flags: -O2 -fomit-frame-pointer -Wno-format-truncation -ldl
/* Code that comes and goes while a process is traced, without frame pointers.
 * The commands in their order can be run any number of times. */
#include "../c/target.h"
#include <climits>
#include <dlfcn.h>
#include <sys/wait.h>

/* A block that is freed at once: a command can be run any number of times. */
#define BLOCK(size) free(opaque(malloc(size)))

typedef int (*Descends)(int depth, std::size_t size, int (*around)(int));

static void *library;
static Descends descends;

SITE static int around(int value) {
    opaque(&value);
    return value;
}

/* --- libraries --- */

static void load(const char *name) {
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
    path[length > 0 ? length : 0] = 0;
    snprintf(strrchr(path, '/') + 1, 64, "lib%s.so", name);
    library = dlopen(path, RTLD_NOW);
    if (!library) {
        say("dlopen: %s\n", dlerror());
        abort();
    }
    descends = reinterpret_cast<Descends>(dlsym(library, "plugin_descends"));
}

SITE static void unload() {
    if (library && dlclose(library))
        abort();
    library = nullptr;
}

/* Loads it and uses it at once. */
SITE static void load_thin() {
    load("plugin_thin");
    descends(5, 1487, around);
}

SITE static void use_thin() { descends(5, 1489, around); }

/* Puts the other library where the first was, and uses it at once. */
SITE static void replace() {
    Descends before = descends;
    unload();
    load("plugin_wide");
    if (descends != before) {
        say("the second library is elsewhere\n");
        abort();
    }
    descends(5, 1493, around);
}

SITE static void use_wide() { descends(5, 1499, around); }

/* --- processes --- */

SITE static int recurse(int depth, std::size_t size) {
    volatile char kept[100] = {static_cast<char>(depth)};
    BLOCK(size);
    int below = depth ? recurse(depth - 1, size) : 0;
    return below + kept[0];
}

SITE static void allocate_in_child() {
    pid_t child = fork();
    if (child == 0) {
        recurse(20, 1511);
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status)
        abort();
}

/* The new image is ready for commands. */
SITE static void exec_self() {
    recurse(5, 1523);
    say_truth();
    execl("/proc/self/exe", "changing", NULL);
    abort();
}

SITE static void after_exec() { recurse(20, 1531); }

static const Command commands[] = {
    COMMAND(load_thin),  COMMAND(use_thin),          COMMAND(replace),   COMMAND(use_wide), COMMAND(unload),
    COMMAND(after_exec), COMMAND(allocate_in_child), COMMAND(exec_self), {NULL, NULL},
};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
