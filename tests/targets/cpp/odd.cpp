// flags: -O2 -fomit-frame-pointer -Wno-format-truncation
/* Stacks and frames as no compiler makes them: coroutines, hand-written
 * assembly, code made at run time, faults. */
#include "../c/target.h"
#include <csignal>
#include <cstdint>
#include <sys/mman.h>
#include <ucontext.h>

/* A block that is freed at once: a command can be run any number of times. */
#define BLOCK(size) free(opaque(malloc(size)))

extern "C" __attribute__((noipa, used)) void allocate(std::size_t size) { BLOCK(size); }

/* --- coroutines --- */

static ucontext_t outside, inside;

SITE static void below(int depth, std::size_t size) {
    volatile int kept[40] = {depth}; /* a frame of a size of its own */
    BLOCK(size);
    if (depth)
        below(depth - 1, size);
    swapcontext(&inside, &outside);
    BLOCK(size + 4);
    kept[1] = kept[0];
}

static void coroutine() { below(3, 1303); }

/* Starts it, and goes on in it until it is at its end. */
SITE static void coroutines() {
    static char stack[1 << 16];
    getcontext(&inside);
    inside.uc_stack.ss_sp = stack;
    inside.uc_stack.ss_size = sizeof stack;
    inside.uc_link = &outside;
    makecontext(&inside, coroutine, 0);
    for (int round = 0; round < 5; round++)
        swapcontext(&outside, &inside);
}

/* --- assembly --- */

/* Each calls allocate(size). */
extern "C" {
void asm_pushes(std::size_t size);
void asm_rbx(std::size_t size);
void asm_r12(std::size_t size);
void asm_busy_rbp(std::size_t size);
void asm_two_exits(std::size_t size);
void asm_expression(std::size_t size);
void asm_jumps(std::size_t size);
void asm_faults(void);
}

__asm__(R"(
    .text
    .type asm_pushes, @function
asm_pushes:                     # each push moves the frame's base
    .cfi_startproc
    push %rdi
    .cfi_adjust_cfa_offset 8
    push $7
    .cfi_adjust_cfa_offset 8
    push $8
    .cfi_adjust_cfa_offset 8
    call allocate
    add $16, %rsp
    .cfi_adjust_cfa_offset -16
    pop %rdi
    .cfi_adjust_cfa_offset -8
    sub $8, %rsp
    .cfi_adjust_cfa_offset 8
    call allocate
    add $8, %rsp
    .cfi_adjust_cfa_offset -8
    ret
    .cfi_endproc
    .size asm_pushes, . - asm_pushes

    .type asm_rbx, @function
asm_rbx:                        # the base is in rbx
    .cfi_startproc
    push %rbx
    .cfi_def_cfa_offset 16
    .cfi_offset %rbx, -16
    mov %rsp, %rbx
    .cfi_def_cfa_register %rbx
    sub $200, %rsp
    and $-64, %rsp
    call allocate
    mov %rbx, %rsp
    .cfi_def_cfa_register %rsp
    pop %rbx
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
    .size asm_rbx, . - asm_rbx

    .type asm_r12, @function
asm_r12:                        # the base is in r12
    .cfi_startproc
    push %r12
    .cfi_def_cfa_offset 16
    .cfi_offset %r12, -16
    lea 16(%rsp), %r12
    .cfi_def_cfa %r12, 0
    sub $104, %rsp
    and $-32, %rsp
    call allocate
    lea -16(%r12), %rsp
    .cfi_def_cfa %rsp, 16
    pop %r12
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
    .size asm_r12, . - asm_r12

    .type asm_busy_rbp, @function
asm_busy_rbp:                   # rbp is saved, and then looks like a frame
    .cfi_startproc
    sub $40, %rsp
    .cfi_def_cfa_offset 48
    mov %rbp, 24(%rsp)
    .cfi_offset %rbp, -24
    lea 8(%rsp), %rbp
    movq $0, (%rbp)
    lea allocate(%rip), %rax
    mov %rax, 8(%rbp)
    call allocate
    mov 24(%rsp), %rbp
    .cfi_restore %rbp
    add $40, %rsp
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
    .size asm_busy_rbp, . - asm_busy_rbp

    .type asm_two_exits, @function
asm_two_exits:                  # what is behind the first return is as before it
    .cfi_startproc
    push %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    mov %rsp, %rbp
    .cfi_def_cfa_register %rbp
    cmp $0, %rdi
    jne 1f
    .cfi_remember_state
    pop %rbp
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_restore_state
1:  call allocate
    pop %rbp
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size asm_two_exits, . - asm_two_exits

    .type asm_expression, @function
asm_expression:                 # the base is in memory: DW_OP_breg7 0, deref, plus_uconst 16
    .cfi_startproc
    lea -8(%rsp), %rax
    sub $88, %rsp
    .cfi_def_cfa_offset 96
    and $-64, %rsp
    push %rax
    push %rax
    .cfi_escape 0x0f, 0x05, 0x77, 0x00, 0x06, 0x23, 0x10
    call allocate
    pop %rax
    pop %rax
    lea 8(%rax), %rsp
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size asm_expression, . - asm_expression

    .type asm_jumps, @function
asm_jumps:                      # a tail call: no frame of its own
    .cfi_startproc
    add $2, %rdi
    jmp allocate
    .cfi_endproc
    .size asm_jumps, . - asm_jumps

    .type asm_faults, @function
asm_faults:                     # its first instruction faults; what is before is not its row
    .cfi_startproc
    ud2
    ret
    .cfi_endproc
    .size asm_faults, . - asm_faults
)");

