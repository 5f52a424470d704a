// flags: -fsanitize=leak
/* Two leaks, one of which is suppressed by the name of the function that
 * allocates it. LeakSanitizer tells of the other when the program ends. */
#include "target.h"

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:suppressed_caller\n";
}

SITE static void *suppressed_caller(void) {
    void *block = opaque(malloc(666));
    __asm__ volatile("" ::: "memory"); /* no tail call */
    return block;
}

SITE static void *told_caller(void) {
    void *block = opaque(malloc(1337));
    __asm__ volatile("" ::: "memory");
    return block;
}

SITE static void leak(void) {
    suppressed_caller();
    told_caller();
    truth_live("suppressed_caller", 666, 1);
    truth_live("told_caller", 1337, 1);
}

static const Command commands[] = {COMMAND(leak), {NULL, NULL}};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
