//! Code that no call frame information describes, but that is known by its
//! bytes or its role.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, Register};
use tracer_ebpf::rule::Rule;

use super::code::Code;

/// `mov $15,%rax; syscall`: a trampoline of signals in libraries that have no
/// call frame information, as musl. gcc's own unwinder looks for the same
/// bytes (`MD_FALLBACK_FRAME_STATE_FOR`).
const SIGRETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

/// The start of a thread in musl's `clone`: `xor %ebp,%ebp; pop %rdi; call
/// *%r9; mov %eax,%edi; xor %eax,%eax; mov $60,%al; syscall`. The frame
/// pointer is 0 and the thread ends when the call returns, so this is an
/// outermost frame, whatever the function is called.
const CLONE: [u8; 14] = [
    0x31, 0xed, 0x5f, 0x41, 0xff, 0xd1, 0x89, 0xc7, 0x31, 0xc0, 0xb0, 0x3c, 0x0f, 0x05,
];

/// `xor %rbp,%rbp; mov %rsp,%rdi`: how programs with musl begin.
const START: [u8; 6] = [0x48, 0x31, 0xed, 0x48, 0x89, 0xe7];

/// `mov %eax,%edi; call`, `mov %rax,%rdi; call` and `movslq %eax,%rdi; call` behind a call by
/// register: in musl's code what `main` returns goes to `exit`, and what a thread's function returns
/// to `pthread_exit`. Neither returns, so that nothing tells of their callers' frames, which are a
/// start.
const HANDS_ON: [&[u8]; 3] = [
    &[0x89, 0xc7, 0xe8],
    &[0x48, 0x89, 0xc7, 0xe8],
    &[0x48, 0x63, 0xf8, 0xe8],
];

/// The bytes of a call by a register, or by where one points to, but for a prefix: `ff /2`.
const CALLS: (u8, [u8; 14]) = (
    0xff,
    [
        0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0x10, 0x11, 0x12, 0x13, 0x16, 0x17,
    ],
);

/// Where the call in it is.
const CLONE_CALL: Range<u64> = 3..6;

/// `mov %rbx,%rsp; mov (%rsp),%rdi; test %rdi,%rdi; je`: where functions return
/// to that glibc's `makecontext` starts. It has an entry, but a wrong one: that
/// of a function that was called.
const START_CONTEXT: [u8; 11] = [
    0x48, 0x89, 0xdc, 0x48, 0x8b, 0x3c, 0x24, 0x48, 0x85, 0xff, 0x74,
];

/// `endbr64`, with which it begins if indirect branches are checked.
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// glibc's has 26 bytes.
const MAX_START_CONTEXT: u64 = 64;

/// The first calls of a program are this near to its entry.
const MAX_ENTRY: u64 = 64;

/// Functions are aligned to this at most, so padding is shorter.
const MAX_PADDING: u64 = 64;

/// A known piece of code.
#[derive(Debug)]
pub struct Landmark {
    pub range: Range<u64>,
    pub rule: Rule,
}

/// Whether musl's way to start a thread is in some code.
pub fn has_musls_clone(code: &mut Code, region: Range<u64>) -> bool {
    !code.find(region, &CLONE).is_empty()
}

/// Whether a program begins as musl has it.
pub fn is_musls_start(code: &mut Code, entry: u64) -> bool {
    let end = entry.saturating_add(START.len() as u64);
    code.bytes(entry..end).is_some_and(|bytes| bytes == START)
}

/// The known pieces of a gap, in order. `entry` is where the program begins.
pub fn find(code: &mut Code, gap: Range<u64>, entry: u64) -> Vec<Landmark> {
    let mut found = Vec::new();
    if gap.end - gap.start >= SIGRETURN.len() as u64 {
        let length = SIGRETURN.len() as u64;
        found.extend(code.find(gap.clone(), &SIGRETURN).into_iter().map(|at| {
            // Looked up as a return address, it is one byte less.
            let range = at.saturating_sub(1).max(gap.start)..at + length;
            let rule = Rule::SIGNAL;
            Landmark { range, rule }
        }));
        found.extend(code.find(gap.clone(), &CLONE).into_iter().map(|at| {
            let range = at + CLONE_CALL.start..at + CLONE_CALL.end;
            let rule = Rule::END;
            Landmark { range, rule }
        }));
    }
    if gap.contains(&entry)
        && let Some(range) = entry_calls(code, entry..gap.end.min(entry + MAX_ENTRY))
    {
        let rule = Rule::END;
        found.push(Landmark { range, rule });
    }
    found.sort_by_key(|landmark| landmark.range.start);
    found
}

/// The calls of musl that start a program or a thread, in order. Other code may look the same: it is
/// for code in which a way to a return says nothing.
pub fn musls_starts(code: &mut Code, gap: &Range<u64>) -> Vec<Range<u64>> {
    let mut starts = Vec::new();
    for hands_on in HANDS_ON {
        for at in code.find(gap.clone(), hands_on) {
            let call = at.saturating_sub(2)..at;
            let bytes = code.bytes(call.clone());
            let is_call = bytes.is_some_and(|it| it[0] == CALLS.0 && CALLS.1.contains(&it[1]));
            if call.start >= gap.start && is_call {
                starts.push(call);
            }
        }
    }
    starts.sort_by_key(|call| call.start);
    starts
}

/// The code from a program's entry to the end of its calls: nobody called it.
/// That a call returns, and more code of the same function follows, shows by
/// the use of its result: the loader's first call returns where the program
/// begins, and its second runs constructors.
fn entry_calls(code: &mut Code, range: Range<u64>) -> Option<Range<u64>> {
    let bytes = code.bytes(range.clone())?;
    let decoder = Decoder::with_ip(64, bytes, range.start, DecoderOptions::NONE);
    let mut last_call = None;
    for instruction in decoder {
        let uses_result =
            instruction.mnemonic() == Mnemonic::Mov && instruction.op1_register() == Register::RAX;
        if last_call == Some(instruction.ip()) && !uses_result {
            break;
        }
        match instruction.flow_control() {
            FlowControl::Next => {}
            FlowControl::Call | FlowControl::IndirectCall => {
                last_call = Some(instruction.next_ip());
            }
            _ => return Some(range.start..last_call.unwrap_or(instruction.ip())),
        }
    }
    Some(range.start..last_call?)
}

/// Whether an entry describes glibc's `__start_context`.
pub fn is_start_context(code: &mut Code, range: &Range<u64>) -> bool {
    let length = range.end - range.start;
    let needed = (START_CONTEXT.len() + ENDBR.len()) as u64;
    if length < needed || length > MAX_START_CONTEXT {
        return false;
    }
    let Some(bytes) = code.bytes(range.clone()) else {
        return false;
    };
    let bytes = bytes.strip_prefix(&ENDBR).unwrap_or(bytes);
    bytes.starts_with(&START_CONTEXT)
}

/// Whether a gap is what assemblers put between functions, and nothing else.
/// A call cannot end in it, though its bytes and those before may look like
/// one.
pub fn is_padding(code: &mut Code, gap: &Range<u64>) -> bool {
    if gap.end - gap.start >= MAX_PADDING {
        return false;
    }
    let Some(bytes) = code.bytes(gap.clone()) else {
        return false;
    };
    Decoder::with_ip(64, bytes, gap.start, DecoderOptions::NONE)
        .into_iter()
        .all(|instruction| matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3))
}
