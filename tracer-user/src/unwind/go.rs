//! Go code, by the sizes of its frames in Go's own table of functions
//! ([`pclntab`](crate::process::pclntab)): Go writes call frame information only
//! for debuggers, and that does not tell where stacks begin and are changed.

use std::collections::HashMap;
use std::ops::ControlFlow;

use anyhow::Result;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use tracer_ebpf::rule::{Base, Kind, Rule, Saved};

use super::Segment;
use super::code::Code;
use super::frames::{Found, Frame, Source};
use super::omitted::Omitted;
use super::rows::Rows;
use crate::process::bytes::Bytes;
use crate::process::pclntab::{CodePart, Function, Pclntab};
use crate::process::window::Window;

/// Longer functions are not decoded; those that are have some 300 bytes.
const MAX_DECODED: u64 = 1024;

/// The functions between goroutines and C code (`runtime/asm_amd64.s`,
/// `runtime/cgo/asm_amd64.s`).
const TO_C: &str = "runtime.asmcgocall";
const FROM_C: &str = "runtime.cgocallback";
const FROM_C_GOES_ON: &str = "runtime.cgocallbackg";
const C_CALLS: &str = "crosscall2";
const SWITCHES: &str = "runtime.systemstack";

/// A word of the stack.
const WORD: i64 = 8;

/// The Go functions of a file, as far as they have frames of known sizes.
pub struct Go<'a> {
    bytes: &'a dyn Bytes,
    table: Pclntab,
    text: u64,
    functions: Vec<Function>,
    code: Code<'a>,
    sizes: Window<'a>,
    /// The functions between stacks, by their start: one of each kind.
    doors: HashMap<u32, Door>,
    /// Bytes that asmcgocall leaves free below a callback's frame, since C code wants
    /// the stack pointer at a multiple of 16: 8 or none.
    free: i64,
}

/// A function between stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// From a goroutine to C.
    ToC,
    /// From C to a goroutine.
    FromC,
    /// Called by C: it saves what C code wants kept.
    CCalls,
    /// From a goroutine to Go code on the thread's stack.
    Switches,
    /// Anything else that moves the stack pointer, perhaps to a multiple of 16 for C code,
    /// on the same stack.
    Other,
}

impl<'a> Go<'a> {
    /// The functions of this table.
    pub fn new(bytes: &'a dyn Bytes, table: Pclntab, segments: &[Segment]) -> Option<Self> {
        let parts: Vec<CodePart> = segments.iter().map(part).collect();
        let text = table.text(bytes, &parts)?;
        let mut functions = Vec::new();
        let mut doors: HashMap<u32, Door> = HashMap::new();
        table.each(bytes, |function| {
            functions.push(function);
            if function.is(Function::MOVES_STACK | Function::ASSEMBLY)
                && let Some(door) = door(&table, bytes, &function)
                && doors.values().all(|known| *known != door)
            {
                doors.insert(function.start, door);
            }
            ControlFlow::Continue(())
        });
        let mut go = Self {
            sizes: table.sizes_of(bytes),
            code: Code::new(bytes, segments.to_vec(), false),
            bytes,
            table,
            text,
            functions,
            doors,
            free: 0,
        };
        go.free = go.misaligned().unwrap_or(0);
        Some(go)
    }

    /// The size of a function's frame at an instruction.
    fn size_at(&mut self, function: &Function, address: u64) -> Option<i64> {
        let into = address.checked_sub(self.text + u64::from(function.start))?;
        let mut found = None;
        self.table
            .sizes(&mut self.sizes, function, |from, to, size| {
                if (u64::from(from)..u64::from(to)).contains(&into) {
                    found = Some(i64::from(size)).filter(|size| *size >= 0);
                }
            });
        found
    }

