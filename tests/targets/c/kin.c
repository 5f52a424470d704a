/* Processes that are forked, and what they do with what they inherit. */
#include "target.h"
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static void check(int holds) {
    if (!holds)
        abort();
}

static void wait_for(pid_t child) {
    int status;
    check(waitpid(child, &status, 0) == child && status == 0);
}

/* A pipe on which one process tells another to go on. */
typedef struct {
    int hear, tell;
} Pipe;

static Pipe new_pipe(void) {
    int ends[2];
    check(pipe(ends) == 0);
    Pipe made = {ends[0], ends[1]};
    return made;
}

static void tell(Pipe pipe) {
    check(write(pipe.tell, "", 1) == 1);
}

static void await(Pipe pipe) {
    char byte;
    /* Who was to tell has ended. */
    if (read(pipe.hear, &byte, 1) != 1)
        _exit(1);
}

/* A child that ends with its parent; 0 in the child. */
static pid_t fork_dependent(void) {
    pid_t parent = getpid(), child = fork();
    check(child >= 0);
    if (child == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent))
        _exit(1);
    return child;
}

static void close_pipe(Pipe pipe) {
    close(pipe.hear);
    close(pipe.tell);
}

static void fill(void **blocks, int count) {
    for (int index = 0; index < count; index++)
        blocks[index] = opaque(malloc(503));
}

/* --- frees of copies --- */

static void *old[8]; /* from before the run */

/* The child frees 3 copies, by free and by realloc; the parent has all 7. */
SITE static void parent_keeps(void) {
    void *blocks[7];
    fill(blocks, 7);
    pid_t child = fork_dependent();
    if (child == 0) {
        free(blocks[0]);
        free(blocks[1]);
        opaque(realloc(blocks[2], 5003));
        _exit(0);
    }
    wait_for(child);
    truth("parent_keeps", 503, 7, 0);
}

/* The parent frees 5 of 7 after the fork; then the child frees 4 of these, and
 * one that the parent has yet. */
SITE static void parent_frees_first(void) {
    void *blocks[7];
    fill(blocks, 7);
    Pipe go = new_pipe();
    pid_t child = fork_dependent();
    if (child == 0) {
        await(go);
        for (int index = 0; index < 4; index++)
            free(blocks[index]);
        free(blocks[6]);
        _exit(0);
    }
    for (int index = 0; index < 5; index++)
        free(blocks[index]);
    tell(go);
    wait_for(child);
    close_pipe(go);
    truth("parent_frees_first", 503, 7, 5);
}

/* The parent frees its block and gets the same address again, four times. */
SITE static void parent_uses_it_again(void) {
    void *block = opaque(malloc(503));
    Pipe go = new_pipe();
    pid_t child = fork_dependent();
    if (child == 0) {
        await(go);
        free(block);
        _exit(0);
    }
    for (int time = 0; time < 4; time++) {
        free(block);
        void *again = opaque(malloc(503));
        check(again == block);
    }
    tell(go);
    wait_for(child);
    close_pipe(go);
    truth("parent_uses_it_again", 503, 5, 4);
}

/* A child for each of four lives of one address, and each frees its own. */
SITE static void a_child_for_each_life(void) {
    Pipe go[4];
    pid_t children[4];
    void *block = opaque(malloc(503));
    for (int life = 0; life < 4; life++) {
        go[life] = new_pipe();
        children[life] = fork_dependent();
        if (children[life] == 0) {
            await(go[life]);
            free(block);
            _exit(0);
        }
        free(block);
        void *again = opaque(malloc(503));
        check(again == block);
    }
    for (int life = 0; life < 4; life++) {
        tell(go[life]);
        wait_for(children[life]);
        close_pipe(go[life]);
    }
    truth("a_child_for_each_life", 503, 5, 4);
}

/* Blocks from before the run are no copies of what was traced: 2 frees by the
 * child alone, and one by both, in whose place the parent has a traced one. */
SITE static void from_before(void) {
    Pipe go = new_pipe();
    pid_t child = fork_dependent();
    if (child == 0) {
        await(go);
        for (int index = 0; index < 3; index++)
            free(old[index]);
        free(opaque(malloc(509)));
        _exit(0);
    }
    free(old[0]);
    void *again = opaque(malloc(503));
    check(again == old[0]);
    tell(go);
    wait_for(child);
    close_pipe(go);
    truth("from_before", 503, 1, 0);
}

/* The child frees one, its own child two others. */
SITE static void grandchild_frees(void) {
    void *blocks[5];
    fill(blocks, 5);
    pid_t child = fork_dependent();
    if (child == 0) {
        free(blocks[0]);
        pid_t grandchild = fork_dependent();
        if (grandchild == 0) {
            free(blocks[1]);
            free(blocks[2]);
            _exit(0);
        }
        wait_for(grandchild);
        _exit(0);
    }
    wait_for(child);
    truth("grandchild_frees", 503, 5, 0);
}

