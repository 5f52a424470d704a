// flags: -l:libapr-1.so.0
/* APR's pools: objects that are freed when their pool is cleared or destroyed, or one
 * that it descends from. */
#include "target.h"

#include <pthread.h>
#include <sys/wait.h>

typedef struct pool pool;
typedef struct allocator allocator;
typedef struct node {
    struct node *next;
} node;

int apr_initialize(void);
int apr_pool_create_ex(pool **made, pool *parent, void *abort, allocator *from);
void apr_pool_clear(pool *pool);
void apr_pool_destroy(pool *pool);
void *apr_palloc(pool *pool, size_t size);
void *apr_pcalloc(pool *pool, size_t size);
char *apr_pstrdup(pool *pool, const char *text);
char *apr_psprintf(pool *pool, const char *format, ...);
void apr_pool_cleanup_register(pool *pool, const void *data, int (*run)(void *), void *child);
int apr_allocator_create(allocator **made);
void apr_allocator_max_free_set(allocator *allocator, size_t bytes);
void apr_allocator_destroy(allocator *allocator);
node *apr_allocator_alloc(allocator *allocator, size_t size);
void apr_allocator_free(allocator *allocator, node *nodes);

/* Made before anybody traces, one with objects in it. */
static pool *old;
static allocator *lasting, *thrifty;

static pool *child_of(pool *parent) {
    pool *made;
    if (apr_pool_create_ex(&made, parent, NULL, NULL))
        abort();
    return made;
}

SITE static void kept(void) {
    pool *pool = child_of(NULL);
    for (int index = 0; index < 1013; index++)
        opaque(apr_palloc(pool, 173));
    truth("kept", 173, 1013, 0);
}

/* Requests of a server: a pool that is cleared after each. */
SITE static void cleared(void) {
    pool *pool = child_of(NULL);
    for (int round = 0; round < 11; round++) {
        for (int index = 0; index < 997; index++)
            opaque(apr_palloc(pool, 179));
        apr_pool_clear(pool);
    }
    for (int index = 0; index < 7; index++)
        opaque(apr_palloc(pool, 179));
    truth("cleared", 179, 11 * 997 + 7, 11 * 997);
}

/* Grandchildren too end with the first. */
SITE static void descendants(void) {
    for (int round = 0; round < 5; round++) {
        pool *first = child_of(NULL), *second = child_of(first), *third = child_of(second);
        pool *all[] = {first, second, third};
        for (int index = 0; index < 300; index++)
            opaque(apr_palloc(all[index % 3], 181));
        apr_pool_destroy(first);
    }
    truth("descendants", 181, 5 * 300, 5 * 300);
}

SITE static void only_children(void) {
    pool *parent = child_of(NULL), *child = child_of(parent);
    for (int index = 0; index < 41; index++) {
        opaque(apr_palloc(parent, 191));
        opaque(apr_palloc(child, 191));
    }
    apr_pool_destroy(child);
    truth("only_children", 191, 82, 41);
}

SITE static void zeroed(void) {
    pool *pool = child_of(NULL);
    for (int index = 0; index < 307; index++)
        opaque(apr_pcalloc(pool, 193));
    truth("zeroed", 193, 307, 0);
}

SITE static void copied(void) {
    pool *pool = child_of(NULL);
    for (int index = 0; index < 311; index++)
        opaque(apr_pstrdup(pool, "a text of twenty-two."));
    truth("copied", 22, 311, 0);
}

SITE static void formatted(void) {
    pool *pool = child_of(NULL);
    for (int index = 0; index < 211; index++)
        opaque(apr_psprintf(pool, "%0*d", 196, index));
    for (int index = 0; index < 3; index++) {
        struct pool *other = child_of(pool);
        opaque(apr_psprintf(other, "%0*d", 196, index));
        apr_pool_destroy(other);
    }
    truth("formatted", 197, 214, 3);
}

/* An empty one, and around the sizes at which a tracer needs one more look. */
SITE static void long_texts(void) {
    pool *pool = child_of(NULL);
    static const int lengths[] = {2045, 2046, 2047, 2048, 4093, 4094, 4095, 300007};
    for (size_t index = 0; index < sizeof lengths / sizeof *lengths; index++) {
        opaque(apr_psprintf(pool, "%0*d", lengths[index], 1));
        truth("long_texts", (unsigned long)lengths[index] + 1, 1, 0);
    }
    opaque(apr_psprintf(pool, "%s", ""));
    truth("long_texts", 1, 1, 0);
}

/* Threads with pools of their own, of one allocator. */
SITE static void *work(void *all) {
    for (int round = 0; round < 97; round++) {
        pool *own = child_of(all), *inner = child_of(own);
        for (int index = 0; index < 101; index++) {
            opaque(apr_palloc(own, 239));
            opaque(apr_palloc(inner, 239));
        }
        apr_pool_clear(inner);
        opaque(apr_palloc(inner, 239));
        if (round)
            apr_pool_destroy(own);
    }
    return NULL;
}

static void threads(void) {
    pthread_t threads[4];
    for (int index = 0; index < 4; index++)
        if (pthread_create(&threads[index], NULL, work, NULL))
            abort();
    for (int index = 0; index < 4; index++)
        pthread_join(threads[index], NULL);
    truth("work", 239, 4 * 97 * 203, 4 * (97 * 203 - 102));
    truth_others = 1;
}