    /// The instructions of a function.
    fn instructions(&mut self, function: &Function) -> Vec<Instruction> {
        let start = self.text + u64::from(function.start);
        let end = self.text + u64::from(function.end);
        if end - start > MAX_DECODED {
            return Vec::new();
        }
        let Some(bytes) = self.code.bytes(start..end) else {
            return Vec::new();
        };
        Decoder::with_ip(64, bytes, start, DecoderOptions::NONE)
            .into_iter()
            .collect()
    }

    /// Rows for a function whose frame's sizes say all.
    fn plain(&mut self, function: &Function, from: u64, rows: &mut Rows) -> Result<()> {
        let start = self.text + u64::from(function.start);
        let mut result = Ok(());
        self.table
            .sizes(&mut self.sizes, function, |first, next, size| {
                let first = (start + u64::from(first)).max(from);
                let next = start + u64::from(next);
                if first < next && result.is_ok() {
                    result = rows.row(first, next, plain_rule(i64::from(size)));
                }
            });
        result
    }

    /// Rows for a function between stacks: of its calls those that are known.
    fn door(
        &mut self,
        door: Door,
        function: &Function,
        rows: &mut Rows,
        omitted: &mut Omitted,
    ) -> Result<()> {
        let mut at = self.text + u64::from(function.start);
        for (call, rule) in self.calls(door, function) {
            rows.row(at, call.ip(), Rule::UNSUPPORTED)?;
            rows.row(call.ip(), call.next_ip(), rule)?;
            omitted.unsupported += u64::from(rule == Rule::UNSUPPORTED);
            at = call.next_ip();
        }
        let end = self.text + u64::from(function.end);
        rows.row(at, end, Rule::UNSUPPORTED)
    }

    /// The calls that a door makes, and where its caller is then.
    fn calls(&mut self, door: Door, function: &Function) -> Vec<(Instruction, Rule)> {
        let instructions = self.instructions(function);
        let mut seen = Seen::default();
        let mut calls = Vec::new();
        for (index, instruction) in instructions.iter().enumerate() {
            if is_call(instruction) {
                let rule = match door {
                    Door::Switches => switch(&instructions[index + 1..]),
                    _ => self.rule_of(door, function, instruction, &seen),
                };
                calls.push((*instruction, rule.unwrap_or(Rule::UNSUPPORTED)));
                seen.stores.clear();
                seen.taken = 0;
                seen.is_aligned = false;
                continue;
            }
            let size = self.size_at(function, instruction.ip());
            seen.note(instruction, size);
        }
        calls
    }

    fn rule_of(
        &mut self,
        door: Door,
        function: &Function,
        call: &Instruction,
        seen: &Seen,
    ) -> Option<Rule> {
        let size = self.size_at(function, call.ip())?;
        match door {
            Door::ToC => {
                let [depth, goroutine] = seen.sorted_stores()?;
                let taken = seen.taken + self.free;
                let fits = goroutine == depth + WORD && seen.stack_saved_at == Some(size);
                Rule::go_call(depth, i32::try_from(size).ok()?, i32::try_from(taken).ok()?)
                    .filter(|_| fits && seen.taken > 0)
            }
            Door::FromC => {
                let target = self.target(seen.target(call)?)?;
                match self.table.is_called(self.bytes, &target, FROM_C_GOES_ON) {
                    true => Rule::go_callback(size + WORD),
                    false => Some(plain_rule(size)),
                }
            }
            Door::CCalls => {
                let [bp, bx] = [seen.bp, seen.bx].map(|slot| i32::try_from(slot?).ok());
                let (bp, bx) = (Saved::At(bp?), Saved::At(bx?));
                Rule::new(Kind::Sp, size + WORD, Base::Cfa, bp, bx)
            }
            Door::Other => {
                let same = Saved::Same;
                Rule::new(Kind::Bx, size + WORD, Base::Cfa, same, same)
                    .filter(|_| seen.is_aligned && seen.bx_is_stack_at == Some(size))
            }
            Door::Switches => None,
        }
    }

