//! Samples that a process takes itself and tells of by USDT probes:
//! `otel_memory:alloc(ptr, size, weighted_bytes)` and `otel_memory:free(ptr)`, as
//! OpenTelemetry's design 00003 ("Memory Profiling") describes them, or the same of
//! `ddheap`, which is what Datadog called them first.
//!
//! A sample of a block of S bytes stands for W bytes, which its sampler states, and so
//! for w = W/S blocks. How likely it was is not stated, and need not be: of all that was
//! allocated, what is not told of has W = 0, and whatever the sampler does, the mean of W
//! is S if its estimates have no bias. Then W (W - S) has the mean of W² less S², which
//! is W's variance: the sum of W (W - S) over the samples is an unbiased estimate of the
//! variance of their sum, if blocks are chosen independently of each other. w (w - 1) is
//! the same for counts. Of a Poisson sampler, with p = S/W, they are (1-p)/p² S² and
//! (1-p)/p². A sampler that counts intervals (the first contract: W = nR) has samples
//! with W below S, whose summand is negative; the sums are right all the same.

use crate::limits::LIFETIME_BUCKETS;
use crate::operand::Operand;

/// Places of samplers' probes in all files together.
pub const MAX_SAMPLERS: u32 = 128;

/// Arguments of `alloc`; `free` has the first.
pub const ARGUMENTS: usize = 3;

/// How far W may be from S: no sampler has a mean interval of 512 MiB.
const MAX_EXCESS: i64 = (1 << 29) - 1;

/// No block is that large.
const MAX_SIZE: u64 = 1 << 46;

/// Up to this a weight's square, in Q8, has room in 63 bits.
const MAX_WHOLE: i64 = 1 << 27;

/// What a block keeps of what its sampler said; `None` if that cannot be.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the difference has 30 bits, and all of them are kept"
)]
#[inline(always)]
pub const fn word(size: u64, weighted: u64) -> Option<u32> {
    if size >= MAX_SIZE || weighted >= MAX_SIZE * 2 {
        return None;
    }
    let excess = weighted.cast_signed() - size.cast_signed();
    if excess > MAX_EXCESS || excess < -MAX_EXCESS {
        return None;
    }
    Some(((excess as i32 as u32) << 2) | STATED)
}

/// In a word: what the sampler said.
const STATED: u32 = 2;

/// Whether a block's word is one of these.
#[inline(always)]
pub const fn is_word(word: u32) -> bool {
    word & STATED != 0
}

/// W - S of such a word, bytes.
#[inline(always)]
pub const fn excess(word: u32) -> i64 {
    (word.cast_signed() >> 2) as i64
}

/// What a sample stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stated {
    /// w blocks, Q16; 1 of a block without bytes.
    pub count: u64,
    /// W bytes.
    pub bytes: u64,
    /// w (w - 1), Q8.
    pub count_variance: i64,
    /// W (W - S), bytes squared.
    pub bytes_variance: i64,
}

impl Stated {
    /// A block of `size` bytes with a [`word`].
    #[inline(always)]
    pub const fn of(size: u64, word: u32) -> Self {
        let size = size & (MAX_SIZE - 1);
        let excess = excess(word);
        let bytes = (size.cast_signed() + excess).cast_unsigned();
        let count = match ((bytes << 16) + size / 2).checked_div(size) {
            Some(count) => count,
            None => 1 << 16,
        };
        // Blocks of 8 GiB are not chosen by chance.
        let is_small = -(1 << 16) < excess && excess < 1 << 16;
        let near = if is_small || bytes < 1 << 33 {
            bytes
        } else {
            1 << 33
        };
        Self {
            count,
            bytes,
            count_variance: count_variance(count.cast_signed()),
            bytes_variance: near.cast_signed() * excess,
        }
    }

    /// What is to be added to each word of [`StatedSums`].
    #[inline(always)]
    pub const fn words(&self, size: u64) -> [u64; 8] {
        let [count_low, count_high] = parts(self.count_variance);
        let [bytes_low, bytes_high] = parts(self.bytes_variance);
        [
            1, size, self.count, self.bytes, count_low, count_high, bytes_low, bytes_high,
        ]
    }
}

/// A number as 32 bits, and what is left of it above these.
#[inline(always)]
const fn parts(number: i64) -> [u64; 2] {
    [
        number.cast_unsigned() & 0xffff_ffff,
        (number >> 32).cast_unsigned(),
    ]
}

#[inline(always)]
const fn count_variance(count: i64) -> i64 {
    if count < 1 << 31 {
        return (count * (count - (1 << 16))) >> 24;
    }
    let whole = count >> 16;
    let whole = if whole < MAX_WHOLE { whole } else { MAX_WHOLE };
    (whole * (whole - 1)) << 8
}

