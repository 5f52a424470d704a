/* Probes for `unfreed probes`, their notes written by hand: all forms of
 * operands that a compiler may choose, among them some that nobody can read. */
#include "target.h"

unsigned short app_counted_semaphore __attribute__((section(".probes"), used));
long app_global = 5;

/* clang-format off */
#define PROBE(name, semaphore, arguments)                                     \
    __asm__ volatile(                                                         \
        "1: nop\n"                                                            \
        ".pushsection .note.stapsdt, \"\", \"note\"\n"                        \
        ".balign 4\n.long 3f - 2f, 5f - 4f, 3\n"                              \
        "2: .asciz \"stapsdt\"\n3: .balign 4\n"                               \
        "4: .quad 1b, unfreed_stapsdt_base, " semaphore "\n"                  \
        ".asciz \"unfreed_app\"\n.asciz \"" name "\"\n.asciz \"" arguments "\"\n" \
        "5: .balign 4\n.popsection\n")
/* clang-format on */

__asm__(".pushsection .stapsdt.base, \"a\", @progbits\n"
        "unfreed_stapsdt_base: .space 1\n.popsection\n");

SITE static void twice(int second) {
    if (second)
        PROBE("twice", "0", "-4@%edi 8@app_global(%rip)");
    else
        PROBE("twice", "0", "8@%rdi 8@-8(%rsp,%rax,4)");
}

static void probe(void) {
    truth("probe", 8, 0, 0); /* It allocates nothing. */
    PROBE("nothing", "0", "");
    PROBE("odd", "0", "8f@%xmm0 8@*%rax 1@%ch");
    PROBE("counted", "app_counted_semaphore", "2@$7");
    twice(0);
    twice(1);
}

static const Command commands[] = {COMMAND(probe), {NULL, NULL}};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
