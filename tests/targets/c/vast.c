// flags: -O2 -fno-omit-frame-pointer -fno-asynchronous-unwind-tables -fno-unwind-tables -s
/* More code without call frame information than is looked through, as Chromium's: its functions keep
 * frame pointers. */

/* push %rbp; mov %rsp,%rbp; call; pop %rbp; ret; int3: 17.6 MB of such functions. */
__asm__(".text\n"
        ".rept 1100000\n"
        ".quad 0x000100e8e5894855, 0xccccccccccc35d00\n"
        ".endr\n");

/* What it does is the same. */
#include "undescribed.c"