/// Sums over samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StatedSums {
    /// Samples.
    pub samples: u64,
    /// Bytes of the samples themselves.
    pub sample_bytes: u64,
    /// Blocks, Q16.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
    /// The variance of the number of blocks, Q8: the lower 32 bits of the summands, and
    /// what is above these, with its sign.
    pub count_variance: [u64; 2],
    /// The variance of the bytes, in bytes squared, in the same way.
    pub bytes_variance: [u64; 2],
}

const _: () = assert!(
    size_of::<StatedSums>() == 64,
    "eight words, which a sample's are added to"
);

/// What the samples of a site stand for. Only grows while the site's index is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct StatedSite {
    /// All that were allocated.
    pub allocated: StatedSums,
    /// Those that were freed.
    pub freed: StatedSums,
    /// Those that could not be entered into the live map.
    pub untracked: StatedSums,
    /// Freed blocks by lifetime, Q16; see [`crate::lifetime`].
    pub lifetimes: [u64; LIFETIME_BUCKETS],
}

impl StatedSite {
    /// None were taken.
    pub const EMPTY: Self = {
        let none = StatedSums {
            samples: 0,
            sample_bytes: 0,
            count: 0,
            bytes: 0,
            count_variance: [0; 2],
            bytes_variance: [0; 2],
        };
        Self {
            allocated: none,
            freed: none,
            untracked: none,
            lifetimes: [0; LIFETIME_BUCKETS],
        }
    };
}

impl Default for StatedSite {
    fn default() -> Self {
        Self::EMPTY
    }
}

// SAFETY: repr(C), u64 alone, any bit pattern is valid.
unsafe impl crate::Record for StatedSite {}

/// A place of a sampler's probe: where its arguments are, and what it told until now.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct SamplerPlace {
    /// How often it was hit.
    pub hits: u64,
    /// W - S of the smallest sample that stands for more than itself, bytes, and its S:
    /// they tell the mean interval.
    pub excess: u64,
    /// See there.
    pub size: u64,
    /// The arguments.
    pub operands: [Operand; ARGUMENTS],
}

// SAFETY: repr(C), u64s and operands, which have no padding; any bit pattern is valid.
unsafe impl crate::Record for SamplerPlace {}

const _: () = assert!(
    size_of::<SamplerPlace>() == 24 + 16 * ARGUMENTS,
    "a place has no padding"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_what_was_said() {
        for (size, weighted) in [
            (1, 1),
            (64, 524_320),
            (0, 512 << 10),
            (4 << 20, 3 << 20),
            (MAX_SIZE - 1, MAX_SIZE + 7),
        ] {
            let word = word(size, weighted).unwrap();
            assert!(is_word(word) && !is_word(0) && !is_word(1));
            assert_eq!(Stated::of(size, word).bytes, weighted, "{size}");
        }
        assert_eq!(word(1, 1 << 30), None);
        assert_eq!(word(1 << 30, 1), None);
        assert_eq!(word(u64::MAX, u64::MAX), None);
        assert_eq!(word(8, u64::MAX), None);
    }

    #[test]
    fn a_sample_stands_for_what_its_weight_says() {
        let of = |size, weighted| Stated::of(size, word(size, weighted).unwrap());
        assert_eq!(
            of(100, 300),
            Stated {
                count: 3 << 16,
                bytes: 300,
                count_variance: 6 << 8,
                bytes_variance: 300 * 200,
            }
        );
        // Certain.
        let certain = of(1 << 40, 1 << 40);
        assert_eq!((certain.count, certain.count_variance), (1 << 16, 0));
        assert_eq!(certain.bytes_variance, 0);
        // Below its size, by a sampler that counts intervals.
        let below = of(200, 100);
        assert_eq!((below.count, below.count_variance), (1 << 15, -64));
        assert_eq!(below.bytes_variance, -100 * 100);
        // Without bytes it is one block at least.
        assert_eq!((of(0, 9).count, of(0, 9).bytes), (1 << 16, 9));
        // The largest have room.
        assert!(of(1, 1 << 29).count_variance > 1 << 61);
        assert!(of(MAX_SIZE - 1, MAX_SIZE + (1 << 28)).bytes_variance > 0);
        assert!(of((1 << 33) - 1, (1 << 33) - 1 - (1 << 28)).bytes_variance < 0);
    }

    #[test]
    fn signed_numbers_are_summed_in_two_parts() {
        let all = [-1_i64, 7, -(5 << 40), 3 << 33, i64::MAX / 4, i64::MIN / 4];
        let mut sums = [0_u64; 2];
        for number in all {
            let [low, high] = parts(number);
            sums[0] += low;
            sums[1] = sums[1].wrapping_add(high);
        }
        let sum = i128::from(sums[1].cast_signed()) * (1 << 32) + i128::from(sums[0]);
        assert_eq!(sum, all.iter().map(|it| i128::from(*it)).sum());
    }
}
