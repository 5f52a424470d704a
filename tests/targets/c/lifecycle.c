// flags: -ldl
/* fork, exec, exit and libraries that are loaded late. */
#include "target.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/wait.h>

static char folder[PATH_MAX];

static char *beside(const char *name) {
    static char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void wait_for(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) {
        say("child %d ended with status %d\n", child, status);
        abort();
    }
}

/* --- fork --- */

SITE static void child_allocates(void) {
    for (int index = 0; index < 3; index++)
        opaque(malloc(509));
}

/* The child frees two of the parent's blocks, in its own copy of the heap. */
SITE static void fork_child(void) {
    void *blocks[5];
    for (int index = 0; index < 5; index++)
        blocks[index] = opaque(malloc(503));
    pid_t child = fork();
    if (child == 0) {
        free(blocks[0]);
        free(blocks[1]);
        child_allocates();
        _exit(0);
    }
    wait_for(child);
    free(blocks[4]);
    truth("fork_child", 503, 5, 1);
    truth_others = 1; /* what fork itself does to the heap */
}

/* --- exec in a child --- */

/* The child runs `leak leak_blocks`, silently. */
SITE static void vfork_and_exec(void) {
    char *path = beside("leak");
    opaque(malloc(521));
    pid_t child = vfork();
    if (child == 0) {
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
        execl(path, path, "leak_blocks", NULL);
        _exit(127);
    }
    wait_for(child);
    free(opaque(malloc(521)));
    truth("vfork_and_exec", 521, 2, 1);
}

/* --- exec of the process itself; the new image is ready for commands --- */

SITE static void exec_self(void) {
    for (int index = 0; index < 3; index++)
        opaque(malloc(523));
    truth("exec_self", 523, 3, 0);
    say_truth();
    execl("/proc/self/exe", "lifecycle", NULL);
    abort();
}

static void *exec_in_thread(void *argument) {
    exec_self();
    return argument;
}

/* The thread takes over the process id of the main thread. */
SITE static void exec_from_a_thread(void) {
    pthread_t thread;
    truth_others = 1;
    if (pthread_create(&thread, NULL, exec_in_thread, NULL))
        abort();
    pthread_join(thread, NULL);
}

SITE static void after_exec(void) {
    for (int index = 0; index < 5; index++)
        opaque(malloc(547));
    truth("after_exec", 547, 5, 0);
}

/* --- exit --- */

static void *after_main_thread(void *argument) {
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
    while (state != 'Z') {
        char text[128] = "";
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0 || read(file, text, sizeof text - 1) <= 0 || close(file))
            abort();
        state = strrchr(text, ')')[2];
    }
    for (int index = 0; index < 5; index++)
        opaque(malloc(563));
    truth("after_main_thread", 563, 5, 0);
    say_truth();
    char line[16];
    hear(line, sizeof line);
    exit(0);
    return argument;
}

/* The main thread ends; the process lives on in another. */
SITE static void end_main_thread(void) {
    pthread_t thread;
    truth_others = 1;
    if (pthread_create(&thread, NULL, after_main_thread, NULL))
        abort();
    pthread_exit(NULL);
}

SITE static void exit_now(void) {
    for (int index = 0; index < 4; index++)
        opaque(malloc(557));
    truth("exit_now", 557, 4, 0);
    say_truth();
    exit(0);
}

/* --- libraries --- */

static void call_plugin(void *library, int count) {
    if (!library) {
        say("dlopen: %s\n", dlerror());
        abort();
    }
    union {
        void *data;
        void (*function)(int);
    } symbol = {dlsym(library, "plugin_allocates")};
    symbol.function(count);
    truth("plugin_allocates", 541, (unsigned long)count, 0);
    truth_others = 1; /* the loader's own blocks */
}

SITE static void open_library(void) {
    call_plugin(dlopen(beside("libplugin.so"), RTLD_NOW), 5);
}

/* A name space of its own: a second libc is mapped. */
SITE static void open_second_libc(void) {
    call_plugin(dlmopen(LM_ID_NEWLM, beside("libplugin.so"), RTLD_NOW), 7);
}

static const Command commands[] = {
    COMMAND(fork_child),         COMMAND(vfork_and_exec), COMMAND(exec_self),
    COMMAND(exec_from_a_thread), COMMAND(after_exec),     COMMAND(exit_now),
    COMMAND(end_main_thread),    COMMAND(open_library),       COMMAND(open_second_libc), {NULL, NULL},
};

int main(int count, char **arguments) {
    ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (length <= 0)
        abort();
    folder[length] = 0;
    *strrchr(folder, '/') = 0;
    return serve(count, arguments, commands);
}
