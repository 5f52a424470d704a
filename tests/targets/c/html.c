// flags: -O2 -fomit-frame-pointer -fno-optimize-sibling-calls
// A program with a function that is called like an element of HTML, whose script would run
// where its name is not taken as text. The function touches 500 new pages a second.
//
// Prints `PID ready`; ends with standard input.
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, ROOM = 1 << 20, PAGES = 10, REST = 20 };

__attribute__((noipa)) void touch(char *page) __asm__("\"<img src=x onerror=boom()>\"");

void touch(char *page) {
    *(volatile char *)page = 1;
}

int main(void) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *room = mmap(NULL, (size_t)ROOM * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (room == MAP_FAILED || madvise(room, (size_t)ROOM * PAGE, MADV_NOHUGEPAGE))
        abort();
    printf("%d ready\n", getpid());
    fflush(stdout);
    struct pollfd input = {.fd = 0, .events = POLLIN};
    for (size_t page = 0; poll(&input, 1, REST) == 0; page += PAGES)
        for (size_t next = page; next < page + PAGES; next++)
            touch(room + next % ROOM * PAGE);
    return 0;
}
