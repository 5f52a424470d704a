//! Where a hook's jump leads.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};

/// Instructions of a hook or a trampoline that are followed, at most.
const MAX_STEPS: usize = 64;

/// Registers by number, and what was pushed: known values only.
#[derive(Default)]
struct State {
    registers: [Option<u64>; 16],
    stack: Vec<Option<u64>>,
}

/// Where code leads that begins at `address`: the target of the first jump or
/// call on the straight way, in any of the forms that hooks have (`jmp rel`,
/// `jmp [rip+d]`, `mov r,imm; jmp r`, `push imm; ret`, with the upper half
/// moved to the stack or not). `read` gives words of memory.
pub fn leads_to(code: &[u8], address: u64, read: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let mut state = State::default();
    let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    for instruction in decoder.into_iter().take(MAX_STEPS) {
        if instruction.is_invalid() {
            return None;
        }
        match instruction.flow_control() {
            FlowControl::Next => state.follow(&instruction, &read),
            FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Call
            | FlowControl::IndirectCall => return state.target(&instruction, &read),
            FlowControl::Return => return state.stack.pop().flatten(),
            _ => return None,
        }
    }
    None
}

impl State {
    fn follow(&mut self, instruction: &Instruction, read: &dyn Fn(u64) -> Option<u64>) {
        match instruction.code() {
            Code::Pushq_imm8 => self.stack.push(immediate(instruction)),
            Code::Pushq_imm32 => self.stack.push(immediate(instruction)),
            Code::Push_r64 | Code::Push_rm64 => {
                let value = self.value(instruction, 0, read);
                self.stack.push(value);
            }
            Code::Mov_rm32_imm32 if is_upper_half_of_top(instruction) => {
                if let Some(Some(top)) = self.stack.last_mut() {
                    let upper = u64::from(instruction.immediate32()) << 32;
                    *top = *top & 0xffff_ffff | upper;
                }
            }
            Code::Mov_r64_imm64
            | Code::Mov_r32_imm32
            | Code::Mov_rm64_imm32
            | Code::Mov_r64_rm64
            | Code::Lea_r64_m => {
                let value = match instruction.code() {
                    Code::Lea_r64_m => relative(instruction),
                    _ => self.value(instruction, 1, read),
                };
                self.set(instruction.op0_register(), value);
            }
            // Whatever else it writes, if it is a register, is not known.
            _ if instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Register => {
                self.set(instruction.op0_register(), None);
            }
            _ => {}
        }
    }

    fn target(&self, instruction: &Instruction, read: &dyn Fn(u64) -> Option<u64>) -> Option<u64> {
        match instruction.op0_kind() {
            OpKind::NearBranch64 => Some(instruction.near_branch_target()),
            _ => self.value(instruction, 0, read),
        }
    }

    /// What an operand is.
    fn value(
        &self,
        instruction: &Instruction,
        operand: u32,
        read: &dyn Fn(u64) -> Option<u64>,
    ) -> Option<u64> {
        match instruction.op_kind(operand) {
            OpKind::Register => {
                let number = number(instruction.op_register(operand))?;
                self.registers[number]
            }
            OpKind::Memory => read(relative(instruction)?),
            _ => immediate(instruction),
        }
    }

    fn set(&mut self, register: Register, value: Option<u64>) {
        if let Some(number) = number(register) {
            self.registers[number] = value;
        }
    }
}

/// The number of a general register, whatever part of it is named.
fn number(register: Register) -> Option<usize> {
    let is_general = register.is_gpr();
    is_general.then(|| register.full_register().number())
}

fn immediate(instruction: &Instruction) -> Option<u64> {
    let last = instruction.op_count().checked_sub(1)?;
    instruction.try_immediate(last).ok()
}

/// The address of an operand that is relative to the instruction, or absolute.
fn relative(instruction: &Instruction) -> Option<u64> {
    let is_plain = instruction.memory_base() == Register::None
        && instruction.memory_index() == Register::None
        && instruction.segment_prefix() == Register::None;
    (instruction.is_ip_rel_memory_operand() || is_plain)
        .then(|| instruction.memory_displacement64())
}

