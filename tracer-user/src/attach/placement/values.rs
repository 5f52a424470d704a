//! What registers and stack hold at an instruction of a function, as far as it
//! follows from the instructions before: arguments, the caller's registers,
//! addresses in the function's own frame.

use std::collections::BTreeMap;

use iced_x86::{
    Code, FlowControl, Instruction, InstructionInfoFactory, MemorySize, OpAccess, OpKind, Register,
    UsedMemory,
};

/// Bytes below the stack pointer that a signal handler leaves alone (System V
/// ABI for x86-64, 3.2.2).
const RED_ZONE: i64 = 128;

/// Bytes of a frame that are followed, at most.
const LARGEST_FRAME: i64 = 4096;

/// Bytes of a word.
const WORD: i64 = 8;

/// The registers in which arguments are handed over, in order.
pub const ARGUMENTS: [Register; 6] = [
    Register::RDI,
    Register::RSI,
    Register::RDX,
    Register::RCX,
    Register::R8,
    Register::R9,
];

/// What a word holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Anything.
    Unknown,
    /// The argument of this number.
    Argument(usize),
    /// What this register held when the function was entered, which is its
    /// caller's.
    Callers(Register),
    /// An address: the stack pointer at entry and so many bytes.
    Stack(i64),
}

/// What all registers and the function's own frame hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    /// By the registers' numbers.
    registers: [Value; 16],
    /// Words of the frame, by their distance from the stack pointer at entry.
    words: BTreeMap<i64, Value>,
}

impl Values {
    /// Before a function's first instruction.
    pub fn at_entry() -> Self {
        let mut values = Self {
            registers: [Value::Unknown; 16],
            words: BTreeMap::new(),
        };
        for (index, register) in ARGUMENTS.into_iter().enumerate() {
            values.set(register, Value::Argument(index));
        }
        for register in [Register::RBX, Register::RBP] {
            values.set(register, Value::Callers(register));
        }
        values.set(Register::RSP, Value::Stack(0));
        values
    }

    /// What a register of 64 bits holds.
    pub fn register(&self, register: Register) -> Value {
        let known = number(register).and_then(|number| self.registers.get(number));
        known.copied().unwrap_or(Value::Unknown)
    }

    /// How many bytes the stack pointer was moved down; `None` if that is not
    /// known.
    pub fn moved(&self) -> Option<i64> {
        match self.register(Register::RSP) {
            Value::Stack(from_entry) => Some(-from_entry),
            _ => None,
        }
    }

    /// The registers that hold a value, and the words that do, by their
    /// distance from the stack pointer.
    pub fn places(&self, value: Value) -> (Option<Register>, Option<i64>) {
        let registers = [Register::RAX, Register::RBX, Register::RBP]
            .into_iter()
            .chain(ARGUMENTS)
            .chain([Register::R10, Register::R11, Register::R12])
            .chain([Register::R13, Register::R14, Register::R15]);
        let register = registers
            .into_iter()
            .find(|register| self.register(*register) == value);
        let moved = self.moved().unwrap_or(0);
        let mut words = self.words.iter();
        let word = words.find(|(_, held)| **held == value);
        (register, word.map(|(from_entry, _)| from_entry + moved))
    }

    /// Goes past an instruction. `None` if a probe must not stand behind it: it
    /// does not simply go on to the next, or does what others can see, or what
    /// it leaves is not known.
    pub fn pass(
        &mut self,
        instruction: &Instruction,
        info: &mut InstructionInfoFactory,
    ) -> Option<()> {
        if instruction.flow_control() != FlowControl::Next || is_beyond_us(instruction) {
            return None;
        }
        match self.known_effect(instruction) {
            Some(Effect::Register(register, value)) => self.set(register, value),
            Some(Effect::Word(at, value)) => self.store(at, value)?,
            Some(Effect::Push(value)) => {
                let top = -self.moved()? - WORD;
                self.set(Register::RSP, Value::Stack(top));
                self.store(top, value)?;
            }
            Some(Effect::Pop(register)) => {
                let top = -self.moved()?;
                let value = self.words.get(&top).copied().unwrap_or(Value::Unknown);
                self.set(Register::RSP, Value::Stack(top + WORD));
                self.set(register, value);
            }
            None => self.forget(instruction, info)?,
        }
        self.check_stack()
    }

