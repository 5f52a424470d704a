// flags: -l:libglib-2.0.so.0
/* GLib's slices: single objects, lists that are given back as a whole, and what they
 * take from malloc. */
#include "target.h"

void *g_slice_alloc(size_t size);
void *g_slice_alloc0(size_t size);
void *g_slice_copy(size_t size, const void *block);
void g_slice_free1(size_t size, void *block);
void g_slice_free_chain_with_offset(size_t size, void *chain, size_t offset);
void *g_list_prepend(void *list, void *data);
void g_list_free(void *list);

/* A GList. */
#define NODE 24
#define OLD 2003
static void *old;

SITE static void slices(void) {
    static void *blocks[1009];
    for (int index = 0; index < 1009; index++)
        blocks[index] = opaque(g_slice_alloc(173));
    for (int index = 0; index < 401; index++)
        g_slice_free1(173, blocks[index]);
    g_slice_free1(173, NULL);
    truth("slices", 173, 1009, 401);
}

SITE static void zeroed(void) {
    for (int index = 0; index < 307; index++)
        opaque(g_slice_alloc0(181));
    truth("zeroed", 181, 307, 0);
}

SITE static void copied(void) {
    static const char text[179];
    for (int index = 0; index < 311; index++)
        g_slice_free1(179, opaque(g_slice_copy(179, text)));
    truth("copied", 179, 311, 311);
}

SITE static void list(void) {
    void *list = NULL;
    for (int index = 0; index < 3001; index++)
        list = g_list_prepend(list, NULL);
    g_list_free(list);
    truth("list", NODE, 3001, 3001);
}

SITE static void kept_list(void) {
    static void *list;
    for (int index = 0; index < 211; index++)
        list = g_list_prepend(list, NULL);
    truth("kept_list", NODE, 211, 0);
}

/* Pages that slices give back by free, which they took within other calls. */
SITE static void all_freed(void) {
    static void *blocks[20011];
    for (int round = 0; round < 3; round++) {
        for (int index = 0; index < 20011; index++)
            blocks[index] = opaque(g_slice_alloc(487));
        for (int index = 0; index < 20011; index++)
            g_slice_free1(487, blocks[index]);
    }
    truth("all_freed", 487, 3 * 20011, 3 * 20011);
}

/* Too large for a slice: malloc's. */
SITE static void large(void) {
    struct {
        void *next;
    } *chain = NULL, *block;
    for (int index = 0; index < 7; index++) {
        block = opaque(g_slice_alloc(70001));
        block->next = chain;
        chain = opaque(block);
    }
    g_slice_free_chain_with_offset(70001, chain, 0);
    for (int index = 0; index < 5; index++)
        g_slice_free1(70001, opaque(g_slice_alloc(70001)));
    truth("large", 70001, 12, 12);
}

static void old_list(void) {
    g_list_free(old);
    truth_untraced_frees = OLD;
}

/* Longer than a tracer looks at. */
SITE static void long_list(void) {
    void *list = NULL;
    for (int index = 0; index < 20011; index++)
        list = g_list_prepend(list, NULL);
    g_list_free(list);
    truth_others = 1;
}

static const Command commands[] = {
    COMMAND(slices),
    COMMAND(zeroed),
    COMMAND(copied),
    COMMAND(list),
    COMMAND(kept_list),
    COMMAND(all_freed),
    COMMAND(large),
    COMMAND(old_list),
    COMMAND(long_list),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    for (int index = 0; index < OLD; index++)
        old = g_list_prepend(old, NULL);
    return serve(count, arguments, commands);
}
