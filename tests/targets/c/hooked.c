/* Hooks functions of its own libc in memory, as agents do: their first bytes
 * become a jump. */
#include "target.h"
#include <fcntl.h>
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>

enum { JUMP = 12, PAGE = 4096 };

static unsigned long calls;
static unsigned char saved[JUMP];

/* What malloc becomes. An alignment that malloc does not have keeps it from
 * being called. */
SITE static void *replacement(size_t size) {
    calls++;
    return memalign(64, size);
}

/* movabs $target,%rax; jmp *%rax */
static void make_jump(unsigned char *code, uintptr_t target) {
    memcpy(code, "\x48\xb8", 2);
    memcpy(code + 2, &target, 8);
    memcpy(code + 10, "\xff\xe0", 2);
}

static void protect(void *code, int protection) {
    uintptr_t page = (uintptr_t)code & ~(uintptr_t)(PAGE - 1);
    if (mprotect((void *)page, 2 * PAGE, protection))
        abort();
}

static void write_code(void *code, const unsigned char *bytes) {
    /* Byte by byte and not by memcpy: that may be in the same page. */
    for (int index = 0; index < JUMP; index++)
        ((volatile unsigned char *)code)[index] = bytes[index];
}

/* By the way that needs no other protection, as debuggers do it; where the
 * kernel forbids that (7.x), with another protection for a moment. */
static void write_by_file(void *code, const unsigned char *bytes) {
    int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    if (memory < 0)
        abort();
    if (pwrite(memory, bytes, JUMP, (off_t)(uintptr_t)code) != JUMP) {
        protect(code, PROT_READ | PROT_WRITE | PROT_EXEC);
        write_code(code, bytes);
        protect(code, PROT_READ | PROT_EXEC);
    }
    close(memory);
}

static void hook(void *code, uintptr_t target) {
    unsigned char jump[JUMP];
    make_jump(jump, target);
    memcpy(saved, code, JUMP);
    protect(code, PROT_READ | PROT_WRITE | PROT_EXEC);
    write_code(code, jump);
}

static void hook_malloc(void) {
    hook((void *)malloc, (uintptr_t)replacement);
    protect((void *)malloc, PROT_READ | PROT_EXEC);
}

/* The code stays writable. */
static void hook_malloc_for_good(void) {
    hook((void *)malloc, (uintptr_t)replacement);
}

static void hook_malloc_by_file(void) {
    unsigned char jump[JUMP];
    make_jump(jump, (uintptr_t)replacement);
    memcpy(saved, (void *)malloc, JUMP);
    write_by_file((void *)malloc, jump);
}

/* Puts back what was there, breakpoints included, as agents do. */
static void unhook_malloc_by_file(void) {
    write_by_file((void *)malloc, saved);
}

/* By way of memory without a name. */
static void hook_malloc_through_memory(void) {
    unsigned char *stub = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stub == MAP_FAILED)
        abort();
    make_jump(stub, (uintptr_t)replacement);
    hook((void *)malloc, (uintptr_t)stub);
    protect((void *)malloc, PROT_READ | PROT_EXEC);
}

/* The replacement of calloc: never called here. */
static void hook_calloc(void) {
    hook((void *)calloc, (uintptr_t)replacement);
    protect((void *)calloc, PROT_READ | PROT_EXEC);
}

/* What an agent leaves that has hooked something else in that page. */
static void leave_malloc_writable(void) {
    protect((void *)malloc, PROT_READ | PROT_WRITE | PROT_EXEC);
}

SITE static void leak_blocks(void) {
    for (int index = 0; index < 7; index++)
        opaque(malloc(any(1009)));
    truth("leak_blocks", 1009, 7, 0);
}

SITE static void leak_zeroed(void) {
    for (int index = 0; index < 3; index++)
        opaque(calloc(1, any(503)));
    truth("leak_zeroed", 503, 3, 0);
}

static void tell_calls(void) {
    say("calls %lu\n", calls);
}

int main(int count, char **arguments) {
    static const Command commands[] = {
        COMMAND(hook_malloc),
        COMMAND(hook_malloc_for_good),
        COMMAND(hook_malloc_by_file),
        COMMAND(unhook_malloc_by_file),
        COMMAND(hook_malloc_through_memory),
        COMMAND(hook_calloc),
        COMMAND(leave_malloc_writable),
        COMMAND(leak_blocks),
        COMMAND(leak_zeroed),
        COMMAND(tell_calls),
        {NULL, NULL},
    };
    return serve(count, arguments, commands);
}
