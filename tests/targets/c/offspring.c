/* Many children, all by one path. */
#include "target.h"
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { BATCH = 1000, BLOCKS = 7, SIZE = 613 };

SITE static void child_leaves(void) {
    for (int index = 0; index < BLOCKS; index++)
        opaque(malloc(SIZE));
}

/* A child that ends with its blocks. */
SITE static void have_child(void) {
    pid_t child = fork();
    if (child == 0) {
        child_leaves();
        _exit(0);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            abort();
    if (status)
        abort();
}

static void batch(void) {
    for (int index = 0; index < BATCH; index++)
        have_child();
    truth("child_leaves", SIZE, BATCH * BLOCKS, 0);
    truth_others = 1; /* what fork itself does to the heap */
}

enum { CROWD = 100 };

SITE static void child_keeps(int blocks) {
    for (int index = 0; index < blocks; index++)
        opaque(malloc(SIZE));
}

/* Children that stay for as long as their parent does, the nth with n blocks. */
static void crowd(void) {
    pid_t parent = getpid();
    int ready[2];
    if (pipe(ready))
        abort();
    for (int blocks = 1; blocks <= CROWD; blocks++) {
        pid_t child = fork();
        if (child < 0)
            abort();
        if (child > 0)
            continue;
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
            _exit(1);
        child_keeps(blocks);
        if (write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    char byte;
    for (int child = 0; child < CROWD; child++)
        if (read(ready[0], &byte, 1) != 1)
            abort();
    truth("child_keeps", SIZE, CROWD * (CROWD + 1) / 2, 0);
    truth_others = 1; /* what fork itself does to the heap */
}

static Command commands[] = {COMMAND(batch), COMMAND(crowd), {NULL, NULL}};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
