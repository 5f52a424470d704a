//! What instructions do to the stack, to the registers that functions keep, and to the flow.

use std::ops::Range;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};

use super::code::Code;

/// Bytes of a stub of the procedure linkage table.
const STUB: u64 = 16;

/// A register that the CFA may count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Sp,
    Bp,
}

/// What an instruction does, as far as it matters.
#[derive(Debug, Clone, Copy)]
pub enum Effect {
    /// rsp grows by this.
    Move(i32),
    /// A register is put on the stack, or anything else.
    Push(Option<Held>),
    Pop(Option<Held>),
    /// A register is read from memory or written there: so many bytes from another.
    Load(Held, From, i32),
    Store(Held, From, i32),
    /// rsp becomes rbp and this, or rbp rsp and this.
    SpFromBp(i32),
    BpFromSp(i32),
    Leave,
    /// A register gets a value of another kind.
    Write(Register),
    /// Of what, bytes from the start of the code; `None` if that is not in the code.
    Call(Option<i32>),
    Return,
    /// Where it may go to: bytes from the start of the code, until that is resolved.
    Branch(u32),
    Jump(u32),
    /// It goes on nobody knows where.
    Vanish,
    /// It does not go on.
    Stop,
}

/// A register that functions keep for their callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    Bp,
    Bx,
}

impl Effect {
    /// Whether it is a call.
    pub const fn is_call(self) -> bool {
        matches!(self, Self::Call(_))
    }

    /// Whether it gives back a part of the stack.
    pub const fn gives_back(self) -> bool {
        matches!(self, Self::Pop(_) | Self::Leave | Self::Move(1..))
    }
}

/// What an instruction does to the stack, to registers that are kept, and to the flow; `None` if
/// nothing.
pub fn effect(
    info: &mut InstructionInfoFactory,
    instruction: &Instruction,
    range: &Range<u64>,
) -> Option<Effect> {
    if instruction.is_invalid() {
        return Some(Effect::Stop);
    }
    match instruction.flow_control() {
        _ if instruction.mnemonic() == Mnemonic::Syscall => None,
        _ if instruction.mnemonic() == Mnemonic::Hlt => Some(Effect::Stop),
        FlowControl::Next => on_stack(info, instruction),
        FlowControl::Call | FlowControl::IndirectCall => {
            let target = instruction.near_branch_target();
            let is_near = instruction.is_call_near();
            // The address of the next instruction is popped there.
            if is_near && target == instruction.next_ip() {
                return Some(Effect::Vanish);
            }
            let offset = i32::try_from(target.wrapping_sub(range.start).cast_signed());
            Some(Effect::Call(offset.ok().filter(|_| is_near)))
        }
        // Through a word of the program's own: a function of another file.
        FlowControl::IndirectBranch if instruction.is_ip_rel_memory_operand() => {
            Some(Effect::Return)
        }
        FlowControl::IndirectBranch => Some(Effect::Vanish),
        FlowControl::Return => Some(match instruction.mnemonic() {
            Mnemonic::Ret => Effect::Return,
            _ => Effect::Vanish,
        }),
        FlowControl::ConditionalBranch => {
            Some(target(instruction, range).map_or_else(|| Effect::Move(0), Effect::Branch))
        }
        FlowControl::UnconditionalBranch => {
            Some(target(instruction, range).map_or(Effect::Vanish, Effect::Jump))
        }
        _ => Some(Effect::Stop),
    }
}

/// Where a branch goes to within the code that is looked at.
fn target(instruction: &Instruction, range: &Range<u64>) -> Option<u32> {
    let target = instruction.near_branch_target();
    let offset = target.checked_sub(range.start)?;
    (target < range.end).then(|| u32::try_from(offset).ok())?
}

/// Where a function begins if an instruction calls it, or takes its address.
pub fn start_in(instruction: &Instruction, range: &Range<u64>) -> Option<u32> {
    let target = match instruction.mnemonic() {
        Mnemonic::Call if instruction.is_call_near() => instruction.near_branch_target(),
        Mnemonic::Lea if instruction.is_ip_rel_memory_operand() => {
            instruction.ip_rel_memory_address()
        }
        _ => return None,
    };
    let offset = target.checked_sub(range.start)?;
    (target < range.end).then(|| u32::try_from(offset).ok())?
}

/// Whether it is what assemblers put between functions.
pub fn is_padding(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
}

