// flags: -O2 -fno-omit-frame-pointer
/* A program that replaces `operator new` by a pool of its own: what its objects
 * take is not to be seen anywhere else. */
#include "../c/target.h"
#include <new>

static char pool[1 << 20];
static std::size_t used;

__attribute__((noinline)) void *operator new(std::size_t size) {
    std::size_t start = used;
    used += (size + 15) & ~std::size_t{15};
    if (used > sizeof pool)
        throw std::bad_alloc();
    return pool + start;
}

/* A pool without free lists: what is deleted is gone all the same. */
__attribute__((noinline)) void operator delete(void *block) noexcept { opaque(block); }
__attribute__((noinline)) void operator delete(void *block, std::size_t) noexcept { opaque(block); }

extern "C" SITE void objects() {
    for (int index = 0; index < 13; index++)
        opaque(operator new(439));
    for (int index = 0; index < 5; index++)
        operator delete(opaque(operator new(439)));
    truth("objects", 439, 18, 5);
}

extern "C" SITE void blocks() {
    opaque(malloc(443));
    truth("blocks", 443, 1, 0);
}

static const Command commands[] = {COMMAND(objects), COMMAND(blocks), {NULL, NULL}};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