    /// The function that begins at an address.
    fn target(&self, address: u64) -> Option<Function> {
        let start = u32::try_from(address.checked_sub(self.text)?).ok()?;
        let by_start = |function: &Function| function.start;
        let index = self.functions.binary_search_by_key(&start, by_start).ok()?;
        self.functions.get(index).copied()
    }

    /// See [`Go::free`]; none if there are no callbacks.
    fn misaligned(&mut self) -> Option<i64> {
        let outer = self.size_at_calls(Door::CCalls)?;
        let inner = self.size_at_calls(Door::FromC)?;
        // Before C code's call it is at a multiple of 16; two return addresses follow.
        Some((outer + inner) % 16)
    }

    /// The size of a door's frame at its calls.
    fn size_at_calls(&mut self, wanted: Door) -> Option<i64> {
        let start = *self.doors.iter().find(|(_, door)| **door == wanted)?.0;
        let function = self.target(self.text + u64::from(start))?;
        let calls = self.instructions(&function).into_iter().filter(is_call);
        calls
            .filter_map(|call| self.size_at(&function, call.ip()))
            .max()
    }
}

impl Source for Go<'_> {
    fn entries(&mut self, _: Option<u64>, _: &mut Omitted, found: &mut Found) {
        for (index, function) in self.functions.iter().enumerate() {
            let start = self.text + u64::from(function.start);
            let end = self.text + u64::from(function.end);
            let is_known = function.sizes != 0 || function.is(Function::TOP);
            if is_known && !found(start, end, index) {
                return;
            }
        }
    }

    fn emit(
        &mut self,
        frame: &Frame,
        from: u64,
        rows: &mut Rows,
        omitted: &mut Omitted,
    ) -> Result<()> {
        let Some(function) = self.functions.get(frame.offset).copied() else {
            return Ok(());
        };
        if function.is(Function::TOP) {
            return rows.row(from, frame.end, Rule::END);
        }
        match self.doors.get(&function.start) {
            Some(door) => self.door(*door, &function, rows, omitted),
            None if function.is(Function::MOVES_STACK) => {
                omitted.unsupported += 1;
                self.door(Door::Other, &function, rows, omitted)
            }
            None => self.plain(&function, from, rows),
        }
    }
}

/// What the instructions before a call have done.
#[derive(Debug, Default)]
struct Seen {
    /// Bytes taken from the stack by hand.
    taken: i64,
    /// Where words were stored since, bytes above the stack pointer.
    stores: Vec<i64>,
    /// The frame's size when the stack pointer was copied.
    stack_saved_at: Option<i64>,
    /// The same when it was copied to rbx, if that still has it.
    bx_is_stack_at: Option<i64>,
    /// Whether the stack pointer was moved to a multiple of 16 since, and not otherwise.
    is_aligned: bool,
    /// Where rbp and rbx were stored first, bytes from the CFA.
    bp: Option<i64>,
    bx: Option<i64>,
    /// Addresses in registers.
    loaded: Vec<(Register, u64)>,
}

impl Seen {
    /// Notes an instruction, before which the frame had a size.
    fn note(&mut self, instruction: &Instruction, size: Option<i64>) {
        let to_memory = instruction.op0_kind() == OpKind::Memory
            && instruction.memory_base() == Register::RSP
            && instruction.memory_index() == Register::None;
        let slot = instruction.memory_displacement64().cast_signed();
        match (instruction.mnemonic(), instruction.op0_register()) {
            (Mnemonic::Sub, Register::RSP) if is_immediate(instruction.op1_kind()) => {
                self.taken = instruction.immediate(1).cast_signed();
                self.stores.clear();
            }
            (Mnemonic::And, Register::RSP) if instruction.immediate(1) == !15 => {
                self.is_aligned = true;
            }
            (Mnemonic::Mov, Register::RSP) => self.is_aligned = false,
            (_, Register::RBX) => {
                let is_stack = instruction.mnemonic() == Mnemonic::Mov
                    && instruction.op1_register() == Register::RSP;
                self.bx_is_stack_at = size.filter(|_| is_stack);
                if is_stack {
                    self.stack_saved_at = size;
                }
            }
            (Mnemonic::Push, Register::RBP) => {
                self.bp = self.bp.or(size.map(|size| -(size + 2 * WORD)));
            }
            (Mnemonic::Lea, register) if instruction.is_ip_rel_memory_operand() => {
                self.loaded
                    .push((register, instruction.ip_rel_memory_address()));
            }
            (Mnemonic::Mov, _) if to_memory => {
                self.stores.push(slot);
                let from_cfa = size.map(|size| slot - size - WORD);
                match instruction.op1_register() {
                    Register::RBP => self.bp = self.bp.or(from_cfa),
                    Register::RBX => self.bx = self.bx.or(from_cfa),
                    _ => {}
                }
            }
            (Mnemonic::Mov, _) if instruction.op1_register() == Register::RSP => {
                self.stack_saved_at = size;
            }
            _ => {}
        }
    }

