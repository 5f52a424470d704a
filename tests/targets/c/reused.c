/* Numbers that are used again: a child's id by another child, and a block's
 * address by another block. */
#include "target.h"
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* --- ids --- */

static pid_t child;
static int lifeline[2];

/* A child, with this id unless it is 0. */
static pid_t fork_as(pid_t id) {
    struct clone_args arguments;
    memset(&arguments, 0, sizeof arguments);
    arguments.exit_signal = SIGCHLD;
    if (id) {
        arguments.set_tid = (uintptr_t)&id;
        arguments.set_tid_size = 1;
    }
    pid_t made = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    if (made < 0) {
        say("clone3 with id %d: %s\n", id, strerror(errno));
        abort();
    }
    return made;
}

SITE static void first_allocates(void) {
    for (int index = 0; index < 3; index++)
        opaque(malloc(571));
}

SITE static void second_allocates(void) {
    for (int index = 0; index < 5; index++)
        opaque(malloc(577));
}

/* One that lives until `end_first`. */
static void begin_first(void) {
    int told[2];
    char byte;
    if (pipe(lifeline) || pipe(told))
        abort();
    child = fork_as(0);
    if (child == 0) {
        close(lifeline[1]);
        first_allocates();
        if (write(told[1], "", 1) != 1 || read(lifeline[0], &byte, 1))
            abort();
        _exit(0);
    }
    close(lifeline[0]);
    if (read(told[0], &byte, 1) != 1)
        abort();
    close(told[0]);
    close(told[1]);
    truth("first_allocates", 571, 3, 0);
}

static void wait_for_child(void) {
    int status;
    if (waitpid(child, &status, 0) != child || status) {
        say("child %d ended with status %d\n", child, status);
        abort();
    }
}

static void end_first(void) {
    close(lifeline[1]);
    wait_for_child();
}

/* Another one with the same id. */
static void second(void) {
    if (fork_as(child) == 0) {
        second_allocates();
        _exit(0);
    }
    wait_for_child();
}

/* --- addresses --- */

static void *block, *last;

SITE static void take(void) {
    block = opaque(malloc(587));
    if (last && block != last)
        abort();
    last = block;
}

SITE static void give(void) {
    free(block);
}

static const Command commands[] = {
    COMMAND(begin_first), COMMAND(end_first), COMMAND(second),
    COMMAND(take), COMMAND(give), {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
