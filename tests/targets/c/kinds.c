/* One command for each kind of memory and each door to it. Lengths are prime
 * numbers of pages. */
#include "target.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#define PAGES(count) ((size_t)(count) * 4096)
#define FLAGS (MAP_PRIVATE | MAP_ANONYMOUS)
#define ACCESS (PROT_READ | PROT_WRITE)

static void *must(void *address) {
    if (address == MAP_FAILED)
        abort();
    return opaque(address);
}

/* --- doors --- */

/* The kernel's own door, without libc. */
SITE static long raw(long number, long one, long two, long three, long four) {
    long result;
    register long fourth __asm__("r10") = four;
    register long fifth __asm__("r8") = -1;
    register long sixth __asm__("r9") = 0;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(one), "S"(two), "d"(three), "r"(fourth), "r"(fifth), "r"(sixth)
                     : "rcx", "r11", "memory");
    return result;
}

SITE static void map_raw(void) {
    for (int index = 0; index < 5; index++) {
        long at = raw(SYS_mmap, 0, PAGES(3), ACCESS, FLAGS);
        if (at < 0)
            abort();
        if (index > 2 && raw(SYS_munmap, at, PAGES(3), 0, 0))
            abort();
    }
    truth_whole_mapping("map_raw", PAGES(3), 5, 2);
}

SITE static void map_by_syscall(void) {
    for (int index = 0; index < 3; index++)
        must((void *)syscall(SYS_mmap, NULL, PAGES(5), ACCESS, FLAGS, -1, 0));
    truth_whole_mapping("map_by_syscall", PAGES(5), 3, 0);
}

SITE static void remap_raw(void) {
    long at = raw(SYS_mmap, 0, PAGES(7), ACCESS, FLAGS);
    if (raw(SYS_mremap, at, PAGES(7), PAGES(11), MREMAP_MAYMOVE) < 0)
        abort();
    truth_mapped("remap_raw", PAGES(11));
}

SITE static void grow_by_brk(void) {
    if (sbrk((long)PAGES(17)) == (void *)-1 || sbrk((long)PAGES(13)) == (void *)-1 ||
        sbrk(-(long)PAGES(13)) == (void *)-1)
        abort();
    truth_whole_mapping("grow_by_brk", PAGES(17), 1, 0);
    Truth *gone = truth_entry("grow_by_brk", 0, "mapping");
    gone->allocated_count++, gone->freed_count++;
    gone->allocated_bytes += PAGES(13), gone->freed_bytes += PAGES(13);
}

SITE static void protect_reserved(void) {
    char *at = must(mmap(NULL, PAGES(64), PROT_NONE, FLAGS | MAP_NORESERVE, -1, 0));
    if (mprotect(at + PAGES(1), PAGES(19), ACCESS) || mprotect(at + PAGES(2), PAGES(3), PROT_READ))
        abort();
    truth_whole_mapping("protect_reserved", PAGES(19), 1, 0);
}

/* Without a key: as mprotect does. */
SITE static void protect_by_key(void) {
    char *at = must(mmap(NULL, PAGES(64), PROT_NONE, FLAGS | MAP_NORESERVE, -1, 0));
    if (syscall(SYS_pkey_mprotect, at + PAGES(1), PAGES(23), ACCESS, -1))
        abort();
    truth_whole_mapping("protect_by_key", PAGES(23), 1, 0);
}

/* --- files and shared memory --- */

SITE static void map_memfd(void) {
    int file = memfd_create("prime", 0);
    if (file < 0 || ftruncate(file, PAGES(31)))
        abort();
    for (int index = 0; index < 4; index++) {
        char *at = must(mmap(NULL, PAGES(31), ACCESS, MAP_SHARED, file, 0));
        memset(at, 1, PAGES(2));
        if (!index)
            munmap(at, PAGES(31));
    }
    close(file);
    truth_mapped_file("map_memfd", PAGES(31), 4, 1);
}

SITE static void attach_segments(void) {
    int segment = shmget(IPC_PRIVATE, PAGES(23), IPC_CREAT | 0600);
    char *first = shmat(segment, NULL, 0), *second = shmat(segment, NULL, 0);
    shmctl(segment, IPC_RMID, NULL);
    if (first == (void *)-1 || second == (void *)-1)
        abort();
}

SITE static void map_private_file(void) {
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    char *at = must(mmap(NULL, PAGES(2), ACCESS, MAP_PRIVATE, file, 0));
    at[0] = 1;
    close(file);
    truth_mapped_file("map_private_file", PAGES(2), 1, 0);
}

/* --- resident --- */

/* 3 reserves of 4 GiB, of each of which two pages are touched. */
SITE static void touch_little(void) {
    for (int index = 0; index < 3; index++) {
        char *at = must(mmap(NULL, (size_t)4 << 30, ACCESS, FLAGS | MAP_NORESERVE, -1, 0));
        madvise(at, (size_t)4 << 30, MADV_NOHUGEPAGE);
        at[0] = at[PAGES(4001)] = 1;
    }
    truth_whole_mapping("touch_little", (size_t)4 << 30, 3, 0);
}

/* 13 pages are touched, and 11 given back. */
SITE static void touch_and_give_back(void) {
    static char *at;
    if (!at) {
        at = must(mmap(NULL, PAGES(16), ACCESS, FLAGS, -1, 0));
        madvise(at, PAGES(16), MADV_NOHUGEPAGE);
        memset(at, 1, PAGES(13));
    } else
        madvise(at, PAGES(11), MADV_DONTNEED);
}

/* --- threads --- */

static void *end_at_once(void *argument) {
    return argument;
}

static pthread_t start(void *(*work)(void *)) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, PAGES(257));
    if (pthread_create(&thread, &attributes, work, NULL))
        abort();
    return thread;
}

SITE static void never_join(void) {
    start(end_at_once);
}

SITE static void start_and_join(void) {
    pthread_join(start(end_at_once), NULL);
}

/* Each joined thread's stack goes to the next that nobody joins. */
static void unjoined(void) {
    for (int index = 0; index < 13; index++) {
        never_join();
        start_and_join();
    }
    /* Until the last one has ended. */
    int threads = 2;
    while (threads > 1) {
        FILE *status = fopen("/proc/self/status", "r");
        char line[256];
        while (fgets(line, sizeof line, status))
            sscanf(line, "Threads: %d", &threads);
        fclose(status);
    }
}

static void *stay(void *argument) {
    for (;;)
        pause();
    return argument;
}

SITE static void keep_running(void) {
    for (size_t index = 0; index < any(3); index++)
        start(stay);
}

static const Command commands[] = {
    COMMAND(map_raw),          COMMAND(map_by_syscall),   COMMAND(remap_raw),
    COMMAND(grow_by_brk),      COMMAND(protect_reserved), COMMAND(map_memfd),
    COMMAND(attach_segments),  COMMAND(map_private_file), COMMAND(touch_little),
    COMMAND(protect_by_key),   COMMAND(touch_and_give_back), COMMAND(unjoined),      COMMAND(keep_running),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