/* Larger than a node. */
SITE static void large(void) {
    pool *pool = child_of(NULL);
    for (int index = 0; index < 13; index++)
        opaque(apr_palloc(pool, 70001));
    apr_pool_clear(pool);
    opaque(apr_palloc(pool, 70001));
    truth("large", 70001, 14, 13);
}

/* As many as no loop of 16,384 looks at. */
SITE static void many(void) {
    pool *pool = child_of(NULL);
    for (int index = 0; index < 200003; index++)
        opaque(apr_palloc(pool, 19));
    apr_pool_destroy(pool);
    truth("many", 19, 200003, 200003);
}

SITE static void in_old(void) {
    for (int index = 0; index < 17; index++)
        opaque(apr_palloc(old, 199));
    truth("in_old", 199, 17, 0);
}

/* What was in it before is in no number. */
SITE static void old_cleared(void) {
    apr_pool_clear(old);
}

static struct pool *dying;

SITE static int last_will(void *data) {
    opaque(apr_palloc(data, 211));
    return 0;
}

/* What a clean-up gets of the pool that ends is freed with the next that is made there:
 * APR takes the same piece of memory again. */
SITE static void last_wills(void) {
    for (int index = 0; index < 31; index++) {
        dying = child_of(NULL);
        apr_pool_cleanup_register(dying, dying, last_will, NULL);
        apr_pool_destroy(dying);
    }
    child_of(NULL);
    truth("last_will", 211, 31, 31);
    truth_others = 1;
}

/* Pieces that an allocator hands out without a pool, freed as lists. */
SITE static void nodes(void) {
    node *list = NULL;
    for (int index = 0; index < 37; index++) {
        node *made = opaque(apr_allocator_alloc(lasting, 8111));
        if (index % 2) {
            made->next = list;
            list = made;
        }
    }
    apr_allocator_free(lasting, list);
    truth("nodes", 8111, 37, 18);
}

/* An allocator that gives everything back to the system at once. */
SITE static void given_back(void) {
    apr_allocator_max_free_set(thrifty, 1);
    for (int round = 0; round < 7; round++) {
        pool *pool;
        if (apr_pool_create_ex(&pool, NULL, NULL, thrifty))
            abort();
        for (int index = 0; index < 503; index++)
            opaque(apr_palloc(pool, 223));
        apr_pool_destroy(pool);
    }
    apr_allocator_destroy(thrifty);
    truth("given_back", 223, 7 * 503, 7 * 503);
    /* The allocator itself. */
    truth_untraced_frees = 1;
}

/* As many texts of one length as a sample needs. */
SITE static void texts(void) {
    pool *pool = child_of(NULL);
    for (int index = 0; index < 20011; index++)
        opaque(apr_psprintf(pool, "%0*d", 996, index));
    truth("texts", 997, 20011, 0);
}

/* What a child makes in its copy of a pool is its own; what its parent made is not freed
 * by it. */
SITE static void in_child(pool *shared) {
    for (int index = 0; index < 5; index++)
        opaque(apr_palloc(shared, 229));
    apr_pool_destroy(child_of(shared));
    for (int index = 0; index < 3; index++)
        opaque(apr_palloc(child_of(shared), 229));
}

SITE static void in_parent(pool *shared) {
    for (int index = 0; index < 23; index++)
        opaque(apr_palloc(shared, 233));
}

static void forked(void) {
    pool *shared = child_of(NULL);
    in_parent(shared);
    for (int destroys = 0; destroys < 2; destroys++) {
        pid_t child = fork();
        if (child == 0) {
            in_child(shared);
            if (destroys)
                apr_pool_destroy(shared);
            _exit(0);
        }
        if (child < 0 || waitpid(child, NULL, 0) != child)
            abort();
    }
    truth("in_parent", 233, 23, 0);
    truth("in_child", 229, 16, 8);
}

/* A steady load, for who measures. */
SITE static void load(void) {
    pool *pool = child_of(NULL);
    for (int round = 0; round < 400; round++) {
        for (int index = 0; index < 1000; index++)
            opaque(apr_palloc(pool, 227));
        apr_pool_clear(pool);
    }
    truth("load", 227, 400000, 400000);
}

/* Twenty million bytes in a pool, which are then freed, or stay. */
SITE static pool *fill(void) {
    pool *pool = child_of(NULL);
    for (int index = 0; index < 20011; index++)
        memset(opaque(apr_palloc(pool, 1009)), 1, 1009);
    return pool;
}

static void grown(void) {
    fill();
    truth("fill", 1009, 20011, 0);
}

static void shrunk(void) {
    apr_pool_clear(fill());
    truth("fill", 1009, 20011, 20011);
}

static const Command commands[] = {
    COMMAND(kept),        COMMAND(cleared),    COMMAND(descendants), COMMAND(only_children),
    COMMAND(zeroed),      COMMAND(copied),     COMMAND(formatted),   COMMAND(large),
    COMMAND(many),        COMMAND(in_old),     COMMAND(old_cleared), COMMAND(last_wills),
    COMMAND(nodes),       COMMAND(given_back), COMMAND(load),        COMMAND(grown),
    COMMAND(texts),       COMMAND(forked),     COMMAND(shrunk),
    COMMAND(long_texts),  COMMAND(threads),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    if (apr_initialize() || apr_allocator_create(&lasting) || apr_allocator_create(&thrifty))
        abort();
    old = child_of(NULL);
    for (int index = 0; index < 3001; index++)
        opaque(apr_palloc(old, 7));
    return serve(count, arguments, commands);
}
