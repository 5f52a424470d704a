//! Where in a function a probe is cheap.
//!
//! The kernel emulates a few instructions under a uprobe (pushes, relative
//! jumps and calls, the one-byte nop; `arch/x86/kernel/uprobes.c`) and
//! single-steps every other one out of line, which takes a second trap: in a
//! virtual machine twenty times the cost. So a probe goes to the first
//! emulated instruction that is good for it ([`Search::is_good`]): all before
//! it did nothing but load, compute and write the function's own frame, and
//! the arguments that are read are still somewhere ([`values`]). Where such an
//! instruction is not good, both ways behind a branch are searched, and each gets
//! a probe. No other way may lead into what was searched, so that each call
//! runs into one probe, once.

mod values;

use std::collections::BTreeSet;
use std::fmt;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpKind, Register,
};
use tracer_ebpf::arguments::{Arguments, MAX_CODE, Place, read_at_entry};
use tracer_ebpf::call::Function;
use tracer_ebpf::operand;

use values::{ARGUMENTS, Value, Values};

/// Instructions searched, at most: what precedes the first branch is short.
const MAX_STEPS: usize = 64;

/// Probes of one function's entry, at most.
const MAX_PROBES: usize = 4;

/// Bytes of a function that are searched for branches, at most.
const MAX_FUNCTION: usize = 16 * 1024;

const _: () = assert!(MAX_FUNCTION as u64 <= MAX_CODE, "a cookie has room for it");

/// What probes at a function's entry need.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// The arguments that are read.
    pub arguments: &'a [usize],
    /// Whether the stack pointer has to be that at entry: a return probe
    /// replaces the word that it points at.
    pub fixed_stack: bool,
    /// Whether a probe can say where arguments are. If not, they have to be
    /// where they were at entry.
    pub cookies: bool,
}

impl Needs<'static> {
    /// Of a function that allocates or changes mappings.
    pub fn of(function: Function, cookies: bool) -> Self {
        Self {
            arguments: read_at_entry(function),
            fixed_stack: !function.may_throw(),
            cookies,
        }
    }

    /// Of one that frees, which reads these arguments.
    pub const fn of_free(arguments: &'static [usize], cookies: bool) -> Self {
        Self {
            arguments,
            fixed_stack: false,
            cookies,
        }
    }
}

/// Where the entry of a function is probed. A call runs into one of the probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The first.
    pub first: Spot,
    /// The others, where a branch comes before a good instruction.
    pub others: Vec<Spot>,
}

/// One of its probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Bytes from the function's first instruction.
    pub displacement: u64,
    /// What the kernel does with the instruction there.
    pub step: Step,
    /// The instruction there.
    pub instruction: String,
    /// Where the arguments are.
    pub arguments: Arguments,
}

/// How the kernel gets past the probed instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It emulates it: one trap.
    Emulated,
    /// It single-steps it out of line: two traps.
    OutOfLine,
}

impl Placement {
    /// All probes.
    pub fn spots(&self) -> impl Iterator<Item = &Spot> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        for other in &self.others {
            write!(f, ", +{:#x} {other}", other.displacement)?;
        }
        Ok(())
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Emulated => "emulated",
            Step::OutOfLine => "single-stepped",
        };
        write!(f, "{} ({step})", self.instruction)
    }
}

/// Chooses the places in a function, given its machine code from the first
/// instruction on. Falls back to the first instruction.
pub fn place(code: &[u8], needs: Needs<'_>) -> Placement {
    let code = &code[..code.len().min(MAX_FUNCTION)];
    let mut search = Search {
        code,
        needs,
        info: InstructionInfoFactory::new(),
        pending: vec![(0, Values::at_entry())],
        searched: BTreeSet::new(),
        found: Vec::new(),
    };
    let found = search.all_ways().map(|()| search.found);
    let mut spots = found.unwrap_or_default().into_iter();
    match spots.next() {
        Some(first) => Placement {
            first,
            others: spots.collect(),
        },
        None => Placement {
            first: at_entry(code),
            others: Vec::new(),
        },
    }
}

/// The first instruction.
fn at_entry(code: &[u8]) -> Spot {
    let first = decode(code, 0).next().unwrap_or_default();
    let step = match is_emulated(&first) {
        true => Step::Emulated,
        false => Step::OutOfLine,
    };
    spot(&first, step, Arguments::AT_ENTRY)
}

fn spot(instruction: &Instruction, step: Step, arguments: Arguments) -> Spot {
    Spot {
        displacement: instruction.ip(),
        step,
        instruction: format!("{:?}", instruction.mnemonic()).to_lowercase(),
        arguments,
    }
}

/// Decodes a function that begins at address 0 from `at` on; ends at the first
/// undecodable byte.
fn decode(code: &[u8], at: u64) -> impl Iterator<Item = Instruction> {
    let rest = usize::try_from(at).ok().and_then(|at| code.get(at..));
    Decoder::with_ip(64, rest.unwrap_or_default(), at, DecoderOptions::NONE)
        .into_iter()
        .take_while(|i| !i.is_invalid())
}

struct Search<'a> {
    code: &'a [u8],
    needs: Needs<'a>,
    info: InstructionInfoFactory,
    /// Where ways begin that are still to be searched, and what is known there.
    pending: Vec<(u64, Values)>,
    /// The instructions that were, the probed ones too.
    searched: BTreeSet<u64>,
    found: Vec<Spot>,
}

