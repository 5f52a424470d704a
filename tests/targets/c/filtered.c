/* A program that confines itself by seccomp: any system call but the few that
 * it needs kills it. */
#include "target.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static const int allowed[] = {
    SYS_read,   SYS_write, SYS_exit_group, SYS_brk,          SYS_mmap,
    SYS_munmap, SYS_mremap, SYS_madvise,   SYS_rt_sigreturn, SYS_futex,
};

enum { COUNT = sizeof allowed / sizeof *allowed };

static void set_up_filter(void) {
    static struct sock_filter steps[COUNT + 3];
    struct sock_filter load = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
    struct sock_filter kill = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    steps[0] = load;
    for (int index = 0; index < COUNT; index++) {
        struct sock_filter is =
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[index],
                     (unsigned char)(COUNT - index), 0);
        steps[1 + index] = is;
    }
    steps[1 + COUNT] = kill;
    steps[2 + COUNT] = allow;
    struct sock_fprog program = {COUNT + 3, steps};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        abort();
}

SITE static void allocate(void) {
    for (int index = 0; index < 100; index++) {
        opaque(malloc(401));
        free(opaque(calloc(1, 409)));
        opaque(realloc(opaque(malloc(419)), 4190));
    }
    void *large = opaque(malloc(4 << 20)); /* by mmap */
    large = opaque(realloc(large, 8 << 20));
    free(large);
    truth("allocate", 401, 100, 0);
    truth("allocate", 409, 100, 100);
    truth("allocate", 419, 100, 100);
    truth("allocate", 4190, 100, 0);
    truth("allocate", 4 << 20, 1, 1);
    truth("allocate", 8 << 20, 1, 1);
}

static const Command commands[] = {
    COMMAND(set_up_filter),
    COMMAND(allocate),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    free(opaque(malloc(1))); /* the first call asks for random bytes */
    return serve(count, arguments, commands);
}
