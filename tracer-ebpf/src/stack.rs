//! Stacks by frame pointers, with the immediate caller repaired.
//!
//! At a function's entry the return address is on top of the stack and the
//! frame pointer is still the caller's. So the caller, which a walk of frame
//! pointers alone would miss, is the word at the stack pointer.

use crate::limits::{MAX_FRAMES, USER_END};
use crate::site::SiteKey;

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

/// Walks the stack into `frames`, the probed instruction first, then return
/// addresses.
#[inline(always)]
pub fn walk(
    registers: Registers,
    seed: (u64, u64),
    memory: &mut impl StackMemory,
    frames: &mut [u64; MAX_FRAMES],
) -> Walk {
    let mut hash = StackHash::new(seed);
    frames[0] = registers.ip;
    hash.add(registers.ip);
    let Some((caller, _)) = memory.pair(registers.sp) else {
        return Walk {
            depth: 1,
            end: StackEnd::Unreadable,
            key: hash.finish(1),
        };
    };
    frames[1] = caller;
    hash.add(caller);
    let mut depth = 2;
    let mut fp = registers.fp;
    let mut above = registers.sp;
    let mut end = StackEnd::TooDeep;
    while depth < MAX_FRAMES {
        if fp == 0 {
            end = StackEnd::Start;
            break;
        }
        if fp <= above || fp & 7 != 0 || fp >= USER_END {
            end = StackEnd::Broken;
            break;
        }
        let Some((next, address)) = memory.pair(fp) else {
            end = StackEnd::Unreadable;
            break;
        };
        if address == 0 {
            end = StackEnd::Start;
            break;
        }
        if address < 0x1000 || address >= USER_END {
            end = StackEnd::Broken;
            break;
        }
        frames[depth] = address;
        hash.add(address);
        depth += 1;
        above = fp;
        fp = next;
    }
    let depth = depth as u32;
    Walk {
        depth,
        end,
        key: hash.finish(depth),
    }
}

/// Two independent 64-bit multiply-xorshift lanes.
struct StackHash {
    high: u64,
    low: u64,
}

impl StackHash {
    #[inline(always)]
    fn new((high, low): (u64, u64)) -> Self {
        Self { high, low }
    }

    #[inline(always)]
    fn add(&mut self, word: u64) {
        self.high = (self.high ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.high ^= self.high >> 32;
        self.low = (self.low.rotate_left(23) ^ word).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        self.low ^= self.low >> 29;
    }

    #[inline(always)]
    fn finish(mut self, depth: u32) -> SiteKey {
        self.add(u64::from(depth));
        SiteKey {
            high: self.high,
            low: self.low,
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
        let walk = walk(registers, (1, 2), &mut memory, &mut frames);
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
