/* A program that has its code on other pages than the file's, as some do to have it on
 * large ones: it copies what is below `.mover` and puts the copy there instead. */
#include "target.h"
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <elf.h>

void take(void);
SITE void take(void) {
    opaque(malloc(any(1009)));
    __asm__ volatile("");
}

void inner(int depth);
SITE void inner(int depth) {
    if (depth)
        inner(depth - 1);
    else
        take();
    __asm__ volatile("");
}

#ifdef OWN_ALLOCATOR
/* An allocator of the program's own, as mimalloc is called. */
void *mi_malloc(size_t wanted);
void mi_free(void *block);
static char arena[1 << 16];
static size_t taken;

__attribute__((noinline)) void *mi_malloc(size_t wanted) {
    void *block = arena + taken;
    taken += (wanted + 15) / 16 * 16;
    return opaque(block);
}

__attribute__((noinline)) void mi_free(void *block) {
    opaque(block);
}

SITE static void take_own(void) {
    for (int index = 0; index < 5; index++)
        opaque(mi_malloc(any(2003)));
}

SITE static void own(void) {
    take_own();
    truth("take_own", 2003, 5, 0);
}
#endif

static char *code;
static size_t size;

__attribute__((section(".mover"), noinline, aligned(4096))) static void mover(char *copy, int in_place) {
    const long write = PROT_READ | PROT_WRITE, run = PROT_READ | PROT_EXEC;
    const long fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    register long flags __asm__("r10");
    register long file __asm__("r8") = -1;
    register long offset __asm__("r9") = 0;
    long result;
    if (in_place) {
        /* As node does: other pages at the same place, which it fills then. */
        flags = fixed;
        __asm__ volatile("syscall" : "=a"(result) : "0"(SYS_mmap), "D"(code), "S"(size), "d"(write), "r"(flags), "r"(file), "r"(offset) : "rcx", "r11", "memory");
        char *to = code, *from = copy;
        size_t length = size;
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
        __asm__ volatile("syscall" : "=a"(result) : "0"(SYS_mprotect), "D"(code), "S"(size), "d"(run) : "rcx", "r11", "memory");
    } else {
        /* The copy itself takes the place. */
        flags = MREMAP_MAYMOVE | MREMAP_FIXED;
        file = (long)code;
        __asm__ volatile("syscall" : "=a"(result) : "0"(SYS_mremap), "D"(copy), "S"(size), "d"(size), "r"(flags), "r"(file) : "rcx", "r11", "memory");
    }
}

/* The pages of the segment with code that are below the mover's. */
static void find_code(void) {
    const Elf64_Phdr *header = (const Elf64_Phdr *)getauxval(AT_PHDR);
    size_t count = getauxval(AT_PHNUM);
    uintptr_t bias = 0;
    for (size_t index = 0; index < count; index++)
        if (header[index].p_type == PT_PHDR)
            bias = (uintptr_t)header - header[index].p_vaddr;
    for (size_t index = 0; index < count; index++)
        if (header[index].p_type == PT_LOAD && header[index].p_flags & PF_X)
            code = (char *)((bias + header[index].p_vaddr) & ~(uintptr_t)4095);
    size = (size_t)((uintptr_t)mover - (uintptr_t)code);
}

static char *copy_of_code(void) {
    find_code();
    char *copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED)
        abort();
    memcpy(copy, code, size);
    if (mprotect(copy, size, PROT_READ | PROT_EXEC))
        abort();
    return copy;
}

static void copy_code(int in_place) {
    char *copy = copy_of_code();
    mover(copy, in_place);
    if (in_place)
        munmap(copy, size);
}

SITE static void in_place(void) {
    copy_code(1);
}

SITE static void moved(void) {
    copy_code(0);
}

/* It needs nothing but what it is given, so that it runs anywhere. */
typedef void (*Called)(void);
void calls(Called called);
SITE void calls(Called called) {
    called();
    __asm__ volatile("");
}

/* A second copy, as V8 has one of its own functions near what it compiles. */
static char *second;

SITE static void again(void) {
    second = copy_of_code();
}

SITE static void elsewhere(void) {
    void (*copied)(Called) = (void (*)(Called))(uintptr_t)(second + ((char *)(uintptr_t)calls - code));
    copied(take);
    truth("take", 1009, 1, 0);
}

/* A byte of the copy is another one: that of a function that nobody calls. */
void unused(void);
SITE void unused(void) {
    __asm__ volatile("nop; nop");
}

SITE static void spoil(void) {
    if (mprotect(code, size, PROT_READ | PROT_WRITE | PROT_EXEC))
        abort();
    *(volatile char *)(uintptr_t)unused = (char)0xf4;
    if (mprotect(code, size, PROT_READ | PROT_EXEC))
        abort();
}

SITE static void nested(void) {
    for (int index = 0; index < 7; index++)
        inner(3);
    truth("take", 1009, 7, 0);
}

static const Command commands[] = {
    COMMAND(in_place),
    COMMAND(moved),
    COMMAND(nested),
    COMMAND(spoil),
    COMMAND(again),
    COMMAND(elsewhere),
#ifdef OWN_ALLOCATOR
    COMMAND(own),
#endif
    {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
