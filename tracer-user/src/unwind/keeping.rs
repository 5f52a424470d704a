//! Whether code keeps rbp as a frame pointer, by samples of it: for code that nothing describes and
//! that is too long to be looked through, such as Chromium's.

use std::ops::Range;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, Register,
};

use super::code::Code;
use super::effect::writes;

/// How many pieces are looked at, and bytes of each.
const SAMPLES: u64 = 64;
const SAMPLE: u64 = 32 << 10;
/// With fewer calls it is not told.
const MIN_CALLS: u64 = 1000;
/// Of 100 calls, those that may be made without a frame pointer: by assembly, or as it seems where
/// a function goes on behind its return.
const MAX_OTHERS: u64 = 8;

/// Calls of some code.
#[derive(Debug, Default, PartialEq, Eq)]
struct Calls {
    /// Those of functions that have set rbp to their frame.
    framed: u64,
    all: u64,
}

/// Whether functions of this code set rbp to their frame before they call anything. Of less than 2 MiB
/// it is not told.
pub fn keeps_frames(code: &mut Code, region: &Range<u64>) -> bool {
    let step = (region.end - region.start) / SAMPLES;
    if step < SAMPLE {
        return false;
    }
    let mut info = InstructionInfoFactory::new();
    let mut calls = Calls::default();
    for at in (0..SAMPLES).map(|sample| region.start + sample * step) {
        if let Some(bytes) = code.bytes(at..(at + SAMPLE).min(region.end)) {
            calls.count(&mut info, bytes, at);
        }
    }
    calls.all >= MIN_CALLS && (calls.all - calls.framed) * 100 <= calls.all * MAX_OTHERS
}

impl Calls {
    /// Counts those of a piece of code, from the first function on that begins in it.
    fn count(&mut self, info: &mut InstructionInfoFactory, bytes: &[u8], at: u64) {
        let mut is_framed = None;
        let mut is_pushed = false;
        let mut may_end = false;
        for instruction in Decoder::with_ip(64, bytes, at, DecoderOptions::NONE) {
            let pushes = instruction.mnemonic() == Mnemonic::Push
                && instruction.op0_register() == Register::RBP;
            if begins_function(&instruction, may_end) {
                is_framed = Some(false);
            } else if sets_frame(&instruction) && is_pushed {
                is_framed = Some(true);
            } else if is_framed == Some(true) && breaks_frame(info, &instruction) {
                is_framed = Some(false);
            }
            if let Some(is_framed) = is_framed
                && is_call(&instruction)
            {
                self.all += 1;
                self.framed += u64::from(is_framed);
            }
            // What the compiler puts between the two does not matter.
            is_pushed = pushes || is_pushed && instruction.flow_control() == FlowControl::Next;
            may_end = instruction.flow_control() == FlowControl::Return;
        }
    }
}

/// Whether it is the padding before another function.
fn begins_function(instruction: &Instruction, is_behind_return: bool) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Int3 => true,
        Mnemonic::Nop => is_behind_return,
        _ => false,
    }
}

fn sets_frame(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_register() == Register::RBP
        && instruction.op1_register() == Register::RSP
}

/// Whether it gives rbp another value than the caller's.
fn breaks_frame(info: &mut InstructionInfoFactory, instruction: &Instruction) -> bool {
    let restores = matches!(instruction.mnemonic(), Mnemonic::Pop | Mnemonic::Leave);
    !restores && writes(info, instruction, Register::RBP)
}

fn is_call(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::Call | FlowControl::IndirectCall
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `push %rbp; mov %rsp,%rbp; call; pop %rbp; ret`, and what stands between functions.
    const FRAMED: [u8; 16] = [
        0x55, 0x48, 0x89, 0xe5, 0xe8, 0, 1, 0, 0, 0x5d, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
    ];
    /// `push %rbx; call; pop %rbx; ret`.
    const BARE: [u8; 16] = [
        0x53, 0xe8, 0, 1, 0, 0, 0x5b, 0xc3, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0,
    ];

    fn count(functions: &[[u8; 16]]) -> Calls {
        let mut calls = Calls::default();
        let bytes = functions.concat();
        calls.count(&mut InstructionInfoFactory::new(), &bytes, 0x1000);
        calls
    }

    #[test]
    fn calls_below_a_frame_pointer_are_told_from_others() {
        let calls = count(&[FRAMED; 5]);
        assert_eq!((calls.framed, calls.all), (5, 5));
        // The first is not known to begin there.
        let calls = count(&[BARE; 5]);
        assert_eq!((calls.framed, calls.all), (0, 4));
        let calls = count(&[FRAMED, BARE, FRAMED, BARE]);
        assert_eq!((calls.framed, calls.all), (2, 4));
    }

    #[test]
    fn a_function_that_has_other_use_for_rbp_keeps_no_frame() {
        // push %rbp; mov %rsp,%rbp; mov %rdi,%rbp; call; pop %rbp; ret; int3
        let other = [
            0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xfd, 0xe8, 0, 1, 0, 0, 0x5d, 0xc3, 0xcc, 0xcc,
        ];
        let calls = count(&[FRAMED, other, other]);
        assert_eq!((calls.framed, calls.all), (1, 3));
        // push %rbp; push %rbx; mov %rdi,%rbp; call; pop %rbx; pop %rbp; ret; int3
        let pushed = [
            0x55, 0x53, 0x48, 0x89, 0xfd, 0xe8, 0, 1, 0, 0, 0x5b, 0x5d, 0xc3, 0xcc, 0xcc, 0xcc,
        ];
        let calls = count(&[FRAMED, pushed]);
        assert_eq!((calls.framed, calls.all), (1, 2));
    }
}
