/* What a program can see of its signals and its children: printed, to be
 * compared with what it sees without a tracer. */
#include "target.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

static volatile int urgent, usual;

static void count(int number) {
    if (number == SIGURG)
        urgent++;
    else
        usual++;
}

static void libraries(void) {
    for (int round = 0; round < 20; round++) {
        const char *names[] = {"libm.so.6", "libresolv.so.2", "libutil.so.1"};
        for (int name = 0; name < 3; name++) {
            void *library = dlopen(names[name], RTLD_NOW);
            if (library)
                dlclose(library);
        }
    }
    printf("while libraries came and went: %d urgent\n", urgent);
}

static void own(void) {
    for (int round = 0; round < 50; round++) {
        raise(SIGURG);
        kill(getpid(), SIGURG);
        raise(SIGUSR1);
    }
    printf("of its own: %d urgent, %d usual\n", urgent, usual);
}

/* Sent by the kernel itself. */
static void out_of_band(void) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0), one = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listening, (void *)&address, length) || listen(listening, 1) ||
        getsockname(listening, (void *)&address, &length) ||
        connect(one, (void *)&address, length))
        abort();
    int other = accept(listening, NULL, NULL);
    fcntl(other, F_SETOWN, getpid());
    int before = urgent;
    for (int round = 1; round <= 5; round++) {
        send(one, "x", 1, MSG_OOB);
        while (urgent < before + round)
            usleep(100);
    }
    printf("of the kernel: %d urgent\n", urgent - before);
}

static void *ends(void *argument) {
    return argument;
}

static void threads(void) {
    for (int round = 0; round < 20; round++) {
        pthread_t thread;
        pthread_create(&thread, NULL, ends, NULL);
        pthread_join(thread, NULL);
    }
}

static void report(const char *what, pid_t child, int options) {
    int status = 0;
    waitpid(child, &status, options);
    printf("%s: %#x\n", what, status);
}

static void children(void) {
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    kill(child, SIGSTOP);
    report("stopped", child, WUNTRACED);
    kill(child, SIGCONT);
    report("continued", child, WCONTINUED);
    kill(child, SIGTERM);
    report("terminated", child, 0);
    child = fork();
    if (child == 0)
        _exit(3);
    report("ended", child, 0);
    child = vfork();
    if (child == 0)
        _exit(4);
    report("ended", child, 0);
    child = vfork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", "exit 5", NULL);
        _exit(127);
    }
    report("executed", child, 0);
}

int main(void) {
    signal(SIGURG, count);
    signal(SIGUSR1, count);
    libraries();
    own();
    out_of_band();
    threads();
    children();
    fflush(stdout);
    raise(SIGTERM);
}
