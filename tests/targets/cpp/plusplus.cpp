/* C++: `new` in all its forms, and names that need demangling, inlining and
 * line tables.
 *
 * The site of a command that goes through `operator new` is the command, not
 * its callee: libstdc++ keeps no frame pointers, and then the direct caller of
 * `operator new` cannot be seen. */
#include "../c/target.h"
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

/* --- new and delete --- */

SITE static char *one(std::size_t size) { return static_cast<char *>(opaque(operator new(size))); }

SITE static char *array(std::size_t size) { return static_cast<char *>(opaque(new char[size])); }

extern "C" {

SITE void new_single() {
    one(307);
    operator delete(one(307));
    truth("new_single", 307, 2, 1);
}

SITE void new_array() {
    array(311);
    delete[] array(311);
    truth("new_array", 311, 2, 1);
}
}

struct alignas(128) Aligned {
    char bytes[128 * 5];
};

SITE static Aligned *aligned() { return static_cast<Aligned *>(opaque(new Aligned)); }

/* This `operator new` uses the frame pointer for something else, so that not
 * even the command can be seen. */
extern "C" SITE void new_aligned() {
    aligned();
    delete aligned();
    truth(NULL, sizeof(Aligned), 2, 1);
}

/* Throws through `operator new`; the exception object is freed again. */
extern "C" SITE void new_throws() {
    for (int index = 0; index < 5; index++) {
        try {
            array(any(PTRDIFF_MAX));
            abort();
        } catch (const std::bad_alloc &) {
        }
    }
    if (opaque(new (std::nothrow) char[any(PTRDIFF_MAX)]))
        abort();
    array(313);
    truth_live(NULL, 313, 1);
}

SITE static void throw_error(int number) { throw std::runtime_error(std::string(331, 'x') + std::to_string(number)); }

extern "C" SITE void exceptions_leave_nothing() {
    for (int index = 0; index < 100; index++) {
        try {
            throw_error(index);
        } catch (const std::exception &) {
        }
    }
    truth_live(NULL, 331, 0);
}

SITE static std::vector<std::string> *strings() {
    auto *list = new std::vector<std::string>;
    for (int index = 0; index < 100; index++)
        list->push_back(std::string(337, 'x'));
    return list;
}

extern "C" SITE void containers_are_freed() {
    delete static_cast<std::vector<std::string> *>(opaque(strings()));
    truth_live(NULL, 337, 0);
}

/* --- names --- */

namespace shop {
template <typename Item> struct Cart {
    SITE void add(Item count) {
        for (Item index = 0; index < count; index++)
            opaque(malloc(347));
    }
};
} // namespace shop

extern "C" SITE void demangled_names() {
    shop::Cart<int>().add(3);
    truth("demangled_names", 347, 3, 0);
}

__attribute__((always_inline)) static inline void *inlined_twice(std::size_t size) {
    return opaque(malloc(size)); // line of the innermost frame
}

__attribute__((always_inline)) static inline void *inlined_once(std::size_t size) {
    return inlined_twice(size); // line of the middle frame
}

extern "C" SITE void holds_inlined_frames() {
    inlined_once(349); // line of the outermost frame
    truth("holds_inlined_frames", 349, 1, 0);
}

static const Command commands[] = {
    COMMAND(new_single),
    COMMAND(new_array),
    COMMAND(new_aligned),
    COMMAND(new_throws),
    COMMAND(exceptions_leave_nothing),
    COMMAND(containers_are_freed),
    COMMAND(demangled_names),
    COMMAND(holds_inlined_frames),
    {NULL, NULL},
};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
