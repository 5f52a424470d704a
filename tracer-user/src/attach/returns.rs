//! Where a call of a function may end: its return instructions, found by
//! following its machine code.
//!
//! A probe there sees a call's result without touching its return address,
//! which a return probe replaces. All ways through the function are followed
//! from its first instruction on: branches to both sides, jumps also into
//! other functions of the file, whose returns then end the call (a tail call).
//! Calls are stepped over. If any way leads where it cannot be followed, the
//! function's ends are not known, and none is of use: a call whose end is
//! missed would hide those after it.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::ops::Range;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register, UsedMemory,
};

use super::linkage::{Destination, Linkage};
use super::stretch::Stretch;
use crate::process::address::FileOffset;
use crate::process::bytes::Bytes;

/// Instructions followed for one function, at most: the largest allocating
/// functions that we know have some 3,000.
const MAX_INSTRUCTIONS: usize = 20_000;

/// Return instructions of one function, at most: each is a probe.
const MAX_RETURNS: usize = 128;

/// Bytes read at once.
const WINDOW: usize = 512;

/// Bytes of the longest instruction.
const LONGEST: usize = 15;

/// Bytes of a return, at least, and of a jump with a short target.
const RETURN: u64 = 1;
const JUMP: u64 = 2;

/// Why it is not known where a function's calls end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncertain {
    /// A jump to an address that is in a register, or in a table.
    IndirectJump(u64),
    /// A jump by way of a pointer in the file's data: into another file, as
    /// a rule.
    OtherFile(u64),
    /// Bytes that are no instruction, or none of a program.
    Undecodable(u64),
    /// Nothing more of the file is mapped there.
    Outside(u64),
    /// A way of more than [`MAX_INSTRUCTIONS`], or more than [`MAX_RETURNS`].
    TooLong,
    /// All ways go round in circles, or stop the program.
    NeverReturns,
}

impl fmt::Display for Uncertain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IndirectJump(at) => write!(f, "it jumps to a computed address at {at:#x}"),
            Self::OtherFile(at) => write!(
                f,
                "it jumps through a pointer at {at:#x}, to another file perhaps"
            ),
            Self::Undecodable(at) => write!(f, "its code cannot be decoded at {at:#x}"),
            Self::Outside(at) => write!(f, "its code ends at {at:#x}, without a return"),
            Self::TooLong => write!(
                f,
                "it has more than {MAX_INSTRUCTIONS} instructions or {MAX_RETURNS} returns"
            ),
            Self::NeverReturns => f.write_str("it has no return instruction"),
        }
    }
}

/// Where a function's calls end, in order of the file's offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ends {
    /// Return instructions: the result is in rax.
    pub returns: Vec<u64>,
    /// Jumps to functions that return their first argument (`memset`): the
    /// result is in rdi.
    pub jumps: Vec<u64>,
}

impl Ends {
    /// The instructions, as what has to be in memory as it is in the file.
    /// `symbol` is the function whose calls end there.
    pub fn stretches(&self, symbol: &str) -> impl Iterator<Item = Stretch> {
        let one = |length: u64| {
            move |at: &u64| Stretch::new(symbol, FileOffset(*at), Some(length), &[*at])
        };
        let returns = self.returns.iter().map(one(RETURN));
        returns.chain(self.jumps.iter().map(one(JUMP)))
    }
}

/// Where calls of the function at `start` may end.
///
/// # Errors
/// Says what was met where nothing could be followed any further.
pub fn ends(code: &dyn Bytes, linkage: &Linkage, start: u64) -> Result<Ends, Uncertain> {
    let search = Search::whole(code, linkage, start, None)?;
    if search.returns.is_empty() && search.jumps.is_empty() {
        return Err(Uncertain::NeverReturns);
    }
    Ok(Ends {
        returns: search.returns.into_iter().collect(),
        jumps: search.jumps.into_iter().collect(),
    })
}

