// flags: -l:libtalloc.so.2
/* talloc: each object is a block of malloc's with a header, and is freed with its parent.
 * A pool of talloc's is one block, of a size that its maker chose, and never grows. */
#include "target.h"

void *talloc_named_const(const void *parent, size_t size, const char *name);
void *_talloc_zero(const void *parent, size_t size, const char *name);
char *talloc_strdup(const void *parent, const char *text);
void *_talloc_realloc(const void *parent, void *object, size_t size, const char *name);
void *_talloc_steal_loc(const void *parent, const void *object, const char *place);
int _talloc_free(void *object, const char *place);
void *talloc_pool(const void *parent, size_t size);

/* Bytes that talloc puts before each object. */
#define HEADER 96
/* And before a pool's. */
#define POOL_HEADER 32

static void *object(const void *parent, size_t size) {
    return opaque(talloc_named_const(parent, size, "object"));
}

SITE static void kept(void) {
    void *parent = object(NULL, 173);
    for (int index = 0; index < 1012; index++)
        object(parent, 173);
    truth("kept", 173 + HEADER, 1013, 0);
}

/* A parent's children, and theirs. */
SITE static void with_parent(void) {
    for (int round = 0; round < 7; round++) {
        void *parent = object(NULL, 179);
        for (int index = 0; index < 31; index++)
            object(object(parent, 179), 179);
        _talloc_free(parent, "here");
    }
    truth("with_parent", 179 + HEADER, 7 * 63, 7 * 63);
}

/* One that got another parent lives on. */
SITE static void stolen(void) {
    static void *keeper;
    void *parent = object(NULL, 181);
    keeper = object(NULL, 181);
    for (int index = 0; index < 11; index++) {
        void *child = object(parent, 181);
        if (index % 2)
            _talloc_steal_loc(keeper, child, "here");
    }
    _talloc_free(parent, "here");
    truth("stolen", 181 + HEADER, 13, 7);
}

SITE static void grown(void) {
    void *one = object(NULL, 191);
    one = opaque(_talloc_realloc(NULL, one, 70001, "object"));
    opaque(_talloc_realloc(NULL, one, 7000001, "object"));
    truth("grown", 191 + HEADER, 1, 1);
    truth("grown", 70001 + HEADER, 1, 1);
    truth("grown", 7000001 + HEADER, 1, 0);
}

SITE static void zeroed(void) {
    for (int index = 0; index < 307; index++)
        opaque(_talloc_zero(NULL, 193, "object"));
    truth("zeroed", 193 + HEADER, 307, 0);
}

SITE static void copied(void) {
    for (int index = 0; index < 311; index++)
        opaque(talloc_strdup(NULL, "a text of twenty-two."));
    truth("copied", 22 + HEADER, 311, 0);
}

/* A pool counts once, at its maker; what it has no room for is malloc's. */
SITE static void pooled(void) {
    void *pool = opaque(talloc_pool(NULL, 5003));
    for (int index = 0; index < 10; index++)
        object(pool, 197);
    for (int index = 0; index < 3; index++)
        object(pool, 5009);
    truth("pooled", 5009 + HEADER, 3, 0);
    truth("pooled", 5003 + HEADER + POOL_HEADER, 1, 0);
}

/* It goes when it and all objects in it are freed. */
SITE static void pool_freed(void) {
    void *pool = opaque(talloc_pool(NULL, 5003)), *objects[10];
    for (int index = 0; index < 10; index++)
        objects[index] = _talloc_steal_loc(NULL, object(pool, 199), "here");
    _talloc_free(pool, "here");
    for (int index = 0; index < 10; index++)
        _talloc_free(objects[index], "here");
    truth("pool_freed", 5003 + HEADER + POOL_HEADER, 1, 1);
}

static const Command commands[] = {
    COMMAND(kept),   COMMAND(with_parent), COMMAND(stolen),     COMMAND(grown), COMMAND(zeroed),
    COMMAND(copied), COMMAND(pooled),      COMMAND(pool_freed), {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
