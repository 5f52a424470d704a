// flags: -O2 -fno-omit-frame-pointer -fno-asynchronous-unwind-tables -fno-unwind-tables -s
/* More code without call frame information than is looked through, as Chromium's: its functions keep
 * frame pointers. */
#include "target.h"

/* push %rbp; mov %rsp,%rbp; call; pop %rbp; ret; int3: 17.6 MB of such functions. */
__asm__(".text\n"
        ".rept 1100000\n"
        ".quad 0x000100e8e5894855, 0xccccccccccc35d00\n"
        ".endr\n");

SITE static void take(unsigned long size) {
    opaque(malloc(any(size)));
}

SITE static void inner(int rounds) {
    char room[200];
    opaque(room);
    if (rounds > 0)
        inner(rounds - 1);
    else
        take(1009);
    opaque(room);
}

SITE static void nested(void) {
    inner(3);
    truth("nested", 1009, 1, 0);
}

static const Command commands[] = {
    COMMAND(nested),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
