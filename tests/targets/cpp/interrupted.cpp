// flags: -O2 -fomit-frame-pointer -Wno-format-truncation -Ltarget/targets -lpaths_library -Wl,-rpath,$ORIGIN -Wl,-z,lazy
/* A signal that arrives anywhere: in the middle of a prologue, in a stub that
 * leads to a library, in libc, in the vdso. Its handler allocates. The work
 * does not, and calls each function from one place, so that the interrupted
 * instruction tells the call path. */
#include "../c/target.h"
#include <alloca.h>
#include <cerrno>
#include <climits>
#include <csignal>
#include <ctime>
#include <sys/time.h>

extern "C" int library_adds(int one, int other);

static const int SIGNALS = 20000;
static const int ROUNDS = 3000;
static volatile int arrived;

static void on_alarm(int) {
    int kept = errno;
    free(opaque(malloc(1543)));
    arrived = arrived + 1;
    errno = kept;
}

/* Saves registers, and has a frame. */
SITE static long pushes(long a, long b, long c) {
    volatile long kept[6] = {a, b, c};
    long sum = 0;
    for (int index = 0; index < 3; index++)
        sum += kept[index] * a + b;
    return sum + library_adds(static_cast<int>(sum), 1) + a * b * c;
}

SITE static long moves_the_stack(std::size_t size) {
    char *memory = static_cast<char *>(alloca(size));
    memset(memory, 1, size);
    return memory[size / 2];
}

SITE static long leaf(long value) { return value * 3 + 1; }

SITE static long aligned(long value) {
    alignas(128) volatile char array[256];
    array[value & 255] = 1;
    return array[17];
}

SITE static void work() {
    static const char text[] = "a text that strlen reads in several steps, since it is not short at all";
    timespec now;
    volatile long sum = pushes(1, 2, 3);
    sum = sum + moves_the_stack(any(200));
    sum = sum + leaf(sum);
    sum = sum + aligned(sum);
    sum = sum + static_cast<long>(strlen(static_cast<const char *>(opaque(const_cast<char *>(text)))));
    sum = sum + clock_gettime(CLOCK_MONOTONIC, &now);
    sum = sum + strtol("123456", nullptr, 10);
}

static void handle() {
    struct sigaction action = {};
    action.sa_handler = on_alarm;
    action.sa_flags = SA_RESTART;
    if (sigaction(SIGALRM, &action, nullptr))
        abort();
}

static void every(int microseconds) {
    const itimerval timer = {{0, microseconds}, {0, microseconds}};
    if (setitimer(ITIMER_REAL, &timer, nullptr))
        abort();
}

/* Works until so many signals have arrived, or so many rounds are done: one
 * loop for both, so that the call paths are the same. */
SITE static void work_until(int signals, int rounds) {
    arrived = 0;
    for (int round = 0; arrived < signals && round < rounds; round++)
        work();
}

SITE static void run(int microseconds, int signals, int rounds) {
    handle();
    every(microseconds);
    work_until(signals, rounds);
    every(0);
}

/* A timer interrupts the work. Without a timer, somebody else has to. */
static int microseconds = 97, rounds = INT_MAX;

SITE static void interrupted() { run(microseconds, SIGNALS, rounds); }

static void without_timer() {
    microseconds = 0;
    rounds = ROUNDS;
}

static const Command commands[] = {
    COMMAND(interrupted),
    COMMAND(without_timer),
    {NULL, NULL},
};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