    /// The effect of an instruction that moves values.
    fn known_effect(&self, instruction: &Instruction) -> Option<Effect> {
        let (to, from) = (instruction.op0_register(), instruction.op1_register());
        let is =
            |first, second| instruction.op0_kind() == first && instruction.op1_kind() == second;
        Some(match instruction.code() {
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64 if is(OpKind::Register, OpKind::Register) => {
                Effect::Register(to, self.register(from))
            }
            Code::Mov_r64_rm64 if is(OpKind::Register, OpKind::Memory) => {
                let at = self.own_address(instruction)?;
                let word = self.words.get(&at).copied();
                Effect::Register(to, word.unwrap_or(Value::Unknown))
            }
            Code::Mov_rm64_r64 if is(OpKind::Memory, OpKind::Register) => {
                Effect::Word(self.own_address(instruction)?, self.register(from))
            }
            Code::Push_r64 => Effect::Push(self.register(to)),
            Code::Pop_r64 if to != Register::RSP => Effect::Pop(to),
            Code::Lea_r64_m => Effect::Register(to, Value::Stack(self.own_address(instruction)?)),
            Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32
                if instruction.op0_kind() == OpKind::Register =>
            {
                self.moved_by(to, instruction.immediate(1).cast_signed().checked_neg()?)?
            }
            Code::Add_rm64_imm8 | Code::Add_rm64_imm32
                if instruction.op0_kind() == OpKind::Register =>
            {
                self.moved_by(to, instruction.immediate(1).cast_signed())?
            }
            _ => return None,
        })
    }

    /// A constant added to an address in the frame.
    fn moved_by(&self, register: Register, bytes: i64) -> Option<Effect> {
        match self.register(register) {
            Value::Stack(at) => Some(Effect::Register(
                register,
                Value::Stack(at.checked_add(bytes)?),
            )),
            _ => None,
        }
    }

    /// The distance of a memory operand from the stack pointer at entry.
    fn own_address(&self, instruction: &Instruction) -> Option<i64> {
        let is_plain = instruction.memory_index() == Register::None
            && !is_of_thread(instruction.segment_prefix());
        match self.register(instruction.memory_base()) {
            Value::Stack(base) if is_plain => {
                base.checked_add(instruction.memory_displacement64().cast_signed())
            }
            _ => None,
        }
    }

    /// Goes past an instruction of which only is known what it writes.
    fn forget(
        &mut self,
        instruction: &Instruction,
        info: &mut InstructionInfoFactory,
    ) -> Option<()> {
        let info = info.info(instruction);
        for memory in info.used_memory() {
            if writes(memory.access()) {
                self.overwrite(memory)?;
            }
        }
        for register in info.used_registers() {
            if writes(register.access()) {
                self.set(register.register().full_register(), Value::Unknown);
            }
        }
        Some(())
    }

    /// Memory was written, with what is not known. Only the function's own
    /// frame may be.
    fn overwrite(&mut self, memory: &UsedMemory) -> Option<()> {
        let size = i64::try_from(memory.memory_size().size()).ok()?;
        let is_plain = memory.index() == Register::None
            && !is_of_thread(memory.segment())
            && memory.memory_size() != MemorySize::Unknown
            && size > 0;
        let Value::Stack(base) = self.register(memory.base()) else {
            return None;
        };
        let at = base.checked_add(memory.displacement().cast_signed())?;
        if !is_plain {
            return None;
        }
        self.clear(at, size)
    }

    /// Forgets the words that some bytes of the frame are parts of.
    fn clear(&mut self, at: i64, size: i64) -> Option<()> {
        let end = at.checked_add(size)?;
        let lowest = -self.moved()? - RED_ZONE;
        if at < lowest || end > 0 {
            return None;
        }
        self.words
            .retain(|word, _| word + WORD <= at || *word >= end);
        Some(())
    }

    fn store(&mut self, at: i64, value: Value) -> Option<()> {
        self.clear(at, WORD)?;
        if at % WORD == 0 {
            self.words.insert(at, value);
        }
        Some(())
    }

    /// The stack pointer has to be known, and within the function's frame. What
    /// lies far below it is a signal handler's.
    fn check_stack(&mut self) -> Option<()> {
        let moved = self.moved()?;
        if !(0..=LARGEST_FRAME).contains(&moved) || moved % WORD != 0 {
            return None;
        }
        self.words.retain(|word, _| *word >= -moved - RED_ZONE);
        Some(())
    }

    fn set(&mut self, register: Register, value: Value) {
        if let Some(place) = number(register).and_then(|at| self.registers.get_mut(at)) {
            *place = value;
        }
    }
}

/// What an instruction does to values.
enum Effect {
    Register(Register, Value),
    /// At a distance from the stack pointer at entry.
    Word(i64, Value),
    Push(Value),
    Pop(Register),
}

/// The number of a register of 64 bits.
fn number(register: Register) -> Option<usize> {
    register.is_gpr64().then(|| register.number())
}

/// Instructions that do more than their operands tell.
fn is_beyond_us(instruction: &Instruction) -> bool {
    instruction.is_privileged()
        || instruction.is_string_instruction()
        || matches!(
            instruction.code(),
            Code::Syscall | Code::Sysenter | Code::Cpuid | Code::Xgetbv
        )
}

/// Whether a segment has a base: that of a thread.
fn is_of_thread(segment: Register) -> bool {
    matches!(segment, Register::FS | Register::GS)
}

fn writes(access: OpAccess) -> bool {
    !matches!(
        access,
        OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
    )
}