/// By what a function may go on with another one.
#[derive(Debug, Clone, Copy)]
pub enum Passing {
    /// By jumps: what the other returns, it returns.
    Jumps,
    /// By calls too, also of functions of other files that do this.
    Calls(Destination),
}

/// Whether each way from `start` to a return leads through one of the functions
/// that begin at `others`; by calls, also if one does and no other way has anything
/// done: no memory is written, and nothing else called. `false` if that is not certain.
pub fn always_passes(
    code: &dyn Bytes,
    linkage: &Linkage,
    start: u64,
    others: &HashSet<u64>,
    by: Passing,
) -> bool {
    let gates = Gates {
        others,
        by,
        passed: false,
        does_more: false,
    };
    let may_return = matches!(by, Passing::Calls(_));
    Search::whole(code, linkage, start, Some(gates)).is_ok_and(|search| {
        let never_ends = search.returns.is_empty() && search.jumps.is_empty();
        let passes =
            |gates: Gates<'_>| gates.passed && (never_ends || (may_return && !gates.does_more));
        search.gates.is_some_and(passes)
    })
}

/// Functions beyond which nothing is followed.
struct Gates<'a> {
    others: &'a HashSet<u64>,
    by: Passing,
    /// Whether any was met.
    passed: bool,
    /// Whether anything is done besides.
    does_more: bool,
}

impl Gates<'_> {
    fn is_called(&self, destination: Destination) -> bool {
        match (self.by, destination) {
            (Passing::Jumps, _) => false,
            (Passing::Calls(_), Destination::Code(at)) => self.others.contains(&at),
            (Passing::Calls(wanted), _) => destination == wanted,
        }
    }
}

struct Search<'a> {
    code: &'a dyn Bytes,
    linkage: &'a Linkage,
    /// The executable segment that all of it is in.
    segment: Range<u64>,
    /// Where ways begin that are still to be followed.
    pending: Vec<u64>,
    /// The instructions that were followed.
    seen: HashSet<u64>,
    returns: BTreeSet<u64>,
    jumps: BTreeSet<u64>,
    gates: Option<Gates<'a>>,
}

/// What comes after an instruction on the same way.
enum Then {
    /// The next one.
    Next,
    /// The next one, if the call that this is returns.
    NextAfterCall,
    /// Nothing: the way ends, or goes on elsewhere.
    Ends,
}

impl<'a> Search<'a> {
    /// Follows all ways from `start`.
    fn whole(
        code: &'a dyn Bytes,
        linkage: &'a Linkage,
        start: u64,
        gates: Option<Gates<'a>>,
    ) -> Result<Self, Uncertain> {
        let mut search = Self {
            code,
            linkage,
            segment: linkage.segment(start).ok_or(Uncertain::Outside(start))?,
            pending: vec![start],
            seen: HashSet::new(),
            returns: BTreeSet::new(),
            jumps: BTreeSet::new(),
            gates,
        };
        while let Some(at) = search.pending.pop() {
            search.follow(at)?;
        }
        Ok(search)
    }

