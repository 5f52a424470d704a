// flags: -O2
// A process that comes for a while and grows: two pages each 100 ms, at most 4,000.
//
// Prints `pid N` and `ready`; ends with standard input, having printed `pages N`.
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, ROOM = 4000, STEP = 2, TICK_MS = 100 };

__attribute__((noipa)) static void visits(char *page) {
    *(volatile char *)page = 1;
}

int main(void) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *room = mmap(NULL, (size_t)ROOM * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (room == MAP_FAILED)
        abort();
    // A huge page would come at once.
    madvise(room, (size_t)ROOM * PAGE, MADV_NOHUGEPAGE);
    printf("pid %d\nready\n", getpid());
    fflush(stdout);
    struct pollfd input = {.fd = 0, .events = POLLIN};
    size_t pages = 0;
    while (poll(&input, 1, TICK_MS) == 0)
        for (int i = 0; i < STEP && pages < ROOM; i++)
            visits(room + pages++ * PAGE);
    printf("pages %zu\n", pages);
    return 0;
}
