// flags: -O2 -fomit-frame-pointer -Wno-format-truncation -ldl
/* Code that comes and goes while a process is traced, without frame pointers.
 * The commands in their order can be run any number of times. */
#include "../c/target.h"
#include <climits>
#include <cstdint>
#include <dlfcn.h>
#include <sys/mman.h>
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

/* --- generated code where a library was --- */

typedef void (*Allocating)(std::size_t size);

SITE static void allocate(std::size_t size) { BLOCK(size); }

SITE static void allocate_plain(std::size_t size) {
    allocate(size);
    opaque(nullptr);
}

/* One call instruction for both: the frames around the generated one are those
 * that gdb finds around allocate_plain's. */
SITE static void call(Allocating const *functions, std::size_t const *sizes, int count) {
    for (int index = 0; index < count; index++)
        functions[index](sizes[index]);
}

/* push rbp; mov rbp, rsp; mov rax, allocate; call rax; pop rbp; ret, at the
 * address of the library's function. */
SITE static void generate() {
    static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd0, 0x5d, 0xc3};
    const uintptr_t entry = reinterpret_cast<uintptr_t>(descends);
    void *page = reinterpret_cast<void *>(entry & ~uintptr_t{4095});
    unload();
    if (mmap(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != page)
        abort();
    const Allocating function = allocate;
    memcpy(reinterpret_cast<void *>(entry), code, sizeof code);
    memcpy(reinterpret_cast<void *>(entry + 6), &function, sizeof function);
    const Allocating functions[] = {allocate_plain, reinterpret_cast<Allocating>(entry)};
    const std::size_t sizes[] = {1543, 1549};
    call(functions, sizes, 2);
    munmap(page, 4096);
}

/* --- processes --- */

SITE static int recurse(int depth, std::size_t size) {
    volatile char kept[100] = {static_cast<char>(depth)};
    BLOCK(size);
    int below = depth ? recurse(depth - 1, size) : 0;
    return below + kept[0];
}

static void wait_for(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child || status)
        abort();
}

SITE static void allocate_in_child() {
    pid_t child = fork();
    if (child == 0) {
        recurse(20, 1511);
        _exit(0);
    }
    wait_for(child);
}

/* The child has another library where the parent has its own. Each uses its
 * own before and after a second has gone by. */
SITE static void replace_in_child() {
    load_thin();
    pid_t child = fork();
    if (child == 0) {
        replace();
        usleep(1000000);
        use_wide();
        _exit(0);
    }
    use_thin();
    wait_for(child);
    use_thin();
    unload();
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
    COMMAND(after_exec), COMMAND(allocate_in_child), COMMAND(exec_self), COMMAND(generate),
    COMMAND(replace_in_child), {NULL, NULL},
};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
