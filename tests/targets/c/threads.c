/* Named threads that stay, each of which leaks a prime number of bytes, and
 * one that is gone at once. */
#include "target.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/prctl.h>

typedef struct {
    const char *name;
    unsigned long size;
    pthread_t thread;
    int stays;
} Worker;

static Worker workers[] = {
    {"first-worker", 1009, 0, 1},
    {"second-worker", 2003, 0, 1},
    {"brief-worker", 3001, 0, 0},
};

static sem_t leaked;

SITE static void leak_in_thread(unsigned long size) {
    for (int index = 0; index < 5; index++)
        opaque(malloc(any(size)));
}

static void *work(void *argument) {
    Worker *worker = argument;
    prctl(PR_SET_NAME, worker->name);
    leak_in_thread(worker->size);
    sem_post(&leaked);
    while (worker->stays)
        pause();
    return NULL;
}

/* Leaks from every thread, and waits until all have. */
static void leak_threads(void) {
    sem_init(&leaked, 0, 0);
    int length = sizeof workers / sizeof *workers;
    for (int index = 0; index < length; index++)
        if (pthread_create(&workers[index].thread, NULL, work, &workers[index]))
            abort();
    for (int index = 0; index < length; index++)
        while (sem_wait(&leaked))
            ;
    for (int index = 0; index < length; index++)
        if (!workers[index].stays)
            pthread_join(workers[index].thread, NULL);
    truth("leak_in_thread", 1009, 5, 0);
    truth("leak_in_thread", 2003, 5, 0);
    truth("leak_in_thread", 3001, 5, 0);
    truth_others = 1;
}

static const Command commands[] = {
    COMMAND(leak_threads),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
