//! Where in a function a probe is cheap.
//!
//! The kernel emulates a few instructions under a uprobe (pushes, relative
//! jumps and calls, the one-byte nop; `arch/x86/kernel/uprobes.c`) and
//! single-steps every other one out of line, which takes a second trap: in a
//! virtual machine twenty times the cost. So a probe goes to the first
//! emulated instruction of the entry block, as long as everything before it
//! leaves the arguments, the stack and the callee-saved registers as they
//! were, and no branch leads back into that stretch.

use std::fmt;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess,
    OpKind, Register,
};

/// Instructions looked at, at most: an entry block's start is short.
const MAX_STEPS: usize = 16;

/// Bytes of a function that are searched for branches, at most.
const MAX_FUNCTION: usize = 16 * 1024;

/// A place for a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Bytes from the function's first instruction.
    pub displacement: u64,
    /// What the kernel does with the instruction there.
    pub step: Step,
    /// The instruction there.
    pub instruction: String,
}

/// How the kernel gets past the probed instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It emulates it: one trap.
    Emulated,
    /// It single-steps it out of line: two traps.
    OutOfLine,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Emulated => "emulated",
            Step::OutOfLine => "single-stepped",
        };
        write!(f, "{} ({step})", self.instruction)
    }
}

/// Chooses the place in a function, given its machine code from the first
/// instruction on. Falls back to the first instruction.
pub fn place(code: &[u8]) -> Placement {
    let code = &code[..code.len().min(MAX_FUNCTION)];
    let mut info = InstructionInfoFactory::new();
    for instruction in decode(code).take(MAX_STEPS) {
        if is_emulated(&instruction) {
            if is_jumped_into(code, instruction.ip()) {
                break;
            }
            return at(&instruction, Step::Emulated);
        }
        if !is_harmless(&instruction, &mut info) {
            break;
        }
    }
    let first = decode(code).next().unwrap_or_default();
    let step = if is_emulated(&first) {
        Step::Emulated
    } else {
        Step::OutOfLine
    };
    at(&first, step)
}

/// Decodes from address 0; ends at the first undecodable byte.
fn decode(code: &[u8]) -> impl Iterator<Item = Instruction> {
    Decoder::with_ip(64, code, 0, DecoderOptions::NONE)
        .into_iter()
        .take_while(|i| !i.is_invalid())
}

fn at(instruction: &Instruction, step: Step) -> Placement {
    Placement {
        displacement: instruction.ip(),
        step,
        instruction: format!("{:?}", instruction.mnemonic()).to_lowercase(),
    }
}

/// Whether the kernel emulates the instruction. Operand-size prefixes make it
/// refuse, and a jump through a register or memory is not relative.
fn is_emulated(instruction: &Instruction) -> bool {
    match instruction.code() {
        Code::Push_r64 | Code::Nopw | Code::Nopd | Code::Nopq => true,
        Code::Jmp_rel8_64 | Code::Jmp_rel32_64 | Code::Call_rel32_64 => true,
        _ => instruction.is_jcc_short_or_near(),
    }
}

/// Whether a probe may stand behind the instruction instead of before it: it
/// goes straight on, writes no memory, and of the registers only scratch ones
/// that carry no argument.
fn is_harmless(instruction: &Instruction, info: &mut InstructionInfoFactory) -> bool {
    if instruction.flow_control() != FlowControl::Next || instruction.is_privileged() {
        return false;
    }
    if matches!(
        instruction.code(),
        Code::Syscall | Code::Sysenter | Code::Cpuid | Code::Xgetbv
    ) {
        return false;
    }
    let info = info.info(instruction);
    let writes = |access| {
        !matches!(
            access,
            OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
        )
    };
    info.used_memory().iter().all(|m| !writes(m.access()))
        && info
            .used_registers()
            .iter()
            .all(|r| !writes(r.access()) || is_scratch(r.register()))
}

/// Registers that hold neither an argument nor a caller's value at entry.
fn is_scratch(register: Register) -> bool {
    if register.is_vector_register() || register.is_k() {
        return true;
    }
    matches!(
        register.full_register(),
        Register::RAX | Register::R10 | Register::R11
    )
}