    /// Follows a way until it ends or meets another.
    fn follow(&mut self, start: u64) -> Result<(), Uncertain> {
        let mut window = [0; WINDOW];
        let mut at = start;
        let mut last = Instruction::default();
        let mut after_call = false;
        loop {
            if !self.segment.contains(&at) {
                return Err(Uncertain::Outside(at));
            }
            let room = usize::try_from(self.segment.end - at).unwrap_or(WINDOW);
            let filled = self.code.fill(&mut window[..room.min(WINDOW)], at);
            let mut decoder = Decoder::with_ip(64, &window[..filled], at, DecoderOptions::NONE);
            // Only a whole instruction counts, unless the segment ends.
            let whole =
                |decoder: &Decoder| filled < WINDOW || decoder.position() + LONGEST <= filled;
            while decoder.can_decode() && whole(&decoder) {
                let instruction = decoder.decode();
                let ip = instruction.ip();
                if after_call && self.linkage.is_start(ip) {
                    return Ok(());
                }
                if instruction.is_invalid() {
                    return Err(Uncertain::Undecodable(ip));
                }
                if !self.seen.insert(ip) {
                    return Ok(());
                }
                if self.seen.len() > MAX_INSTRUCTIONS
                    || self.returns.len() + self.jumps.len() > MAX_RETURNS
                {
                    return Err(Uncertain::TooLong);
                }
                match self.step(&instruction, &last)? {
                    Then::Ends => return Ok(()),
                    Then::NextAfterCall => after_call = true,
                    // What pads a function's end is no part of it.
                    Then::Next => after_call &= is_padding(&instruction),
                }
                last = instruction;
            }
            let next = decoder.ip();
            if next == at {
                return Err(Uncertain::Outside(at));
            }
            at = next;
        }
    }

    fn step(&mut self, instruction: &Instruction, last: &Instruction) -> Result<Then, Uncertain> {
        let ip = instruction.ip();
        if let Some(gates) = &mut self.gates {
            gates.does_more |= writes_memory(instruction);
        }
        Ok(match instruction.flow_control() {
            FlowControl::Next if instruction.is_privileged() => Then::Ends,
            FlowControl::Next => Then::Next,
            FlowControl::Call if instruction.mnemonic() == Mnemonic::Syscall => Then::Next,
            FlowControl::Call | FlowControl::IndirectCall if self.passes_call(instruction) => {
                Then::Ends
            }
            FlowControl::Call | FlowControl::IndirectCall => Then::NextAfterCall,
            FlowControl::ConditionalBranch => {
                self.branch(instruction)?;
                Then::Next
            }
            FlowControl::UnconditionalBranch => {
                let destination = self.destination(instruction)?;
                self.jump(destination, ip)?;
                Then::Ends
            }
            FlowControl::XbeginXabortXend => {
                if instruction.mnemonic() == Mnemonic::Xbegin {
                    self.branch(instruction)?;
                }
                Then::Next
            }
            FlowControl::IndirectBranch => {
                let destination = self.through_pointer(instruction)?;
                self.jump(destination, ip)?;
                Then::Ends
            }
            FlowControl::Return => {
                if !matches!(instruction.code(), Code::Retnq | Code::Retnq_imm16) {
                    return Err(Uncertain::Undecodable(ip));
                }
                if makes_address(last) && last.next_ip() == ip {
                    return Err(Uncertain::IndirectJump(ip));
                }
                self.returns.insert(ip);
                Then::Ends
            }
            // `int $0x80` is a system call; other numbers end the program.
            FlowControl::Interrupt if instruction.code() == Code::Int_imm8 => Then::Next,
            FlowControl::Interrupt | FlowControl::Exception => Then::Ends,
        })
    }

    /// Goes on where the jump at `ip` leads, which is the way's last instruction
    /// here.
    fn jump(&mut self, destination: Destination, ip: u64) -> Result<(), Uncertain> {
        if let Some(gates) = &mut self.gates
            && gates.is_called(destination)
        {
            gates.passed = true;
            return Ok(());
        }
        match destination {
            Destination::ReturnsFirst => {
                self.jumps.insert(ip);
                Ok(())
            }
            Destination::Code(target) => self.go_on_at(target, ip),
            Destination::Allocates | Destination::Frees => Err(Uncertain::OtherFile(ip)),
        }
    }

    /// Whether a call is one of a function beyond which nothing is followed.
    fn passes_call(&mut self, instruction: &Instruction) -> bool {
        if self.gates.is_none() {
            return false;
        }
        let is_near = instruction.flow_control() == FlowControl::Call;
        let destination = match is_near {
            true => self.destination(instruction),
            false => self.through_pointer(instruction),
        };
        let Some(gates) = &mut self.gates else {
            return false;
        };
        let is_called = destination.is_ok_and(|destination| gates.is_called(destination));
        gates.passed |= is_called;
        gates.does_more |= !is_called;
        is_called
    }

