//! Stacks by frame pointers, with the immediate caller repaired.
//!
//! At a function's entry the return address is on top of the stack and the
//! frame pointer is still the caller's. So the caller, which a walk of frame
//! pointers alone would miss, is the word at the stack pointer.

use crate::limits::{MAX_FRAMES, USER_END};
use crate::site::SiteKey;

/// No code lies in the first page.
const LOWEST_CODE: u64 = 0x1000;

/// Why a stack ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum StackEnd {
    /// A null frame pointer or return address: the start of the thread as far
    /// as frame pointers tell.
    Start = 0,
    /// The frame pointer does not point to a frame further up the stack.
    Broken = 1,
    /// [`MAX_FRAMES`] were found.
    TooDeep = 2,
    /// Stack memory could not be read.
    Unreadable = 3,
}

/// The registers that a walk starts from.
#[derive(Debug, Clone, Copy)]
pub struct Registers {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer, at the return address.
    pub sp: u64,
    /// Frame pointer.
    pub fp: u64,
}

/// Reads two words of the target's stack: at `address` and just above.
pub trait StackMemory {
    /// `None` if they cannot be read.
    fn pair(&mut self, address: u64) -> Option<(u64, u64)>;
}

/// A stack's length, end and identity; the frames themselves are in the
/// caller's array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// How many frames were found.
    pub depth: u32,
    /// Why no more.
    pub end: StackEnd,
    /// Hash of the seed and all frames.
    pub key: SiteKey,
}

/// Where a walk is. In the kernel it lives in a map value and is read anew in
/// each round: the verifier forgets what it knew about memory, so that one
/// round looks to it like the next.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct WalkState {
    /// The next frame pointer.
    fp: Volatile,
    /// The frame before it must lie below it.
    above: Volatile,
    /// The hash until here.
    high: Volatile,
    low: Volatile,
}

/// A word that is really read and really written.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub struct Volatile(u64);

impl Volatile {
    /// The value.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: a valid reference.
        unsafe { core::ptr::from_ref(&self.0).read_volatile() }
    }

    /// Replaces the value.
    #[inline(always)]
    pub fn set(&mut self, value: u64) {
        // SAFETY: a valid reference.
        unsafe { core::ptr::from_mut(&mut self.0).write_volatile(value) };
    }
}

/// Walks the stack into `frames`, the probed instruction first, then return
/// addresses.
#[inline(always)]
pub fn walk(
    registers: Registers,
    seed: (u64, u64),
    memory: &mut impl StackMemory,
    state: &mut WalkState,
    frames: &mut [u64; MAX_FRAMES],
) -> Walk {
    state.high.set(seed.0);
    state.low.set(seed.1);
    frames[0] = registers.ip;
    state.add(registers.ip);
    let Some((caller, _)) = memory.pair(registers.sp) else {
        return state.finish(1, StackEnd::Unreadable);
    };
    frames[1] = caller;
    state.add(caller);
    state.fp.set(registers.fp);
    state.above.set(registers.sp);
    let mut end = StackEnd::TooDeep;
    let mut depth = 2;
    while (depth as usize) < MAX_FRAMES {
        match state.step(memory) {
            Ok(address) => frames[depth as usize] = address,
            Err(reason) => {
                end = reason;
                break;
            }
        }
        depth += 1;
    }
    state.finish(depth, end)
}

impl WalkState {
    /// The next return address, or why there is none.
    #[inline(always)]
    fn step(&mut self, memory: &mut impl StackMemory) -> Result<u64, StackEnd> {
        let fp = self.fp.get();
        if fp == 0 {
            return Err(StackEnd::Start);
        }
        if fp <= self.above.get() || fp & 7 != 0 || fp >= USER_END {
            return Err(StackEnd::Broken);
        }
        let Some((next, address)) = memory.pair(fp) else {
            return Err(StackEnd::Unreadable);
        };
        if address == 0 {
            return Err(StackEnd::Start);
        }
        if !(LOWEST_CODE..USER_END).contains(&address) {
            return Err(StackEnd::Broken);
        }
        self.above.set(fp);
        self.fp.set(next);
        self.add(address);
        Ok(address)
    }