SITE static void assembly() {
    asm_pushes(1307);
    asm_rbx(1319);
    asm_r12(1321);
    asm_busy_rbp(1327);
    asm_two_exits(1361);
    asm_jumps(1367 - 2);
}

/* Correct, and rarer than any compiler's output. */
SITE static void assembly_with_expressions() { asm_expression(1373); }

/* --- faults --- */

/* Steps over the two bytes of ud2. */
static void on_fault(int, siginfo_t *, void *context) {
    BLOCK(1381);
    static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP] += 2;
}

SITE static void fault_at_an_entry() {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    if (sigaction(SIGILL, &action, nullptr))
        abort();
    asm_faults();
}

/* --- code made at run time, without tables --- */

typedef void (*Allocating)(std::size_t size);

static Allocating make(const uint8_t *code, std::size_t size, std::size_t function_at) {
    static uint8_t *page;
    static std::size_t used;
    if (!page)
        page = static_cast<uint8_t *>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    uint8_t *start = page + used;
    memcpy(start, code, size);
    Allocating function = allocate;
    memcpy(start + function_at, &function, sizeof function);
    used += 64;
    return reinterpret_cast<Allocating>(start);
}

/* push rbp; mov rbp, rsp; mov rax, allocate; call rax; pop rbp; ret */
static Allocating with_frame_pointer() {
    static const uint8_t code[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd0, 0x5d, 0xc3};
    static const Allocating function = make(code, sizeof code, 6);
    return function;
}

/* push rbp; push 0x1234; pop rbp; sub rsp, 16; mov rax, allocate; call rax;
 * add rsp, 16; pop rbp; ret. A frame pointer that is none. */
static Allocating without_frame_pointer() {
    static const uint8_t code[] = {0x55, 0x68, 0x34, 0x12, 0,    0,    0x5d, 0x48, 0x83, 0xec, 0x10, 0x48, 0xb8, 0, 0, 0,
                                   0,    0,    0,    0,    0,    0xff, 0xd0, 0x48, 0x83, 0xc4, 0x10, 0x5d, 0xc3};
    static const Allocating function = make(code, sizeof code, 13);
    return function;
}

/* One call instruction for both: the frames around the page's are those that
 * gdb finds around allocate_plain's. */
SITE static void call(Allocating const *functions, std::size_t const *sizes, int count) {
    for (int index = 0; index < count; index++)
        functions[index](sizes[index]);
}

SITE static void allocate_plain(std::size_t size) { allocate(size); opaque(nullptr); }

SITE static void generated_with_frame_pointers() {
    const Allocating functions[] = {allocate_plain, with_frame_pointer()};
    const std::size_t sizes[] = {1399, 1409};
    call(functions, sizes, 2);
}

SITE static void generated_without_frame_pointers() {
    const Allocating functions[] = {allocate_plain, without_frame_pointer()};
    const std::size_t sizes[] = {1423, 1427};
    call(functions, sizes, 2);
}

static const Command commands[] = {
    COMMAND(coroutines),
    COMMAND(assembly),
    COMMAND(assembly_with_expressions),
    COMMAND(fault_at_an_entry),
    COMMAND(generated_with_frame_pointers),
    COMMAND(generated_without_frame_pointers),
    {NULL, NULL},
};

int main(int count, char **arguments) { return serve(count, arguments, commands); }
