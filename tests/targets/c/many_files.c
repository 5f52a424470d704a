// flags: -O2
// A process with code of very many files, each with a page of it.
//
// Prints `PID ready` when they are mapped, and ends with standard input.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FILES = 2100, PAGE = 4096 };

int main(void) {
    for (int number = 0; number < FILES; number++) {
        int file = memfd_create("code", MFD_CLOEXEC);
        if (file < 0 || ftruncate(file, PAGE) != 0)
            abort();
        if (mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0) == MAP_FAILED)
            abort();
        close(file);
    }
    printf("%d ready\n", getpid());
    fflush(stdout);
    char rest;
    return read(STDIN_FILENO, &rest, 1) < 0;
}
