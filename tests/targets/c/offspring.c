/* Many children that live for a moment, all by one path. */
#include "target.h"
#include <errno.h>
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

static Command commands[] = {COMMAND(batch), {NULL, NULL}};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
