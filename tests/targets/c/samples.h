/* A sampler's probes, as OpenTelemetry's contract has them, with notes written by hand:
 * `PROVIDER` offers them, `NAME` is a prefix for its semaphores and functions. */
#ifndef SAMPLES_H
#define SAMPLES_H

#define SEMAPHORE_(name, probe) name##_##probe##_semaphore
#define SEMAPHORE(name, probe) SEMAPHORE_(name, probe)
#define TEXT_(text) #text
#define TEXT(text) TEXT_(text)

__attribute__((section(".probes"), used)) volatile unsigned short SEMAPHORE(NAME, alloc);
__attribute__((section(".probes"), used)) volatile unsigned short SEMAPHORE(NAME, free);

/* clang-format off */
#define PROBE(name, semaphore, arguments, ...)                                \
    __asm__ volatile(                                                         \
        "1: nop\n"                                                            \
        ".pushsection .note.stapsdt, \"\", \"note\"\n"                        \
        ".balign 4\n.long 3f - 2f, 5f - 4f, 3\n"                              \
        "2: .asciz \"stapsdt\"\n3: .balign 4\n"                               \
        "4: .quad 1b, _.stapsdt.base, " TEXT(semaphore) "\n"                  \
        ".asciz \"" TEXT(PROVIDER) "\"\n.asciz \"" name "\"\n.asciz \"" arguments "\"\n" \
        "5: .balign 4\n.popsection\n"                                         \
        ".ifndef _.stapsdt.base\n"                                            \
        ".pushsection .stapsdt.base, \"aG\", \"progbits\", .stapsdt.base, comdat\n" \
        ".weak _.stapsdt.base\n.hidden _.stapsdt.base\n"                      \
        "_.stapsdt.base: .space 1\n.size _.stapsdt.base, 1\n"                 \
        ".popsection\n.endif\n"                                               \
        : : __VA_ARGS__ : "memory")
/* clang-format on */

/* Tells of a sample. */
__attribute__((noinline, unused)) static void
tell_alloc(unsigned long block, unsigned long size, unsigned long weighted_bytes) {
    if (SEMAPHORE(NAME, alloc))
        PROBE("alloc", SEMAPHORE(NAME, alloc), "8@%0 8@%1 8@%2", "r"(block), "r"(size),
              "r"(weighted_bytes));
}

/* Tells that it was freed. */
__attribute__((noinline, unused)) static void tell_free(unsigned long block) {
    if (SEMAPHORE(NAME, free))
        PROBE("free", SEMAPHORE(NAME, free), "8@%0", "r"(block));
}

#endif