    /// Two independent 64-bit multiply-xorshift lanes.
    #[inline(always)]
    fn add(&mut self, word: u64) {
        let high = (self.high.get() ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.high.set(high ^ (high >> 32));
        let low = (self.low.get().rotate_left(23) ^ word).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        self.low.set(low ^ (low >> 29));
    }

    #[inline(always)]
    fn finish(&mut self, depth: u32, end: StackEnd) -> Walk {
        self.add(u64::from(depth));
        Walk {
            depth,
            end,
            key: SiteKey {
                high: self.high.get(),
                low: self.low.get(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stack words from `base` up.
    struct Words {
        base: u64,
        words: Vec<u64>,
    }

    impl StackMemory for Words {
        fn pair(&mut self, address: u64) -> Option<(u64, u64)> {
            let index = usize::try_from(address.checked_sub(self.base)? / 8).ok()?;
            Some((*self.words.get(index)?, *self.words.get(index + 1)?))
        }
    }

    fn walk_words(words: Vec<u64>, fp: u64) -> (Walk, Vec<u64>) {
        let mut frames = [0; MAX_FRAMES];
        let mut memory = Words {
            base: 0x7000,
            words,
        };
        let registers = Registers {
            ip: 0x40_0000,
            sp: 0x7000,
            fp,
        };
        let mut state = WalkState::default();
        let walk = walk(registers, (1, 2), &mut memory, &mut state, &mut frames);
        (walk, frames[..walk.depth as usize].to_vec())
    }

    #[test]
    fn the_caller_comes_from_the_stack_pointer_and_the_rest_from_frames() {
        let (walk, frames) = walk_words(vec![0x1111, 0, 0x7020, 0x2222, 0, 0x3333], 0x7010);
        assert_eq!(frames, [0x40_0000, 0x1111, 0x2222, 0x3333]);
        assert_eq!(walk.end, StackEnd::Start);
    }

    #[test]
    fn a_frame_pointer_that_goes_down_ends_the_walk() {
        let (walk, frames) = walk_words(vec![0x1111, 0, 0x7008, 0x2222], 0x7010);
        assert_eq!(frames, [0x40_0000, 0x1111, 0x2222]);
        assert_eq!(walk.end, StackEnd::Broken);
    }

    #[test]
    fn a_frame_pointer_used_as_a_register_ends_the_walk() {
        let (walk, frames) = walk_words(vec![0x1111, 0], 0x1234_5671);
        assert_eq!((frames.len(), walk.end), (2, StackEnd::Broken));
    }

    #[test]
    fn a_stack_deeper_than_the_limit_says_so() {
        let words = (0..400u64)
            .map(|i| {
                if i % 2 == 0 {
                    0x7000 + 8 * (i + 2)
                } else {
                    0x5000 + i
                }
            })
            .collect();
        let (walk, frames) = walk_words(words, 0x7010);
        assert_eq!((frames.len(), walk.end), (MAX_FRAMES, StackEnd::TooDeep));
    }

    #[test]
    fn memory_that_cannot_be_read_ends_the_walk() {
        let (walk, frames) = walk_words(vec![0x1111, 0], 0x7_0000);
        assert_eq!((frames.len(), walk.end), (2, StackEnd::Unreadable));
    }

    #[test]
    fn the_key_tells_order_depth_and_seed_apart() {
        let key = |words: Vec<u64>| walk_words(words, 0x7010).0.key;
        let one = key(vec![0x1111, 0, 0x7020, 0x2222, 0, 0x3333]);
        assert_ne!(one, key(vec![0x1111, 0, 0x7020, 0x3333, 0, 0x2222]));
        assert_ne!(one, key(vec![0x1111, 0, 0, 0x2222]));
        assert_eq!(one, key(vec![0x1111, 0, 0x7020, 0x2222, 0, 0x3333]));
    }
}
