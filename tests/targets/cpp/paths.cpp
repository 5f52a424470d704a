// flags: -O2 -fomit-frame-pointer -falign-functions=1 -fasynchronous-unwind-tables -Ltarget/targets -Wno-format-truncation -lpaths_library -Wl,-rpath,$ORIGIN -Wl,-z,lazy
/* Call paths without frame pointers, which the tests of whole stacks compare
 * with gdb's. Each command allocates blocks of prime sizes that no other
 * command has. A command does the same each time it is run. */
#include "../c/target.h"
#include <alloca.h>
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <memory>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

extern "C" {
void *library_allocates(std::size_t size);
int library_calls_back(int (*callback)(int), int value);
int library_calls_hook(int value);
}

/* A block that is freed at once: a command can be run any number of times. */
#define BLOCK(size) free(opaque(malloc(size)))

/* --- recursion --- */

/* Frames of three sizes, of which one has more than a page. */
template <int Words> SITE static int recurse(int depth, std::size_t size, int first) {
    volatile int kept[Words] = {depth};
    if (depth <= first)
        BLOCK(size);
    int below = 0;
    if (depth > 0)
        below = depth % 3   ? recurse<5>(depth - 1, size, first)
                : depth % 2 ? recurse<64>(depth - 1, size, first)
                            : recurse<2000>(depth - 1, size, first);
    return below + kept[0];
}

SITE static void recursion_5() { recurse<5>(5, 1009, 5); }
SITE static void recursion_20() { recurse<5>(20, 1013, 20); }
SITE static void recursion_60() { recurse<5>(60, 1019, 60); }
/* From 150 calls on, each deeper than the limit of 127 frames. */
SITE static void recursion_200() { recurse<5>(200, 1021, 50); }

/* A path for each way down a tree: 510 of them. What follows a call keeps the
 * compiler from making a loop of it. */
SITE static int left(int depth);

SITE static int right(int depth) {
    BLOCK(1031);
    volatile int sum = depth ? left(depth - 1) : 1;
    return depth ? right(depth - 1) + sum : sum;
}

SITE static int left(int depth) {
    volatile char kept[300] = {static_cast<char>(depth)};
    BLOCK(1031);
    volatile int sum = depth ? left(depth - 1) : kept[0];
    return depth ? right(depth - 1) + sum : sum;
}

SITE static void tree() {
    volatile int sum = left(7);
    sum = sum + right(7);
}

/* --- through other people's code --- */

SITE static int compare(const void *one, const void *other) {
    BLOCK(1033);
    return *static_cast<const int *>(one) - *static_cast<const int *>(other);
}

SITE static void sort() {
    int numbers[40];
    for (int index = 0; index < 40; index++)
        numbers[index] = index * 17 % 41;
    qsort(numbers, 40, sizeof *numbers, compare);
}

SITE static int callback(int value) {
    BLOCK(1039);
    return value > 0 ? library_calls_back(callback, value - 1) : 0;
}

SITE static void shared_library() {
    free(library_allocates(1049));
    library_calls_back(callback, 4);
}

extern "C" SITE int library_hook(int value) {
    BLOCK(1051);
    return value;
}

SITE static void interposed() { library_calls_hook(3); }

/* --- signals --- */

static void on_signal(int number) { BLOCK(number == SIGUSR1 ? 1061 : 1063); }

/* Handled on its own stack, where a second signal arrives. */
static void on_signal_twice(int) {
    BLOCK(1069);
    raise(SIGUSR1);
}

static void handle(int number, void (*handler)(int), int flags) {
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    if (sigaction(number, &action, nullptr))
        abort();
}

SITE static int compare_raising(const void *one, const void *other) {
    raise(SIGUSR1);
    return *static_cast<const int *>(one) - *static_cast<const int *>(other);
}

SITE static void signal_raised() {
    handle(SIGUSR1, on_signal, 0);
    int numbers[] = {5, 3, 4, 1, 2};
    qsort(numbers, 5, sizeof *numbers, compare_raising);
}

SITE static void signal_on_own_stack() {
    static char memory[1 << 16];
    stack_t stack = {memory, 0, sizeof memory};
    if (sigaltstack(&stack, nullptr))
        abort();
    handle(SIGUSR1, on_signal, 0);
    handle(SIGUSR2, on_signal_twice, SA_ONSTACK);
    raise(SIGUSR2);
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, nullptr);
}

/* --- exceptions --- */

struct Error {
    char bytes[1087];
};

struct Guard {
    __attribute__((noipa)) ~Guard() { BLOCK(1091); }
};

/* A call that does not return: what follows it may be another function. */
[[noreturn]] SITE static void leave(int value) {
    BLOCK(1093);
    if (value > 1)
        throw Error();
    throw value;
}

