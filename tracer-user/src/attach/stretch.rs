//! Whether code in memory is the file's, as far as a probe depends on it.
//!
//! A uprobe belongs to a file: the kernel writes its breakpoint into a
//! process's page without looking at what is there, and executes the *file's*
//! instruction at a hit. Where an agent has overwritten the code in memory (an
//! inline hook), that is the death of the process.

use iced_x86::{Decoder, DecoderOptions};

use crate::process::address::FileOffset;

/// Bytes compared of a function, at least: a hook's jump takes 5 to 14.
const LEAST: u64 = 16;

/// Bytes compared of a function, at most.
const MOST: u64 = 16 << 10;

/// The longest instruction.
const INSTRUCTION: u64 = 15;

/// The kernel's breakpoint, and everybody else's: `int3`.
const BREAKPOINT: u8 = 0xcc;

/// `nopl 0x0(%rax,%rax,1)`, which the kernel (6.18) replaces by a call of its
/// own trampoline when a uprobe stands on it and is hit often.
const LONG_NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// A call with a relative target.
const CALL: u8 = 0xe8;

/// Code of a file on which probes depend: a function from its first
/// instruction as far as its probes reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The function, or the probe.
    pub name: String,
    /// Its first instruction.
    pub start: FileOffset,
    /// How many bytes are compared.
    pub length: u64,
    /// What is probed, offsets in the file.
    pub places: Vec<u64>,
}

impl Stretch {
    /// A function of `size` bytes (`None`: not known) that is probed at
    /// `places`, offsets in the file: at its entry, or at its returns too.
    pub fn new(name: &str, start: FileOffset, size: Option<u64>, places: &[u64]) -> Self {
        let last = places.iter().map(|place| place.saturating_sub(start.0));
        let reach = last.max().unwrap_or(0).saturating_add(INSTRUCTION);
        let length = reach.max(LEAST).min(size.unwrap_or(MOST)).min(MOST);
        Self {
            name: name.to_owned(),
            start,
            length,
            places: places.to_vec(),
        }
    }
}

/// Where memory first differs from the file, as a number of bytes from the
/// beginning of both; `None` if it does not.
///
/// Breakpoints are no difference: a single `int3` at the beginning of an
/// instruction, be it ours, another tracer's or a debugger's. What the kernel
/// makes of them on long nops is none either: `is_trampoline` tells whether the
/// call at an offset leads to the kernel's trampoline. That an `int3` is a
/// hook's (one that works by SIGTRAP) cannot be told.
pub fn difference(
    file: &[u8],
    memory: &[u8],
    is_trampoline: impl Fn(usize) -> bool,
) -> Option<usize> {
    let starts = instruction_starts(file);
    let mut at = 0;
    while at < file.len() {
        match memory.get(at) {
            None => return Some(at),
            Some(byte) if *byte == file[at] => at += 1,
            Some(&BREAKPOINT) if starts.get(at) == Some(&true) => at += 1,
            Some(&CALL) if file[at..].starts_with(&LONG_NOP) && is_trampoline(at) => {
                at += LONG_NOP.len();
            }
            Some(_) => return Some(at),
        }
    }
    None
}

/// For each byte whether an instruction begins there. Behind the first that
/// cannot be decoded none does.
fn instruction_starts(code: &[u8]) -> Vec<bool> {
    let mut starts = vec![false; code.len()];
    let decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    for instruction in decoder {
        let at = usize::try_from(instruction.ip()).unwrap_or(usize::MAX);
        // The last may be cut off by the end of the stretch.
        if let Some(start) = starts.get_mut(at) {
            *start = true;
        }
        if instruction.is_invalid() {
            break;
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debian 12's `malloc`: `push %r12; push %rbp; push %rbx; mov %rdi,%rbx;
    /// sub $0x10,%rsp; …`
    const MALLOC: [u8; 16] = [
        0x41, 0x54, 0x55, 0x53, 0x48, 0x89, 0xfb, 0x48, 0x83, 0xec, 0x10, 0x48, 0x8b, 0x05, 0xb1,
        0x84,
    ];

    fn changed(change: impl Fn(&mut [u8; 16])) -> Option<usize> {
        let mut memory = MALLOC;
        change(&mut memory);
        difference(&MALLOC, &memory, |_| false)
    }

    #[test]
    fn equal_code_does_not_differ() {
        assert_eq!(changed(|_| ()), None);
        assert_eq!(difference(&[], &[], |_| false), None);
    }

    #[test]
    fn breakpoints_of_any_tracer_are_no_hook() {
        for place in [0, 2, 3, 4, 7, 11] {
            assert_eq!(changed(|code| code[place] = BREAKPOINT), None, "{place}");
        }
        let entry_and_other = |code: &mut [u8; 16]| {
            code[0] = BREAKPOINT;
            code[4] = BREAKPOINT;
        };
        assert_eq!(changed(entry_and_other), None);
    }

    #[test]
    fn a_breakpoint_within_an_instruction_is_none() {
        for place in [1, 5, 6, 8, 9, 10] {
            let found = changed(|code| code[place] = BREAKPOINT);
            assert_eq!(found, Some(place), "{place}");
        }
    }

    #[test]
    fn a_jump_differs_where_it_begins() {
        // Frida's hook of it.
        let hook = [0xe9, 0xd3, 0x4c, 0xd0, 0xfe, 0x66, 0x90];
        assert_eq!(changed(|code| code[..7].copy_from_slice(&hook)), Some(0));
        // A breakpoint that the kernel put over that.
        let over = [0xcc, 0xd3, 0x4c, 0xd0, 0xfe, 0x66, 0x90];
        assert_eq!(changed(|code| code[..7].copy_from_slice(&over)), Some(1));
        // One behind the first instruction.
        assert_eq!(
            changed(|code| code[2..7].copy_from_slice(&hook[..5])),
            Some(2)
        );
    }

    #[test]
    fn memory_that_cannot_be_read_to_the_end_differs_there() {
        assert_eq!(difference(&MALLOC, &MALLOC[..9], |_| false), Some(9));
    }

    #[test]
    fn what_the_kernel_makes_of_a_long_nop_is_a_breakpoint() {
        let mut file = MALLOC;
        file[..5].copy_from_slice(&LONG_NOP);
        let mut memory = file;
        memory[..5].copy_from_slice(&[CALL, 1, 2, 3, 4]);
        assert_eq!(difference(&file, &memory, |at| at == 0), None);
        assert_eq!(difference(&file, &memory, |_| false), Some(0));
    }

    #[test]
    fn a_stretch_reaches_as_far_as_its_probes_and_ends_with_the_function() {
        let length =
            |size, places: &[u64]| Stretch::new("f", FileOffset(0x1000), size, places).length;
        assert_eq!(length(None, &[0x1000]), 16);
        assert_eq!(length(None, &[0x1004]), 19);
        assert_eq!(length(Some(0x200), &[0x1000, 0x1100]), 0x10f);
        assert_eq!(length(Some(5), &[0x1000]), 5);
        assert_eq!(length(Some(0x100), &[0x1000, 0x10ff]), 0x100);
        assert_eq!(length(None, &[0x1000, u64::MAX]), MOST);
    }
}