fn is_upper_half_of_top(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::Memory
        && instruction.memory_base() == Register::RSP
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64() == 4
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x7f00_0000_1000;

    fn target(code: &[u8]) -> Option<u64> {
        leads_to(code, AT, |address| (address == AT + 6).then_some(0x1122))
    }

    #[test]
    fn relative_jumps() {
        assert_eq!(target(&[0xe9, 0xfb, 0x0f, 0, 0]), Some(AT + 0x1000));
        assert_eq!(
            target(&[0xe9, 0xd3, 0x4c, 0xd0, 0xfe, 0x66]),
            Some(AT - 0x12f_b328)
        );
        assert_eq!(target(&[0xeb, 0xfe]), Some(AT));
        // endbr64; nop; jmp
        let landing = [0xf3, 0x0f, 0x1e, 0xfa, 0x90, 0xe9, 0x00, 0x01, 0, 0];
        assert_eq!(target(&landing), Some(AT + 0x10a));
        // call, as fentry's
        assert_eq!(target(&[0xe8, 0xfb, 0x0f, 0, 0]), Some(AT + 0x1000));
    }

    #[test]
    fn jumps_through_memory() {
        // jmp [rip+0]: the address follows.
        assert_eq!(target(&[0xff, 0x25, 0, 0, 0, 0]), Some(0x1122));
        assert_eq!(target(&[0xff, 0x25, 1, 0, 0, 0]), None);
    }

    #[test]
    fn jumps_through_registers() {
        // movabs $0x1122334455667788,%rax; jmp *%rax
        let movabs = [
            0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xff, 0xe0,
        ];
        assert_eq!(target(&movabs), Some(0x1122_3344_5566_7788));
        // movabs …,%r11; jmp *%r11
        let extended = [
            0x49, 0xbb, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x41, 0xff, 0xe3,
        ];
        assert_eq!(target(&extended), Some(0x1122_3344_5566_7788));
        // mov $0x12345678,%eax; jmp *%rax
        assert_eq!(
            target(&[0xb8, 0x78, 0x56, 0x34, 0x12, 0xff, 0xe0]),
            Some(0x1234_5678)
        );
        // xor %eax,%eax; jmp *%rax: not followed
        assert_eq!(target(&[0x31, 0xc0, 0xff, 0xe0]), None);
        // jmp *%rdi
        assert_eq!(target(&[0xff, 0xe7]), None);
    }

    #[test]
    fn pushed_addresses() {
        // push $0x12345678; ret
        assert_eq!(
            target(&[0x68, 0x78, 0x56, 0x34, 0x12, 0xc3]),
            Some(0x1234_5678)
        );
        // push $0x55667788; movl $0x11223344,4(%rsp); ret
        let halves = [
            0x68, 0x88, 0x77, 0x66, 0x55, 0xc7, 0x44, 0x24, 0x04, 0x44, 0x33, 0x22, 0x11, 0xc3,
        ];
        assert_eq!(target(&halves), Some(0x1122_3344_5566_7788));
        // movabs …,%rax; push %rax; ret
        let pushed = [
            0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x50, 0xc3,
        ];
        assert_eq!(target(&pushed), Some(0x1122_3344_5566_7788));
        assert_eq!(target(&[0xc3]), None);
    }

    #[test]
    fn what_is_no_jump_leads_nowhere() {
        assert_eq!(target(&[]), None);
        assert_eq!(target(&[0x06]), None);
        assert_eq!(target(&[0x90; 64]), None);
        assert_eq!(target(&[0x74, 0x10, 0xe9, 0, 0, 0, 0]), None);
        for seed in 0..=255u8 {
            let bytes: Vec<u8> = (0..64)
                .map(|i: u8| i.wrapping_mul(41).wrapping_add(seed))
                .collect();
            let _ = target(&bytes);
        }
    }
}
