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

SITE static void run_compiled(void) {
    for (int index = 0; index < 9; index++)
        compiled();
    truth("compiled_at_run_time", 701, 9, 0);
}

static const Command commands[] = {COMMAND(run_compiled), {NULL, NULL}};

int main(int count, char **arguments) {
    compiled = compile();
    int code = serve(count, arguments, commands);
    unlink(map_path);
    return code;
}