impl Search<'_> {
    /// Finds a place on each way. `None` if there is one without.
    fn all_ways(&mut self) -> Option<()> {
        while let Some((at, values)) = self.pending.pop() {
            let found = self.way(at, values)?;
            self.found.push(found);
            if self.found.len() > MAX_PROBES {
                return None;
            }
        }
        if self.is_jumped_into() {
            return None;
        }
        self.found.sort_by_key(|spot| spot.displacement);
        Some(())
    }

    /// Finds a place on one way.
    fn way(&mut self, at: u64, mut values: Values) -> Option<Spot> {
        for instruction in decode(self.code, at) {
            // Two ways that meet would each have its own idea of the registers;
            // and one that leads back would meet its probe again.
            if !self.searched.insert(instruction.ip()) || self.searched.len() > MAX_STEPS {
                return None;
            }
            if is_emulated(&instruction)
                && let Some(arguments) = self.is_good(&instruction, &values)
            {
                return Some(spot(&instruction, Step::Emulated, arguments));
            }
            match instruction.flow_control() {
                FlowControl::ConditionalBranch if !counts(&instruction) => {
                    self.pending.push((target(&instruction)?, values.clone()));
                }
                FlowControl::UnconditionalBranch => {
                    let at = target(&instruction)?;
                    return self.way(at, values);
                }
                _ => values.pass(&instruction, &mut self.info)?,
            }
        }
        None
    }

    /// Whether a probe may stand at an instruction, and where the arguments are
    /// there. The unwinder goes on with the caller's rbp and rbx.
    fn is_good(&self, instruction: &Instruction, values: &Values) -> Option<Arguments> {
        let is_callers = |register| values.register(register) == Value::Callers(register);
        let moved = u64::try_from(values.moved()?).ok()?;
        let stands = moved == 0 || !self.needs.fixed_stack;
        if !stands || !is_callers(Register::RBX) || !is_callers(Register::RBP) {
            return None;
        }
        let mut arguments = Arguments::AT_ENTRY;
        for index in self.needs.arguments {
            arguments = arguments.with(*index, argument(values, *index)?)?;
        }
        if !self.needs.cookies {
            let unmoved = moved == 0 && arguments == Arguments::AT_ENTRY;
            return unmoved.then_some(arguments);
        }
        arguments.behind(instruction.ip(), moved)
    }

    /// Whether any way of the function leads into what was searched from
    /// elsewhere, behind the first instruction: a probe might be hit more than
    /// once a call, or not at all. Within, no ways meet; see [`Search::way`].
    fn is_jumped_into(&self) -> bool {
        let probes: BTreeSet<u64> = self.found.iter().map(|spot| spot.displacement).collect();
        let targets: BTreeSet<u64> = decode(self.code, 0).filter_map(|it| target(&it)).collect();
        let is_within = |at: u64| at > 0 && self.searched.contains(&at);
        let mut is_reached = true;
        for from in decode(self.code, 0) {
            // What pads the end of a block leads nowhere.
            is_reached |= from.mnemonic() != Mnemonic::Nop || targets.contains(&from.ip());
            let next = next(&from).filter(|_| is_reached);
            let is_way = !self.searched.contains(&from.ip()) || probes.contains(&from.ip());
            if is_way && [target(&from), next].into_iter().flatten().any(is_within) {
                return true;
            }
            is_reached = next.is_some();
        }
        false
    }
}

/// Where an argument is: in its own register if it is still there.
fn argument(values: &Values, index: usize) -> Option<Place> {
    let own = ARGUMENTS.get(index)?;
    let value = Value::Argument(index);
    if values.register(*own) == value {
        return Some(Place::Own);
    }
    match values.places(value) {
        (Some(register), _) => Some(Place::Register(saved_in(register)?)),
        (None, Some(bytes)) => Some(Place::Stack(bytes)),
        (None, None) => None,
    }
}

/// A register's place in `pt_regs` (`arch/x86/include/uapi/asm/ptrace.h`).
fn saved_in(register: Register) -> Option<operand::Register> {
    const ORDER: [Register; 15] = [
        Register::R15,
        Register::R14,
        Register::R13,
        Register::R12,
        Register::RBP,
        Register::RBX,
        Register::R11,
        Register::R10,
        Register::R9,
        Register::R8,
        Register::RAX,
        Register::RCX,
        Register::RDX,
        Register::RSI,
        Register::RDI,
    ];
    let word = ORDER.iter().position(|other| *other == register)?;
    operand::Register::from_word(u8::try_from(word).ok()?)
}

/// Whether a branch counts rcx down.
fn counts(instruction: &Instruction) -> bool {
    instruction.is_loop() || instruction.is_loopcc()
}

/// What comes after an instruction that may go on there.
fn next(instruction: &Instruction) -> Option<u64> {
    let ends = matches!(
        instruction.flow_control(),
        FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return
            | FlowControl::Exception
    );
    (!ends && instruction.mnemonic() != Mnemonic::Int3).then(|| instruction.next_ip())
}

/// Where a near branch leads.
fn target(instruction: &Instruction) -> Option<u64> {
    let is_near = instruction.op0_kind() == OpKind::NearBranch64;
    is_near.then(|| instruction.near_branch_target())
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

#[cfg(test)]
mod tests;
