/* Code made at run time that allocates, with a perf map that names it. */
#include "target.h"
#include <stdint.h>
#include <sys/mman.h>

typedef void (*Compiled)(void);

static Compiled compiled;
static char map_path[64];

/* push rbp; mov rbp, rsp; mov edi, 701; mov rax, malloc; call rax; pop rbp; ret */
static Compiled compile(void) {
    uint8_t code[] = {0x55, 0x48, 0x89, 0xe5, 0xbf, 0,    0,    0,    0,    0x48, 0xb8,
                      0,    0,    0,    0,    0,    0,    0,    0,    0xff, 0xd0, 0x5d, 0xc3};
    uint32_t size = 701;
    uintptr_t function = (uintptr_t)malloc;
    memcpy(code + 5, &size, sizeof size);
    memcpy(code + 11, &function, sizeof function);
    uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        abort();
    memcpy(page + 64, code, sizeof code);
    snprintf(map_path, sizeof map_path, "/tmp/perf-%d.map", getpid());
    FILE *map = fopen(map_path, "w");
    if (!map)
        abort();
    fprintf(map, "%lx %zx compiled_at_run_time\n", (unsigned long)(uintptr_t)(page + 64), sizeof code);
    fclose(map);
    return (Compiled)(uintptr_t)(page + 64);
}

/* Functions that call each other, made at run time: with frame pointers, and without. */
static uint8_t *code;
static size_t code_length;
static FILE *map;

static void name(const char *text, const uint8_t *start) {
    fprintf(map, "%lx %zx %s\n", (unsigned long)(uintptr_t)start, (size_t)(code + code_length - start), text);
}

static void emit(const void *bytes, size_t length) {
    memcpy(code + code_length, bytes, length);
    code_length += length;
}

#define EMIT(...) emit((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static Compiled caller_of(Compiled called, int framed, const char *text) {
    uint8_t *start = code + code_length;
    uintptr_t address = (uintptr_t)called;
    if (framed)
        EMIT(0x55, 0x48, 0x89, 0xe5); /* push rbp; mov rbp, rsp */
    else
        EMIT(0x53); /* push rbx */
    EMIT(0x48, 0xb8); /* mov rax, called */
    emit(&address, sizeof address);
    EMIT(0xff, 0xd0); /* call rax */
    if (framed)
        EMIT(0x5d, 0xc3); /* pop rbp; ret */
    else
        EMIT(0x5b, 0xc3); /* pop rbx; ret */
    name(text, start);
    return (Compiled)(uintptr_t)start;
}

#define TAKES(function, size_of_blocks)                                                  \
    static void function(void);                                                          \
    SITE static void function(void) {                                                    \
        opaque(malloc(any(size_of_blocks)));                                             \
        __asm__ volatile("");                                                            \
    }

TAKES(take_framed, 1009)
TAKES(take_frameless, 2003)

static Compiled framed, frameless;

static void compile_callers(void) {
    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    map = fopen(map_path, "a");
    if (code == MAP_FAILED || !map)
        abort();
    framed = caller_of(caller_of(take_framed, 1, "framed_inner"), 1, "framed_outer");
    frameless = caller_of(caller_of(take_frameless, 0, "frameless_inner"), 0, "frameless_outer");
    fclose(map);
    if (mprotect(code, 4096, PROT_READ | PROT_EXEC))
        abort();
}

SITE static void run_framed(void) {
    framed();
    truth("take_framed", 1009, 1, 0);
}

SITE static void run_frameless(void) {
    frameless();
    truth("take_frameless", 2003, 1, 0);
}

SITE static void run_compiled(void) {
    for (int index = 0; index < 9; index++)
        compiled();
    truth("compiled_at_run_time", 701, 9, 0);
}

static const Command commands[] = {
    COMMAND(run_compiled),
    COMMAND(run_framed),
    COMMAND(run_frameless),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    compiled = compile();
    compile_callers();
    int code = serve(count, arguments, commands);
    unlink(map_path);
    return code;
}