    fn branch(&mut self, instruction: &Instruction) -> Result<(), Uncertain> {
        let ip = instruction.ip();
        self.go_on_at(target(instruction).ok_or(Uncertain::IndirectJump(ip))?, ip)
    }

    /// Goes on at `target`, where the instruction at `ip` leads.
    fn go_on_at(&mut self, target: u64, ip: u64) -> Result<(), Uncertain> {
        if !self.segment.contains(&target) {
            return Err(Uncertain::Outside(ip));
        }
        if let Some(gates) = &mut self.gates
            && gates.others.contains(&target)
        {
            gates.passed = true;
            return Ok(());
        }
        if !self.seen.contains(&target) {
            self.pending.push(target);
        }
        Ok(())
    }

    /// Where a jump or a call leads: straight, or by the stub of a linkage table
    /// to a function that is known. (Stubs to others are followed as all code is.)
    fn destination(&self, instruction: &Instruction) -> Result<Destination, Uncertain> {
        let target = target(instruction).ok_or(Uncertain::IndirectJump(instruction.ip()))?;
        if let Some(known) = self.linkage.function(target) {
            return Ok(known);
        }
        let mut stub = [0; 2 * LONGEST];
        let filled = self.code.fill(&mut stub, target);
        let mut decoder = Decoder::with_ip(64, &stub[..filled], target, DecoderOptions::NONE);
        let mut jump = decoder.decode();
        if jump.mnemonic() == Mnemonic::Endbr64 {
            jump = decoder.decode();
        }
        let is_jump = jump.flow_control() == FlowControl::IndirectBranch;
        match self.through_pointer(&jump) {
            Ok(known) if is_jump => Ok(known),
            _ => Ok(Destination::Code(target)),
        }
    }

    /// Where a jump through a pointer leads.
    fn through_pointer(&self, instruction: &Instruction) -> Result<Destination, Uncertain> {
        let ip = instruction.ip();
        let is_memory = instruction.op0_kind() == OpKind::Memory;
        if !is_memory || !instruction.is_ip_rel_memory_operand() {
            return Err(Uncertain::IndirectJump(ip));
        }
        let pointer = instruction.ip_rel_memory_address();
        let known = self.linkage.pointer(ip, pointer);
        known.ok_or(Uncertain::OtherFile(ip))
    }
}

/// Where a near branch leads.
fn target(instruction: &Instruction) -> Option<u64> {
    let is_near = instruction.op0_kind() == OpKind::NearBranch64;
    is_near.then(|| instruction.near_branch_target())
}

/// Whether an instruction may change memory other than the stack's, or ask the kernel for
/// something.
fn writes_memory(instruction: &Instruction) -> bool {
    let mut infos = InstructionInfoFactory::new();
    let writes = |memory: &UsedMemory| {
        use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
        let is_write = matches!(
            memory.access(),
            Write | CondWrite | ReadWrite | ReadCondWrite
        );
        is_write && memory.base() != Register::RSP
    };
    let asks = matches!(instruction.mnemonic(), Mnemonic::Syscall | Mnemonic::Int);
    asks || infos.info(instruction).used_memory().iter().any(writes)
}

/// Whether an instruction before a return makes the address that it "returns"
/// to: a jump in disguise, as retpolines are.
fn makes_address(instruction: &Instruction) -> bool {
    let writes_top = instruction.op0_kind() == OpKind::Memory
        && instruction.memory_base() == Register::RSP
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64() == 0
        && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test);
    writes_top || instruction.mnemonic() == Mnemonic::Push
}

