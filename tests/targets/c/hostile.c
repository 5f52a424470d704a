/* Code of which everything that has names is made to harm who reads it: a
 * mapped file with a million functions whose names overlap, and which are all
 * passed on the way back to one that covers them; and a perf map in which a name
 * of 1 MiB is cut into 25,000 pieces. */
#include "target.h"
#include <elf.h>
#include <stdint.h>
#include <sys/mman.h>

typedef void (*Caller)(void (*)(void));

enum { CODE = 0x1000, NAMES = 0x2000, SYMBOLS = 0x12000, COUNT = 1 << 20, FUNCTION = 0x40 };

/* push rbp; mov rbp, rsp; call rdi; pop rbp; ret */
static const uint8_t code[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3};

static const char first_name[] = "covers_all_of_the_hostile_file";
static Caller in_file, compiled;
static char map_path[64];

static void write_at(int file, const void *bytes, size_t size, off_t place) {
    if (pwrite(file, bytes, size, place) != (ssize_t)size)
        abort();
}

static void write_names(int file) {
    static char names[SYMBOLS - NAMES];
    memset(names, 'n', sizeof names);
    for (size_t end = 4000; end < sizeof names; end += 4000)
        names[end] = 0;
    names[0] = names[sizeof names - 1] = 0;
    memcpy(names + 1, first_name, sizeof first_name);
    write_at(file, names, sizeof names, NAMES);
}

static void write_symbols(int file) {
    static Elf64_Sym piece[4096];
    for (uint32_t index = 0; index < COUNT; index++) {
        Elf64_Sym symbol = {0};
        symbol.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
        symbol.st_shndx = 1;
        symbol.st_name = index ? sizeof first_name + 1 + index % 60000 : 1;
        /* All but the first end before the code that is called. */
        symbol.st_value = index ? CODE + 1 + index % (FUNCTION - 1) : CODE;
        symbol.st_size = index ? 1 : 0x1000;
        piece[index % 4096] = symbol;
        if (index % 4096 == 4095)
            write_at(file, piece, sizeof piece, SYMBOLS + (off_t)(index - 4095) * (off_t)sizeof symbol);
    }
}

static Caller map_file(void) {
    const size_t table = (size_t)COUNT * sizeof(Elf64_Sym);
    int file = memfd_create("hostile", 0);
    if (file < 0)
        abort();
    Elf64_Ehdr header = {
        .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_DYN, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
        .e_phoff = sizeof header, .e_shoff = SYMBOLS + table, .e_ehsize = sizeof header,
        .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1, .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 5, .e_shstrndx = 2};
    Elf64_Phdr segment = {.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_offset = CODE,
                          .p_vaddr = CODE, .p_filesz = 0x1000, .p_memsz = 0x1000};
    Elf64_Shdr sections[5] = {
        {0},
        {.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_EXECINSTR, .sh_addr = CODE,
         .sh_offset = CODE, .sh_size = 0x1000},
        {.sh_type = SHT_STRTAB, .sh_offset = NAMES, .sh_size = SYMBOLS - NAMES},
        {.sh_type = SHT_SYMTAB, .sh_offset = SYMBOLS, .sh_size = table, .sh_link = 2, .sh_entsize = 24},
        {.sh_type = SHT_DYNSYM, .sh_offset = SYMBOLS, .sh_size = table, .sh_link = 2, .sh_entsize = 24}};
    write_at(file, &header, sizeof header, 0);
    write_at(file, &segment, sizeof segment, sizeof header);
    write_at(file, code, sizeof code, CODE + FUNCTION);
    write_names(file);
    write_symbols(file);
    write_at(file, sections, sizeof sections, (off_t)(SYMBOLS + table));
    uint8_t *page = mmap(NULL, 0x1000, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, CODE);
    if (page == MAP_FAILED)
        abort();
    close(file);
    return (Caller)(uintptr_t)(page + FUNCTION);
}

static Caller compile(void) {
    uint8_t *page = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        abort();
    memcpy(page, code, sizeof code);
    snprintf(map_path, sizeof map_path, "/tmp/perf-%d.map", getpid());
    FILE *map = fopen(map_path, "w");
    if (!map)
        abort();
    unsigned long start = (unsigned long)(uintptr_t)page - (1UL << 30);
    fprintf(map, "%lx %lx ", start, 1UL << 31);
    for (int letter = 0; letter < 1 << 20; letter++)
        fputc('x', map);
    fputc('\n', map);
    for (unsigned long piece = 1; piece <= 25000; piece++)
        fprintf(map, "%lx 1 y\n", start + 16 * piece);
    fclose(map);
    return (Caller)(uintptr_t)page;
}

SITE static void leak_through_file(void) { opaque(malloc(any(701))); }
SITE static void leak_through_compiled(void) { opaque(malloc(any(709))); }

SITE static void run_hostile(void) {
    for (int index = 0; index < 9; index++) {
        in_file(leak_through_file);
        compiled(leak_through_compiled);
    }
    truth(first_name, 701, 9, 0);
    truth("leak_through_compiled", 709, 9, 0);
}

static const Command commands[] = {COMMAND(run_hostile), {NULL, NULL}};

int main(int count, char **arguments) {
    in_file = map_file();
    compiled = compile();
    int result = serve(count, arguments, commands);
    unlink(map_path);
    return result;
}
