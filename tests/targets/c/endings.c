/* Ends in every way that a process can. */
#include "target.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

SITE static void leak_blocks(void) {
    for (int index = 0; index < 7; index++)
        opaque(malloc(any(1009)));
    truth("leak_blocks", 1009, 7, 0);
}

static void die_of_ill(void) {
    __asm__ volatile("ud2");
}

static void die_of_trap(void) {
    __asm__ volatile("int3");
}

static void die_of_segv(void) {
    *(volatile int *)opaque(NULL) = 1;
}

/* A mapping behind the end of its file. */
static void die_of_bus(void) {
    FILE *file = tmpfile();
    char *memory = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fileno(file), 0);
    (void)*(volatile char *)memory;
}

static void die_of_abort(void) {
    abort();
}

static void die_of_kill(void) {
    raise(SIGKILL);
}

static void die_of_term(void) {
    raise(SIGTERM);
}

static void end_with_7(void) {
    exit(7);
}

static void *rest(void *argument) {
    pause();
    return argument;
}

static pthread_t begin(void *(*work)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL))
        abort();
    return thread;
}

/* While other threads wait. */
static void end_with_8_of_many(void) {
    for (int index = 0; index < 4; index++)
        begin(rest);
    exit(8);
}

static void *kill_all(void *argument) {
    die_of_segv();
    return argument;
}

/* A thread that is not the first is at fault. */
static void die_of_segv_in_a_thread(void) {
    begin(rest);
    pthread_join(begin(kill_all), NULL);
}

static void *end_with_9(void *argument) {
    exit(9);
    return argument;
}

/* The first thread has ended before. */
static void end_with_9_in_a_thread(void) {
    begin(end_with_9);
    pthread_exit(NULL);
}

static void *end_after_main(void *main_thread) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
    for (;;) {
        char text[512] = "";
        FILE *stat = fopen(path, "r");
        if (stat && fgets(text, sizeof text, stat) && strstr(text, ") Z "))
            break;
        if (stat)
            fclose(stat);
        usleep(1000);
    }
    syscall(SYS_exit, 5); /* this thread alone, with another status */
    return main_thread;
}

/* Each thread ends for itself: which one's status is that of the process is the
 * kernel's choice. */
static void end_each_for_itself(void) {
    begin(end_after_main);
    syscall(SYS_exit, 4);
}

static void exec_and_end_with_3(void) {
    execl("/bin/sh", "sh", "-c", "exit 3", NULL);
    abort();
}

int main(int count, char **arguments) {
    static const Command commands[] = {
        COMMAND(leak_blocks),
        COMMAND(die_of_ill),
        COMMAND(die_of_trap),
        COMMAND(die_of_segv),
        COMMAND(die_of_bus),
        COMMAND(die_of_abort),
        COMMAND(die_of_kill),
        COMMAND(die_of_term),
        COMMAND(die_of_segv_in_a_thread),
        COMMAND(end_with_7),
        COMMAND(end_with_8_of_many),
        COMMAND(end_with_9_in_a_thread),
        COMMAND(end_each_for_itself),
        COMMAND(exec_and_end_with_3),
        {NULL, NULL},
    };
    return serve(count, arguments, commands);
}
