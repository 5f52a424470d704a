/* Assembly that nothing describes: with frame pointers, named as V8's, and with rbp
 * for something else. */
#include "target.h"

#define TAKES(name, size_of_blocks)                                                      \
    void name(void);                                                                     \
    SITE void name(void) {                                                               \
        opaque(malloc(any(size_of_blocks)));                                             \
        __asm__ volatile("");                                                            \
    }

TAKES(take_framed, 1009)
TAKES(take_built_in, 2003)
TAKES(take_frameless, 3001)
TAKES(take_busy, 4001)
TAKES(take_hidden, 5003)

void asm_framed(void);
void Builtins_Entry(void);
void asm_frameless(void);
void asm_busy(void);
void asm_hidden(void);

__asm__(".text\n"
        ".type asm_framed, @function\n"
        "asm_framed:\n"
        "    test %rsp, %rsp\n"
        "    push %rbp\n"
        "    mov %rsp, %rbp\n"
        "    sub $48, %rsp\n"
        "    call take_framed\n"
        "    leave\n"
        "    ret\n"
        ".size asm_framed, . - asm_framed\n"
        /* Two functions that share a frame, as an interpreter's loop and its handlers. */
        ".type Builtins_Entry, @function\n"
        "Builtins_Entry:\n"
        "    push %rbp\n"
        "    mov %rsp, %rbp\n"
        "    call Builtins_Handler\n"
        "    pop %rbp\n"
        "    ret\n"
        ".size Builtins_Entry, . - Builtins_Entry\n"
        ".type Builtins_Handler, @function\n"
        "Builtins_Handler:\n"
        "    sub $24, %rsp\n"
        "    call take_built_in\n"
        "    add $24, %rsp\n"
        "    ret\n"
        ".size Builtins_Handler, . - Builtins_Handler\n"
        ".type asm_frameless, @function\n"
        "asm_frameless:\n"
        "    sub $24, %rsp\n"
        "    call take_frameless\n"
        "    add $24, %rsp\n"
        "    ret\n"
        ".size asm_frameless, . - asm_frameless\n"
        ".type asm_busy, @function\n"
        "asm_busy:\n"
        "    push %rbp\n"
        "    mov %rsp, %rbp\n"
        "    lea -64(%rsp), %rbp\n"
        "    call take_busy\n"
        "    pop %rbp\n"
        "    ret\n"
        ".size asm_busy, . - asm_busy\n"
        /* Where it goes on is in a register. */
        ".type asm_hidden, @function\n"
        "asm_hidden:\n"
        "    sub $24, %rsp\n"
        "    call take_hidden\n"
        "    lea 1f(%rip), %rax\n"
        "    jmp *%rax\n"
        "1:  add $24, %rsp\n"
        "    ret\n"
        ".size asm_hidden, . - asm_hidden\n");

SITE static void framed(void) {
    asm_framed();
    truth("framed", 1009, 1, 0);
}

SITE static void built_in(void) {
    Builtins_Entry();
    truth("built_in", 2003, 1, 0);
}

/* By what they give back. */
SITE static void others(void) {
    asm_frameless();
    asm_busy();
    truth("take_frameless", 3001, 1, 0);
    truth("take_busy", 4001, 1, 0);
}

/* What the stack ends in is not what called it. */
SITE static void hidden(void) {
    asm_hidden();
    truth("take_hidden", 5003, 1, 0);
}

static const Command commands[] = {
    COMMAND(framed),
    COMMAND(built_in),
    COMMAND(others),
    COMMAND(hidden),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