/// Whether it is a jump that is told where to.
pub fn is_jump(instruction: &Instruction) -> bool {
    instruction.flow_control() == FlowControl::UnconditionalBranch
        && instruction.op0_kind() == OpKind::NearBranch64
}

/// Whether there is a stub of the procedure linkage table.
pub fn is_stub(code: &mut Code, address: u64) -> bool {
    let Some(bytes) = address
        .checked_add(STUB)
        .and_then(|end| code.bytes(address..end))
    else {
        return false;
    };
    let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    let mut instruction = decoder.decode();
    if instruction.mnemonic() == Mnemonic::Endbr64 {
        instruction = decoder.decode();
    }
    instruction.flow_control() == FlowControl::IndirectBranch
        && instruction.is_ip_rel_memory_operand()
}

fn on_stack(info: &mut InstructionInfoFactory, instruction: &Instruction) -> Option<Effect> {
    let (to, source) = (instruction.op0_register(), instruction.op1_register());
    let is = |kind0, kind1| instruction.op0_kind() == kind0 && instruction.op1_kind() == kind1;
    match instruction.mnemonic() {
        Mnemonic::Push if instruction.stack_pointer_increment() == -8 => {
            return Some(Effect::Push(held(to)));
        }
        Mnemonic::Pop if instruction.stack_pointer_increment() == 8 && to != Register::RSP => {
            return Some(Effect::Pop(held(to)));
        }
        Mnemonic::Leave => return Some(Effect::Leave),
        Mnemonic::Add | Mnemonic::Sub if to == Register::RSP => {
            let by = immediate(instruction).and_then(|by| i32::try_from(by).ok());
            return Some(match (by, instruction.mnemonic()) {
                (Some(by), Mnemonic::Add) => Effect::Move(by),
                (Some(by), _) => Effect::Move(by.checked_neg()?),
                (None, _) => Effect::Write(Register::RSP),
            });
        }
        Mnemonic::Mov if to == Register::RSP && source == Register::RBP => {
            return Some(Effect::SpFromBp(0));
        }
        Mnemonic::Mov if to == Register::RBP && source == Register::RSP => {
            return Some(Effect::BpFromSp(0));
        }
        Mnemonic::Lea => match (to, at(instruction)) {
            (Register::RSP, Some((From::Sp, by))) => return Some(Effect::Move(by)),
            (Register::RSP, Some((From::Bp, by))) => return Some(Effect::SpFromBp(by)),
            (Register::RBP, Some((From::Sp, by))) => return Some(Effect::BpFromSp(by)),
            _ => {}
        },
        Mnemonic::Mov if is(OpKind::Register, OpKind::Memory) => {
            if let (Some(register), Some((from, at))) = (held(to), at(instruction)) {
                return Some(Effect::Load(register, from, at));
            }
        }
        Mnemonic::Mov if is(OpKind::Memory, OpKind::Register) => {
            if let (Some(register), Some((from, at))) = (held(source), at(instruction)) {
                return Some(Effect::Store(register, from, at));
            }
        }
        _ => {}
    }
    [Register::RSP, Register::RBP, Register::RBX]
        .into_iter()
        .find(|register| writes(info, instruction, *register))
        .map(Effect::Write)
}

const fn held(register: Register) -> Option<Held> {
    match register {
        Register::RBP => Some(Held::Bp),
        Register::RBX => Some(Held::Bx),
        _ => None,
    }
}

/// The memory that an instruction means, if it is some bytes from rsp or rbp.
fn at(instruction: &Instruction) -> Option<(From, i32)> {
    let from = match instruction.memory_base() {
        Register::RSP => From::Sp,
        Register::RBP => From::Bp,
        _ => return None,
    };
    let is_plain = instruction.memory_index() == Register::None
        && instruction.segment_prefix() == Register::None;
    let by = instruction.memory_displacement64().cast_signed();
    is_plain.then(|| Some((from, i32::try_from(by).ok()?)))?
}

fn immediate(instruction: &Instruction) -> Option<i64> {
    let kinds = [OpKind::Immediate8to64, OpKind::Immediate32to64];
    kinds
        .contains(&instruction.op1_kind())
        .then(|| instruction.immediate(1).cast_signed())
}

pub fn writes(
    info: &mut InstructionInfoFactory,
    instruction: &Instruction,
    register: Register,
) -> bool {
    let used = info.info(instruction).used_registers();
    used.iter().any(|used| {
        used.register().full_register() == register
            && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead)
    })
}
