/* A thousand children at once, which stay until they are told to end. */
#include "target.h"
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { CHILDREN = 1000, PAGES = 4, PAGE = 4096 };

static pid_t children[CHILDREN];
static int go[2];

SITE static void child_touches(void) {
    char *pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        _exit(1);
    for (int page = 0; page < PAGES; page++)
        ((volatile char *)pages)[page * PAGE] = 1;
}

/* It ends when nobody can tell it to go on any more. */
static void be_child(int ready) {
    char byte;
    close(go[1]);
    child_touches();
    if (write(ready, "", 1) != 1)
        _exit(1);
    while (read(go[0], &byte, 1) < 0)
        if (errno != EINTR)
            _exit(1);
    _exit(0);
}

static void begin(void) {
    int ready[2];
    if (pipe(ready) || pipe(go))
        abort();
    for (int child = 0; child < CHILDREN; child++) {
        children[child] = fork();
        if (children[child] < 0)
            abort();
        if (children[child] == 0)
            be_child(ready[1]);
    }
    char byte;
    for (int child = 0; child < CHILDREN; child++)
        if (read(ready[0], &byte, 1) != 1)
            abort();
}

/* All of them have to end as they should. */
static void end(void) {
    close(go[1]);
    for (int child = 0; child < CHILDREN; child++) {
        int status;
        while (waitpid(children[child], &status, 0) < 0)
            if (errno != EINTR)
                abort();
        if (status)
            abort();
    }
}

static const Command commands[] = {COMMAND(begin), COMMAND(end), {NULL, NULL}};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
