// flags: -pthread -ldl
/* Leaks of known size by all of C's functions, among blocks that are freed: for samplers,
 * which see some of them. */
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>

#include "target.h"

#define COUNT 20000

/* What leaks, 1009 bytes each, in turn by each function; and as much that does not. */
SITE static void leak(void) {
    for (int index = 0; index < COUNT; index++) {
        void *block = NULL;
        switch (index % 8) {
        case 0:
            block = malloc(any(1009));
            break;
        case 1:
            block = calloc(1, any(1009));
            break;
        case 2:
            block = realloc(NULL, any(1009));
            break;
        case 3:
            block = realloc(malloc(any(20011)), any(1009));
            break;
        case 4:
            block = reallocarray(malloc(any(16)), 1, any(1009));
            break;
        case 5:
            if (posix_memalign(&block, 64, any(1009)))
                abort();
            break;
        case 6:
            block = memalign(64, any(1009));
            break;
        default:
            block = aligned_alloc(64, any(1009));
        }
        opaque(block);
        free(opaque(malloc(any(2003))));
    }
    __asm__ volatile("" : : : "memory");
}

/* Calls that fail, and blocks without bytes, are no harm. */
SITE static void fail(void) {
    void *block = opaque(malloc(any(1 << 20)));
    for (int index = 0; index < 100; index++)
        if (malloc(any((size_t)-1 >> 1)) || calloc(any((size_t)-1 >> 1), any(3)) ||
            realloc(block, any((size_t)-1 >> 1)) ||
            reallocarray(block, any((size_t)-1 >> 1), any(3)))
            abort();
    memset(block, 1, 1 << 20);
    free(block);
    for (int index = 0; index < 100; index++)
        free(malloc(any(0)));
    free(NULL);
}

static void *in_thread(void *unused) {
    leak();
    return unused;
}

/* Threads that end, one after the other. */
SITE static void threads(void) {
    for (int index = 0; index < 4; index++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, in_thread, NULL) || pthread_join(thread, NULL))
            abort();
    }
}

static void *kept[COUNT];

/* A child frees its copies of its parent's blocks, and leaks its own. */
SITE static void child(void) {
    int status = 1;
    for (int index = 0; index < COUNT; index++)
        kept[index] = opaque(malloc(any(1013)));
    pid_t child = fork();
    if (child == 0) {
        for (int index = 0; index < COUNT; index++)
            free(kept[index]);
        leak();
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status)
        abort();
}

/* A library that is opened later. */
SITE static void load(void) {
    void *library = dlopen("libplugin.so", RTLD_NOW);
    void (*allocate)(int) = library ? (void (*)(int))dlsym(library, "plugin_allocates") : NULL;
    if (!allocate)
        abort();
    allocate(COUNT);
}

static const Command commands[] = {
    COMMAND(leak), COMMAND(fail), COMMAND(threads), COMMAND(child), COMMAND(load), {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
