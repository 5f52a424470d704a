// kind: shared
/* An allocator that the kernel refuses to probe: a uprobe on an instruction with
 * a lock prefix is an error. Nobody calls it. */
__asm__(".globl malloc, free\n"
        ".type malloc, @function\n"
        "malloc:\n"
        "lock orq $0, (%rsp)\n"
        "xor %eax, %eax\n"
        "ret\n"
        ".size malloc, . - malloc\n"
        ".type free, @function\n"
        "free:\n"
        "lock orq $0, (%rsp)\n"
        "ret\n"
        ".size free, . - free\n");