    /// The two words that were stored, the lower one first.
    fn sorted_stores(&self) -> Option<[i64; 2]> {
        let mut stores: [i64; 2] = self.stores[..].try_into().ok()?;
        stores.sort_unstable();
        Some(stores)
    }

    /// Where a call goes to.
    fn target(&self, call: &Instruction) -> Option<u64> {
        if call.flow_control() == FlowControl::Call {
            return Some(call.near_branch_target());
        }
        let wanted = call.op0_register();
        let last = self
            .loaded
            .iter()
            .rev()
            .find(|(register, _)| *register == wanted);
        last.map(|(_, address)| *address)
    }
}

/// The rule of a call on the thread's stack, by how it goes back after the call: it loads
/// the `g` of the thread, that one's `m`, its `curg`, and the stack pointer of that.
fn switch(after: &[Instruction]) -> Option<Rule> {
    let [current, machine, running, ..] = after else {
        return None;
    };
    let load = |instruction: &Instruction, from: Register| {
        let is_load = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op1_kind() == OpKind::Memory
            && instruction.memory_base() == from
            && instruction.memory_index() == Register::None;
        is_load.then(|| instruction.memory_displacement64().cast_signed())
    };
    if current.segment_prefix() != Register::FS {
        return None;
    }
    let from_thread = load(current, Register::None)?;
    let of_current = load(machine, current.op0_register())?;
    let of_machine = load(running, machine.op0_register())?;
    let stack = after.iter().find(|it| it.op0_register() == Register::RSP)?;
    let saved = load(stack, running.op0_register())?;
    Rule::go_switch(
        i32::try_from(from_thread).ok()?,
        of_current,
        i32::try_from(of_machine).ok()?,
        saved,
    )
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(kind, OpKind::Immediate8to64 | OpKind::Immediate32to64)
}

fn is_call(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::Call | FlowControl::IndirectCall
    )
}

/// The rule of a frame of so many bytes. Nothing counts from rbp and rbx until who
/// called Go code from C restores them.
fn plain_rule(size: i64) -> Rule {
    let same = Saved::Same;
    if size < 0 {
        return Rule::UNSUPPORTED;
    }
    Rule::new(Kind::Sp, size + WORD, Base::Cfa, same, same).unwrap_or(Rule::UNSUPPORTED)
}

fn part(segment: &Segment) -> CodePart {
    CodePart {
        offset: segment.offset.0,
        address: segment.address.0,
        size: segment.size,
    }
}

fn door(table: &Pclntab, bytes: &dyn Bytes, function: &Function) -> Option<Door> {
    let is = |name| table.is_called(bytes, function, name);
    match function.is(Function::MOVES_STACK) {
        true if is(TO_C) => Some(Door::ToC),
        true if is(FROM_C) => Some(Door::FromC),
        true if is(SWITCHES) => Some(Door::Switches),
        false if is(C_CALLS) => Some(Door::CCalls),
        _ => None,
    }
}