/// Whether any branch of the function leads behind its first instruction and
/// not past `place`, so that the probe would be hit more than once a call, or
/// not at all.
fn is_jumped_into(code: &[u8], place: u64) -> bool {
    place > 0
        && decode(code).any(|instruction| {
            instruction.op0_kind() == OpKind::NearBranch64
                && (1..=place).contains(&instruction.near_branch_target())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debian 12, glibc 2.36: `push %rbp; push %rbx; sub $8,%rsp; …`
    const MALLOC_DEBIAN: &[u8] = &[0x55, 0x53, 0x48, 0x83, 0xec, 0x08];
    /// Debian 12, glibc 2.36: `test %rdi,%rdi; je +0xb0; push %rbp`
    const FREE_DEBIAN: &[u8] = &[
        0x48, 0x85, 0xff, 0x0f, 0x84, 0xb0, 0x00, 0x00, 0x00, 0x55, 0x48, 0x89, 0xe5,
    ];
    /// Ubuntu 22.04, glibc 2.35 with CET: `endbr64; test %rdi,%rdi; je; push %rbp`
    const FREE_UBUNTU: &[u8] = &[
        0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x85, 0xff, 0x0f, 0x84, 0xbb, 0x00, 0x00, 0x00, 0x55,
    ];
    /// Ubuntu 22.04 with CET: `endbr64; push %r12`
    const MALLOC_UBUNTU: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x54, 0x55];
    /// glibc's `munmap`: `mov $0xb,%eax; syscall; cmp $-4095,%rax; jae; ret`
    const MUNMAP: &[u8] = &[
        0xb8, 0x0b, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, 0x73, 0x01,
        0xc3,
    ];
    /// musl's `malloc` thunk: `jmp`
    const MALLOC_MUSL: &[u8] = &[0xe9, 0x10, 0x00, 0x00, 0x00];
    /// jemalloc's `malloc`: `push %rbp; mov %rsp,%rbp`
    const MALLOC_JEMALLOC: &[u8] = &[0x55, 0x48, 0x89, 0xe5];
    /// jemalloc's `free`: `test %rdi,%rdi; je; mov %fs:…,%rax`
    const FREE_JEMALLOC: &[u8] = &[
        0x48, 0x85, 0xff, 0x74, 0x20, 0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0,
    ];
    /// `sub $0x18,%rsp; push %rbx`: the stack moved before the push
    const MOVES_STACK: &[u8] = &[0x48, 0x83, 0xec, 0x18, 0x53];
    /// `mov %rdi,%rax; mov %rsi,%rdi; push %rbx`: an argument is gone
    const MOVES_ARGUMENT: &[u8] = &[0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x53];
    /// `mov %fs:0x10,%rax; test %rax,%rax; jne; …` as tcmalloc's `free` does
    const FREE_TCMALLOC: &[u8] = &[
        0x64, 0x48, 0x8b, 0x04, 0x25, 0x10, 0, 0, 0, 0x48, 0x85, 0xc0, 0x75, 0x05,
    ];

    fn displacement(code: &[u8]) -> (u64, Step) {
        let placement = place(code);
        (placement.displacement, placement.step)
    }

    #[test]
    fn an_emulated_first_instruction_stays() {
        assert_eq!(displacement(MALLOC_DEBIAN), (0, Step::Emulated));
        assert_eq!(displacement(MALLOC_MUSL), (0, Step::Emulated));
        assert_eq!(displacement(MALLOC_JEMALLOC), (0, Step::Emulated));
    }

    #[test]
    fn tests_and_landing_pads_are_stepped_over() {
        assert_eq!(displacement(FREE_DEBIAN), (3, Step::Emulated));
        assert_eq!(displacement(FREE_UBUNTU), (7, Step::Emulated));
        assert_eq!(displacement(MALLOC_UBUNTU), (4, Step::Emulated));
        assert_eq!(displacement(FREE_JEMALLOC), (3, Step::Emulated));
        assert_eq!(displacement(FREE_TCMALLOC), (12, Step::Emulated));
    }

    #[test]
    fn a_system_call_is_never_stepped_over() {
        assert_eq!(displacement(MUNMAP), (0, Step::OutOfLine));
    }

    #[test]
    fn a_moved_stack_or_argument_falls_back_to_the_start() {
        assert_eq!(displacement(MOVES_STACK), (0, Step::OutOfLine));
        assert_eq!(displacement(MOVES_ARGUMENT), (0, Step::OutOfLine));
    }

    #[test]
    fn a_loop_back_into_the_entry_block_falls_back_to_the_start() {
        // test %rdi,%rdi; L: je +2; push %rbx; pop %rbx; jmp L
        let code = [0x48, 0x85, 0xff, 0x74, 0x02, 0x53, 0x5b, 0xeb, 0xfa];
        assert_eq!(displacement(&code), (0, Step::OutOfLine));
    }

    #[test]
    fn a_store_before_the_push_falls_back_to_the_start() {
        // mov %rax,(%rdi); push %rbx
        assert_eq!(
            displacement(&[0x48, 0x89, 0x07, 0x53]),
            (0, Step::OutOfLine)
        );
    }

    #[test]
    fn garbage_and_nothing_stay_at_the_start() {
        assert_eq!(displacement(&[]).0, 0);
        assert_eq!(displacement(&[0x06, 0x07, 0xff]).0, 0);
        for seed in 0..=255u8 {
            let bytes: Vec<u8> = (0..64)
                .map(|i: u8| i.wrapping_mul(37).wrapping_add(seed))
                .collect();
            assert!(place(&bytes).displacement < 64);
        }
    }
}