SITE static void ends_in_a_call(int value) {
    Guard guard;
    leave(value);
}

SITE static void ends_without_return(int value) { leave(value); }

SITE static void exceptions() {
    try {
        ends_in_a_call(1);
    } catch (int) {
        BLOCK(1097);
        try {
            ends_in_a_call(2);
        } catch (const Error &) {
            BLOCK(1103);
        }
    }
    try {
        ends_without_return(2);
    } catch (const Error &) {
    }
}

static std::jmp_buf jump;

SITE static void jump_out() {
    BLOCK(1109);
    std::longjmp(jump, 1);
}

SITE static void long_jump() {
    if (!setjmp(jump))
        jump_out();
    BLOCK(1117);
}

/* --- frames of a length of their own --- */

SITE static void fill(void *memory, std::size_t size) { memset(memory, 1, size); }

SITE static void with_alloca(std::size_t size) {
    fill(alloca(size), size);
    BLOCK(1123);
}

SITE static void with_array(std::size_t size) {
    char array[size];
    fill(array, size);
    BLOCK(1129);
}

SITE static void over_aligned() {
    alignas(256) char array[512];
    fill(array, sizeof array);
    BLOCK(1151);
}

/* Both: the compiler keeps the argument pointer in a register of its own. */
SITE static void over_aligned_alloca(std::size_t size, int, int, int, int, int, int, const char *on_stack) {
    alignas(64) char array[64];
    fill(array, sizeof array);
    fill(alloca(size), size + static_cast<std::size_t>(*on_stack));
    BLOCK(1153);
}

/* More than one instruction's displacement of 16 bits. */
SITE static void huge_frame() {
    char array[400000];
    fill(array, 16);
    BLOCK(1163);
}

SITE static void frames() {
    with_alloca(any(333));
    with_alloca(any(3333));
    with_array(any(777));
    over_aligned();
    over_aligned_alloca(any(99), 1, 2, 3, 4, 5, 6, "");
    huge_frame();
}

/* --- calls at the end --- */

SITE static void *tail_of_tail(std::size_t size) { return malloc(size); }
SITE static void *tail(std::size_t size) { return tail_of_tail(size + 2); }
SITE static void tail_calls() { free(opaque(tail(any(1171 - 2)))); }

/* --- the other allocators --- */

SITE static void allocators() {
    free(opaque(calloc(1, 1181)));
    free(opaque(realloc(nullptr, any(1187))));
    free(opaque(realloc(opaque(malloc(1193)), 1201)));
    free(opaque(aligned_alloc(64, any(1213 * 64))));
    void *block;
    if (!posix_memalign(&block, 64, 1217))
        free(opaque(block));
    delete[] static_cast<char *>(opaque(new char[1223]));
    std::string text(any(1229), 'x');
    opaque(&text);
    std::vector<long> numbers(any(1231));
    opaque(&numbers);
    free(opaque(strdup(text.c_str())));
}

/* --- threads --- */

static void on_thread_end(void *) { BLOCK(1237); }

struct Local {
    int value = 0;
    ~Local() { BLOCK(1249); }
};

static thread_local Local local;
static pthread_key_t key;

static void *thread_main(void *argument) {
    local.value = 1;
    pthread_setspecific(key, argument);
    recurse<64>(7, 1259, 7);
    return nullptr;
}

SITE static void threads() {
    pthread_t all[4];
    if (pthread_key_create(&key, on_thread_end))
        abort();
    for (pthread_t &one : all)
        if (pthread_create(&one, nullptr, thread_main, &key))
            abort();
    for (pthread_t &one : all)
        pthread_join(one, nullptr);
    std::thread([] { recurse<5>(3, 1277, 3); }).join();
    pthread_key_delete(key);
}

/* --- before and after main --- */

struct Global {
    __attribute__((noipa)) Global() { BLOCK(1279); }
    __attribute__((noipa)) ~Global() { BLOCK(1283); }
};

static Global global;

static void at_exit() { BLOCK(1289); }

SITE static void before_and_after() { atexit(at_exit); }

static const Command commands[] = {
    COMMAND(recursion_5),  COMMAND(recursion_20),       COMMAND(recursion_60), COMMAND(recursion_200),
    COMMAND(tree),         COMMAND(sort),               COMMAND(shared_library), COMMAND(interposed),
    COMMAND(signal_raised), COMMAND(signal_on_own_stack), COMMAND(exceptions), COMMAND(long_jump),
    COMMAND(frames),       COMMAND(tail_calls),         COMMAND(allocators),   COMMAND(threads),
    COMMAND(before_and_after), {NULL, NULL},
};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
