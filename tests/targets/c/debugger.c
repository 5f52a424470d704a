/* Holds children by ptrace(2) in both ways, as debuggers do. With an argument
 * it attaches to that process instead, and lets it go. Says what failed. */
#include "target.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

static void must(int is_true, const char *what) {
    if (!is_true) {
        printf("%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void stopped(pid_t child, const char *what) {
    int status = 0;
    must(waitpid(child, &status, 0) == child && WIFSTOPPED(status), what);
}

static void attach(pid_t process) {
    must(ptrace(PTRACE_ATTACH, process, NULL, NULL) == 0, "attach");
    stopped(process, "attached");
    must(ptrace(PTRACE_DETACH, process, NULL, NULL) == 0, "detach");
}

int main(int count, char **arguments) {
    if (count > 1) {
        attach((pid_t)atoi(arguments[1]));
        puts("attached");
        return 0;
    }
    pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
            _exit(1);
        execl("/bin/sh", "sh", "-c", "exit 7", NULL);
        _exit(127);
    }
    stopped(child, "traceme");
    int status = 0;
    must(ptrace(PTRACE_CONT, child, NULL, NULL) == 0, "cont");
    must(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7, "exit");
    child = fork();
    if (child == 0)
        for (;;)
            pause();
    attach(child);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    puts("traced");
}