static Pipe orphan_go, orphan_done;

SITE static void middle_keeps(void **blocks) {
    fill(blocks, 6);
}

/* A child allocates, forks and ends; its child waits. */
SITE static void leave_an_orphan(void) {
    orphan_go = new_pipe();
    orphan_done = new_pipe();
    pid_t middle = fork_dependent();
    if (middle == 0) {
        void *blocks[6];
        middle_keeps(blocks);
        free(blocks[5]);
        /* Nobody's dependent: it ends when nobody can tell it to go on. */
        if (fork() == 0) {
            close(orphan_go.tell);
            await(orphan_go);
            for (int index = 0; index < 4; index++)
                free(blocks[index]);
            tell(orphan_done);
            _exit(0);
        }
        _exit(0);
    }
    wait_for(middle);
}

SITE static void orphan_frees(void) {
    tell(orphan_go);
    await(orphan_done);
    close_pipe(orphan_go);
    close_pipe(orphan_done);
}

/* A small block that is not traced comes to where a copy was. */
SITE static void small_ones_in_place(void) {
    void *block = opaque(malloc(1024));
    pid_t child = fork_dependent();
    if (child == 0) {
        free(block);
        /* The same size class, and below the smallest that is traced. */
        void *small = opaque(malloc(1017));
        check(small == block);
        free(small);
        _exit(0);
    }
    wait_for(child);
    truth("small_ones_in_place", 1024, 1, 0);
}

/* --- families that are there already --- */

static Pipe go_on, done;
static int kin;

SITE static void kin_keep(void) {
    for (int index = 0; index < 3; index++)
        opaque(malloc(601));
}

static void serve_family(size_t bytes) {
    if (bytes) {
        void *memory = opaque(malloc(bytes));
        memset(memory, 1, bytes);
        /* The kernel takes nothing of it back. */
        check(mlock(memory, bytes) == 0);
    }
    tell(done);
    await(go_on);
    kin_keep();
    tell(done);
    for (;;)
        pause();
}

/* Two children and a child of each, which have these many bytes. */
static void raise_family(size_t bytes) {
    go_on = new_pipe();
    done = new_pipe();
    for (int index = 0; index < 2; index++)
        if (fork_dependent() == 0) {
            if (fork_dependent() == 0)
                serve_family(bytes);
            serve_family(bytes);
        }
    kin = 4;
    for (int index = 0; index < kin; index++)
        await(done);
}

SITE static void small_family(void) {
    raise_family(0);
}

SITE static void large_family(void) {
    raise_family(6 << 20);
}

SITE static void family_allocates(void) {
    for (int index = 0; index < kin; index++) {
        tell(go_on);
        await(done);
    }
    truth("kin_keep", 601, 3 * (unsigned long)kin, 0);
}

/* --- a family that grows all the time --- */

enum { MOST = 1500 };
static Pipe stop, born, storm_go, storm_done;

SITE static void storm_keeps(void) {
    opaque(malloc(607));
}

static void forks_until_told(void) {
    struct pollfd told = {stop.hear, POLLIN, 0};
    int count = 0;
    close(storm_go.tell);
    while (count < MOST && poll(&told, 1, 4) == 0) {
        if (fork_dependent() == 0) {
            char byte;
            close(stop.tell);
            /* Until all ends for telling are closed. */
            check(read(storm_go.hear, &byte, 1) == 0);
            storm_keeps();
            tell(storm_done);
            for (;;)
                pause();
        }
        count++;
    }
    check(write(born.tell, &count, sizeof count) == sizeof count);
    for (;;)
        pause();
}

SITE static void begin_storm(void) {
    stop = new_pipe();
    born = new_pipe();
    storm_go = new_pipe();
    storm_done = new_pipe();
    if (fork_dependent() == 0)
        forks_until_told();
}

SITE static void end_storm(void) {
    int count;
    tell(stop);
    check(read(born.hear, &count, sizeof count) == sizeof count);
    close(storm_go.tell);
    for (int index = 0; index < count; index++)
        await(storm_done);
    truth("storm_keeps", 607, (unsigned long)count, 0);
}

static const Command commands[] = {
    COMMAND(parent_keeps),        COMMAND(parent_frees_first),    COMMAND(parent_uses_it_again),
    COMMAND(a_child_for_each_life), COMMAND(from_before),         COMMAND(grandchild_frees),
    COMMAND(leave_an_orphan),     COMMAND(orphan_frees),          COMMAND(small_ones_in_place),
    COMMAND(small_family),        COMMAND(large_family),          COMMAND(family_allocates),
    COMMAND(begin_storm),         COMMAND(end_storm),             {NULL, NULL},
};

int main(int count, char **arguments) {
    fill(old, 8);
    return serve(count, arguments, commands);
}
