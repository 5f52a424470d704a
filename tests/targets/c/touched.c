/* Pages that come into memory, each by a known path, and some that leave it. */
#include "target.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { PAGE = 4096 };

static void check(int holds) {
    if (!holds)
        abort();
}

/* Address space, without huge pages, so that each touch brings in one page. */
static char *space(size_t pages) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    char *start = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    check(start != MAP_FAILED && !madvise(start, pages * PAGE, MADV_NOHUGEPAGE));
    return start;
}

static inline void touch(char *start, size_t pages) {
    for (size_t page = 0; page < pages; page++)
        *(volatile char *)(start + page * PAGE) = 1;
}

static void touched(const char *function, unsigned long pages, unsigned long given_back) {
    Truth *entry = truth_entry(function, 0, "page");
    entry->allocated_count += pages;
    entry->allocated_bytes += pages * PAGE;
    entry->freed_count += given_back;
    entry->freed_bytes += given_back * PAGE;
}

SITE static void writes(char *start, size_t pages) { touch(start, pages); }

static void by_writing(void) {
    writes(space(101), 101);
    touched("writes", 101, 0);
}

/* The kernel touches what it reads into. */
SITE static void reads_into(char *start, size_t pages) {
    int zeros = open("/dev/zero", O_RDONLY);
    check(read(zeros, start, pages * PAGE) == (ssize_t)(pages * PAGE) && !close(zeros));
}

static void by_the_kernel(void) {
    reads_into(space(103), 103);
    touched("reads_into", 103, 0);
}

/* What is read first is the page of zeros, in no account until it is written to. */
SITE static void looks_at(char *start, size_t pages) {
    for (size_t page = 0; page < pages; page++)
        check(*(volatile char *)(start + page * PAGE) == 0);
}

SITE static void writes_later(char *start, size_t pages) { touch(start, pages); }

static void looked_at(void) {
    char *start = space(2 * 107);
    looks_at(start, 2 * 107);
    writes_later(start, 107);
    touched("looks_at", 2 * 107, 107);
}

SITE static void gives_back(void) {
    char *start = space(109);
    touch(start, 109);
    check(!madvise(start, 60 * PAGE, MADV_DONTNEED));
    check(!munmap(start + 60 * PAGE, 40 * PAGE));
}

static void given_back(void) {
    gives_back();
    touched("gives_back", 109, 100);
}

SITE static void touches_first(char *start, size_t pages) { touch(start, pages); }
SITE static void touches_again(char *start, size_t pages) { touch(start, pages); }

/* A page is of who touched it since it was given back. */
static void touched_again(void) {
    char *start = space(127);
    touches_first(start, 127);
    check(!madvise(start, 100 * PAGE, MADV_DONTNEED));
    touches_again(start, 90);
    touched("touches_first", 127, 100);
    touched("touches_again", 90, 0);
}

SITE static void fills(char *start, size_t pages) { touch(start, pages); }

/* What is moved is still of who touched it. Behind it is something else, so it cannot
 * grow where it is. */
static void moved(void) {
    char *start = space(131 + 1);
    fills(start, 131);
    check(mremap(start, 131 * PAGE, 131 * PAGE, 0) == start);
    char *elsewhere = mremap(start, 131 * PAGE, 400 * PAGE, MREMAP_MAYMOVE);
    check(elsewhere != MAP_FAILED && elsewhere != start);
    touched("fills", 131, 0);
}

/* One touch brings in as much as the kernel likes. */
SITE static void touches_two(char *start, size_t distance) {
    start[0] = start[distance] = 1;
}

static void huge(void) {
    size_t size = 2 << 20;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    char *start = mmap(NULL, 3 * size, PROT_READ | PROT_WRITE, flags, -1, 0);
    check(start != MAP_FAILED);
    start = (char *)(((unsigned long)start + size - 1) / size * size);
    check(!madvise(start, 2 * size, MADV_HUGEPAGE));
    touches_two(start, size + 5 * PAGE);
    static unsigned char there[1024];
    check(!mincore(start, 2 * size, there));
    unsigned long pages = 0;
    for (size_t page = 0; page < 1024; page++)
        pages += there[page] & 1;
    touched("touches_two", pages, 0);
}

/* No fault tells of these. */
static void populated(void) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
    check(mmap(NULL, 137 * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED);
}

SITE static void shares(char *start, size_t pages) { touch(start, pages); }

static void shared(void) {
    int flags = MAP_SHARED | MAP_ANONYMOUS;
    char *start = mmap(NULL, 149 * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    check(start != MAP_FAILED);
    shares(start, 149);
    touched("shares", 149, 0);
}

SITE static void by_child(char *start, size_t pages) { touch(start, pages); }

/* A child has what its parent had, and what it touches itself. */
static void have_child(void) {
    pid_t parent = getpid();
    char *own = space(157);
    writes(own, 157);
    int ready[2];
    check(!pipe(ready));
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
            _exit(1);
        by_child(space(151), 151);
        /* A copy of its own in place of one that both have. */
        touch(own, 50);
        if (write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    char byte;
    check(read(ready[0], &byte, 1) == 1);
    touched("by_child", 151, 0);
}

static const Command commands[] = {
    COMMAND(by_writing),
    COMMAND(by_the_kernel),
    COMMAND(looked_at),
    COMMAND(given_back),
    COMMAND(touched_again),
    COMMAND(moved),
    COMMAND(huge),
    COMMAND(populated),
    COMMAND(shared),
    COMMAND(have_child),
    {NULL, NULL},
};

/* Has the code of all that is called below in memory from the start: pages of libc that
 * come in when it is first run would be those functions' too. */
static void warm_up(void) {
    char *start = space(2);
    char byte;
    int zeros = open("/dev/zero", O_RDONLY);
    check(read(zeros, &byte, 1) == 1 && !close(zeros));
    check(!madvise(start, PAGE, MADV_DONTNEED) && !munmap(start, 2 * PAGE));
}

int main(int count, char **arguments) {
    warm_up();
    return serve(count, arguments, commands);
}
