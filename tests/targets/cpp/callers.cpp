// flags: -O2 -fno-optimize-sibling-calls -Ltarget/targets -lcallers_library -Wl,-rpath,$ORIGIN -Wno-format-truncation -ldl
/* Allocates in functions of its own and of libraries; each function in the truth is the
 * one that has called the allocator. */
#include "../c/target.h"
#include <climits>
#include <cstdint>
#include <initializer_list>
#include <dlfcn.h>
#include <fcntl.h>
#include <new>
#include <sys/mman.h>
#include <sys/wait.h>

extern "C" void *library_takes(std::size_t size);
extern "C" void *library_grows(void *block, std::size_t size);
extern "C" void library_frees(void *block);
extern "C" void *library_maps(std::size_t size);

static void check(bool holds) {
    if (!holds)
        abort();
}

/* --- the program's own --- */

extern "C" SITE void *takes_here(std::size_t size) { return opaque(malloc(size)); }

extern "C" SITE void *zeroed_here(std::size_t size) { return opaque(calloc(1, size)); }

extern "C" SITE void *aligned_here(std::size_t size) {
    void *block = nullptr;
    check(posix_memalign(&block, 64, size) == 0);
    return opaque(block);
}

extern "C" SITE void *grows_here(void *block, std::size_t size) {
    return opaque(realloc(block, size));
}

namespace cache {
/* operator new, new[], such as throw nothing, and aligned. */
SITE void insert(int count) {
    for (int i = 0; i < count; i++) {
        opaque(::operator new(any(211)));
        opaque(new char[any(223)]);
        opaque(new (std::nothrow) char[any(227)]);
        opaque(::operator new(any(704), std::align_val_t(64)));
        free(opaque(new (std::nothrow) char[any(227)]));
    }
}

template <class T> SITE T *made(std::size_t count) { return new T[count]; }
} // namespace cache

/* Every kind of call, from everywhere; half of the blocks go, by the other's code. */
static void allocate() {
    for (int i = 0; i < 14; i++) {
        void *one = takes_here(101), *other = library_takes(103);
        if (i % 2) {
            library_frees(one);
            free(other);
        }
    }
    truth("takes_here", 101, 14, 7);
    truth("library_takes", 103, 14, 7);
    for (int i = 0; i < 5; i++) {
        zeroed_here(107);
        aligned_here(109);
    }
    truth("zeroed_here", 107, 5, 0);
    truth("aligned_here", 109, 5, 0);
    cache::insert(3);
    for (unsigned long size : {211, 223, 704})
        truth("cache::insert(int)", size, 3, 0);
    truth("cache::insert(int)", 227, 6, 3);
    for (int i = 0; i < 7; i++)
        opaque(cache::made<short>(any(113)));
    truth("short* cache::made<short>(unsigned long)", 226, 7, 0);
}

/* Blocks that one has made and another moves, to and fro. */
static void move() {
    for (int i = 0; i < 3; i++) {
        opaque(grows_here(opaque(library_takes(1009)), 10007));
        opaque(library_grows(takes_here(1013), 10009));
        opaque(library_grows(library_grows(library_takes(1019), 10037), 100003));
        /* It fails, and the block stays what it was. */
        check(!grows_here(opaque(library_takes(1021)), any(SIZE_MAX / 2)));
        grows_here(nullptr, 1031);
        opaque(library_grows(nullptr, 1033));
    }
    truth("library_takes", 1009, 3, 3);
    truth("grows_here", 10007, 3, 0);
    truth("takes_here", 1013, 3, 3);
    truth("library_grows", 10009, 3, 0);
    truth("library_takes", 1019, 3, 3);
    truth("library_grows", 10037, 3, 3);
    truth("library_grows", 100003, 3, 0);
    truth("library_takes", 1021, 3, 0);
    truth("grows_here", 1031, 3, 0);
    truth("library_grows", 1033, 3, 0);
}

extern "C" SITE void *maps_here(std::size_t size) {
    return opaque(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

static void map() {
    check(maps_here(3 << 20) != MAP_FAILED);
    check(library_maps(5 << 20) != MAP_FAILED);
    truth_whole_mapping("maps_here", 3 << 20, 1, 0);
    truth_whole_mapping("library_maps", 5 << 20, 1, 0);
}

/* Blocks for which the allocator itself maps memory, moves it and gives it back. */
static void map_within() {
    for (int i = 0; i < 3; i++) {
        char *block = static_cast<char *>(takes_here(1000003));
        memset(block, 1, 1000003);
        block = static_cast<char *>(grows_here(block, 3000017));
        if (i)
            free(opaque(block));
        opaque(takes_here(50021));
        opaque(takes_here(50021));
    }
    truth("takes_here", 1000003, 3, 3);
    truth("grows_here", 3000017, 3, 2);
    truth("takes_here", 50021, 6, 0);
}

/* --- a library that is opened --- */

static void *(*later_takes)(std::size_t), *(*later_news)(std::size_t);

static void load() {
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
    path[length > 0 ? length : 0] = 0;
    snprintf(strrchr(path, '/') + 1, 64, "libcallers_later.so");
    void *library = dlopen(path, RTLD_NOW);
    check(library != nullptr);
    later_takes = reinterpret_cast<void *(*)(std::size_t)>(dlsym(library, "later_takes"));
    later_news = reinterpret_cast<void *(*)(std::size_t)>(dlsym(library, "later_news"));
    truth_others = 1;
}

static void use_later() {
    for (int i = 0; i < 5; i++) {
        opaque(later_takes(307));
        opaque(later_news(311));
    }
    truth("later_takes", 307, 5, 0);
    truth("later_news", 311, 5, 0);
}

static void load_and_use() {
    load();
    use_later();
}

/* --- children --- */

static void wait_for(pid_t child) {
    int status;
    check(waitpid(child, &status, 0) == child && status == 0);
}

static void in_child() {
    pid_t child = fork();
    if (child == 0) {
        allocate();
        _exit(0);
    }
    wait_for(child);
    allocate();
}

static void in_other_program() {
    pid_t child = fork();
    if (child == 0) {
        /* Else it would say what it did before its parent has done anything. */
        check(dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO) == STDOUT_FILENO);
        execl("/proc/self/exe", "callers", "allocate", static_cast<char *>(nullptr));
        _exit(1);
    }
    wait_for(child);
    allocate();
}

static const Command commands[] = {
    COMMAND(allocate),  COMMAND(move),         COMMAND(map),
    COMMAND(map_within), COMMAND(load),        COMMAND(use_later),
    COMMAND(load_and_use), COMMAND(in_child),  COMMAND(in_other_program),
    {nullptr, nullptr},
};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
