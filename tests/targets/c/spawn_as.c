/* spawn_as PID PROGRAM ARGS: runs PROGRAM with that process id, which must be
 * free, and passes on how it ended. Needs CAP_CHECKPOINT_RESTORE. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **arguments) {
    if (count < 3)
        return 64;
    pid_t wanted = atoi(arguments[1]);
    struct clone_args clone = {
        .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&wanted, .set_tid_size = 1};
    long child = syscall(SYS_clone3, &clone, sizeof clone);
    if (child < 0) {
        fprintf(stderr, "clone3 with pid %d: %s\n", wanted, strerror(errno));
        return 71;
    }
    if (child == 0) {
        execv(arguments[2], arguments + 2);
        _exit(127);
    }
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    int status;
    if (waitpid((pid_t)child, &status, 0) < 0)
        return 71;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