fn is_padding(instruction: &Instruction) -> bool {
    let is_exchange = matches!(instruction.code(), Code::Xchg_r16_AX | Code::Xchg_r32_EAX);
    instruction.mnemonic() == Mnemonic::Nop || is_exchange
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::attach::allocator::{self, Probed};
    use crate::process::file::ModuleFiles;

    /// Bytes that are all one segment, with functions at `starts`.
    fn found(code: &[u8], starts: &[u64]) -> Result<(Vec<u64>, Vec<u64>), Uncertain> {
        let linkage = Linkage::of(code.len() as u64, starts);
        ends(&code, &linkage, 0).map(|ends| (ends.returns, ends.jumps))
    }

    fn returns_of(code: &[u8]) -> Result<Vec<u64>, Uncertain> {
        found(code, &[]).map(|(returns, _)| returns)
    }

    #[test]
    fn both_sides_of_a_branch_are_followed_and_no_further() {
        // test %rdi,%rdi; je +1; ret; xor %eax,%eax; ret; ret
        let code = [0x48, 0x85, 0xff, 0x74, 0x01, 0xc3, 0x31, 0xc0, 0xc3, 0xc3];
        assert_eq!(returns_of(&code).unwrap(), [5, 8]);
    }

    #[test]
    fn jumps_lead_to_other_functions_returns_and_loops_end() {
        // jmp 4; ret; ret; 4: jne 4; jmp 3
        let code = [0xeb, 0x02, 0xc3, 0xc3, 0x75, 0xfe, 0xeb, 0xfb];
        assert_eq!(returns_of(&code).unwrap(), [3]);
    }

    #[test]
    fn a_call_is_stepped_over_unless_the_next_function_begins_there() {
        // jne +1; ret; call; nop; (8:) ret
        let code = [0x75, 0x01, 0xc3, 0xe8, 0, 0, 0, 0, 0x90, 0xc3];
        assert_eq!(returns_of(&code).unwrap(), [2, 9]);
        assert_eq!(found(&code, &[9]).unwrap().0, [2]);
        // What is no padding belongs to the function.
        let code = [0x75, 0x01, 0xc3, 0xe8, 0, 0, 0, 0, 0x50, 0xc3];
        assert_eq!(found(&code, &[9]).unwrap_err(), Uncertain::IndirectJump(9));
    }

    #[test]
    fn what_is_not_certain_says_why() {
        // jmp *%rax
        assert_eq!(returns_of(&[0xff, 0xe0]), Err(Uncertain::IndirectJump(0)));
        // jmp *0(%rip)
        let code = [0xff, 0x25, 0, 0, 0, 0];
        assert_eq!(returns_of(&code), Err(Uncertain::OtherFile(0)));
        // push %rax; ret, and mov %rax,(%rsp); ret
        assert_eq!(returns_of(&[0x50, 0xc3]), Err(Uncertain::IndirectJump(1)));
        let code = [0x48, 0x89, 0x04, 0x24, 0xc3];
        assert_eq!(returns_of(&code), Err(Uncertain::IndirectJump(4)));
        // An opcode that 64-bit programs do not have.
        assert_eq!(returns_of(&[0x90, 0x06]), Err(Uncertain::Undecodable(1)));
        // A far return.
        assert_eq!(returns_of(&[0xcb]), Err(Uncertain::Undecodable(0)));
        // A jump out of the file, and code that runs out of it.
        assert_eq!(returns_of(&[0xeb, 0x70]), Err(Uncertain::Outside(0)));
        assert_eq!(returns_of(&[0x90]), Err(Uncertain::Outside(1)));
        // ud2, and an endless loop.
        assert_eq!(returns_of(&[0x0f, 0x0b]), Err(Uncertain::NeverReturns));
        assert_eq!(returns_of(&[0xeb, 0xfe]), Err(Uncertain::NeverReturns));
    }

    #[test]
    fn long_functions_are_given_up() {
        let code = vec![0x90; MAX_INSTRUCTIONS + 1];
        assert_eq!(returns_of(&code), Err(Uncertain::TooLong));
        // jne +1; ret, again and again
        let code = [0x75, 0x01, 0xc3].repeat(MAX_RETURNS + 2);
        assert_eq!(returns_of(&code), Err(Uncertain::TooLong));
    }

    #[test]
    fn instructions_across_windows_are_whole() {
        // movabs $…,%rax; again and again; ret
        let mut code = [0x48, 0xb8, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3].repeat(200);
        code.push(0xc3);
        assert_eq!(returns_of(&code).unwrap(), [2000]);
    }

    #[test]
    fn garbage_is_no_harm() {
        for seed in 0..=255u8 {
            let bytes: Vec<u8> = (0..4096u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0] ^ seed)
                .collect();
            if let Ok(found) = returns_of(&bytes) {
                assert!(!found.is_empty() && found.iter().all(|at| *at < 4096));
            }
        }
    }

    /// The real ones: what is not certain here is not seen beside profilers.
    #[test]
    fn all_functions_of_the_common_allocators_are_certain() {
        for (path, functions) in [
            ("/lib/x86_64-linux-gnu/libc.so.6", 11),
            ("/lib/ld-musl-x86_64.so.1", 11),
            ("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", 7),
            ("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4", 11),
            ("/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0", 9),
            ("/usr/lib/x86_64-linux-gnu/liblsan.so.0", 9),
        ] {
            let file = ModuleFiles::new().open_path(Path::new(path)).unwrap();
            let found = allocator::in_file(&file, path, false, &[])
                .unwrap()
                .allocator()
                .unwrap();
            let calls = found.functions.iter();
            let calls: Vec<_> = calls.filter(|one| one.probed != Probed::Free).collect();
            for call in &calls {
                assert!(call.ends.is_ok(), "{path} {call:?}");
            }
            assert!(calls.len() >= functions, "{path} {}", calls.len());
        }
    }

    /// A door that returns at once for no bytes, and otherwise jumps to code at 32.
    #[test]
    fn a_way_out_on_which_nothing_is_done_passes() {
        let passes = |before_return: &[u8], by: Passing| {
            let mut code = vec![0x48, 0x85, 0xff, 0x74, 0x05, 0xe9, 22, 0, 0, 0];
            code.extend_from_slice(before_return);
            code.push(0xc3);
            code.resize(33, 0xcc);
            code[32] = 0xc3;
            let linkage = Linkage::of(code.len() as u64, &[]);
            always_passes(&&code[..], &linkage, 0, &HashSet::from([32]), by)
        };
        let calls = Passing::Calls(Destination::Allocates);
        let to_stack = [0x48, 0x89, 0x44, 0x24, 0xf8];
        for harmless in [&[0x48, 0x89, 0xf0][..], &to_stack, &[0x53, 0x5b]] {
            assert!(passes(harmless, calls), "{harmless:x?}");
            assert!(!passes(harmless, Passing::Jumps), "{harmless:x?}");
        }
        let add = [0xf0, 0x48, 0x0f, 0xc1, 0x07];
        let call = [0xe8, 12, 0, 0, 0];
        for does in [&[0x48, 0x89, 0x07][..], &add, &call, &[0x0f, 0x05]] {
            assert!(!passes(does, calls), "{does:x?}");
        }
    }

    /// glibc's `calloc` ends in a jump to `memset`, which everybody calls: its
    /// returns are no places for probes.
    #[test]
    fn a_jump_to_memset_is_an_end() {
        for path in [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib/ld-musl-x86_64.so.1",
        ] {
            let file = ModuleFiles::new().open_path(Path::new(path)).unwrap();
            let found = allocator::in_file(&file, path, false, &[])
                .unwrap()
                .allocator()
                .unwrap();
            let calloc = found.functions.iter().find(|one| &*one.symbol == "calloc");
            let ends = calloc.unwrap().ends.as_ref().unwrap();
            assert_eq!(ends.jumps.len(), 1, "{path} {ends:?}");
        }
    }
}
