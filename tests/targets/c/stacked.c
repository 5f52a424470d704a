// flags: -O2 -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// A list whose first element comes and goes all the time, so that nobody who reads the memory of
// the process bit by bit sees it whole. It grows by one element in 20. As often a block is lost.
//
// Prints `PID ready`; works until standard input ends. Nothing else is allocated.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SITE __attribute__((noipa))

struct element {
    struct element *next;
    char text[40];
};

static struct element *volatile top;
static volatile int over;

SITE static void push(void) {
    struct element *it = malloc(sizeof *it);
    if (it) {
        it->next = top;
        top = it;
    }
}

SITE static void pop(void) {
    struct element *it = top;
    top = it->next;
    // Nothing of it leads on, wherever its address is left.
    memset(it, 0, sizeof *it);
    free(it);
}

SITE static void lose(void) {
    void *volatile it = malloc(97);
    if (it)
        memset(it, 0, 97);
    it = NULL;
}

SITE static void wait_a_little(void) {
    for (volatile int turn = 0; turn < 300; turn++)
        ;
}

static void *work(void *unused) {
    for (unsigned long turn = 0; !over; turn++) {
        push();
        wait_a_little();
        if (turn % 20)
            pop();
        else
            lose();
        wait_a_little();
        if (turn % 50 == 0)
            usleep(1000);
    }
    return unused;
}

int main(void) {
    pthread_t worker;
    printf("%d ready\n", getpid());
    fflush(stdout);
    if (pthread_create(&worker, NULL, work, NULL))
        return 1;
    while (getchar() != EOF)
        ;
    over = 1;
    pthread_join(worker, NULL);
    return 0;
}
