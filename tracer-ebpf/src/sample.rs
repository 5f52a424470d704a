//! Sampling without bias (`--sample`): which allocations are chosen, and how many
//! each of them stands for.
//!
//! An allocation of S bytes is chosen with probability p = 1 - e^(-S/R), by chance
//! alone and independently of all others; R is the interval, the bytes that there
//! are between two samples in the mean. A chosen one stands for 1/p blocks and S/p
//! bytes. So sums over the chosen ones are unbiased estimates of the sums over all
//! (Horvitz and Thompson, 1952), and since the choices are independent the sum of
//! (1-p)/p² x² over the chosen ones is an unbiased estimate of the variance of the
//! estimated sum of x.
//!
//! BPF has no floating point, so p is a fraction of 2^32. It differs from
//! 1 - e^(-S/R) by at most [`ERROR`]; but no estimate is wrong by that, since the
//! weights are taken from the very p that the choice was made with.
//!
//! Numbers in the kernel's sums are in fixed point; `Qn` means units of 2^-n.

use crate::limits::LIFETIME_BUCKETS;

/// Certainty, as a probability here: 2^32.
pub const ONE: u64 = 1 << 32;

/// How far a probability may be from the exact one, in units of 2^-32.
pub const ERROR: u64 = 8;

/// The smallest interval, bytes. Estimated bytes are summed in Q8, which is exact to
/// one part in 2^18 with it.
pub const MIN_INTERVAL: u64 = 1 << 10;

/// The largest one: with it the probability of a single byte has seven bits yet.
pub const MAX_INTERVAL: u64 = 1 << 26;

/// From so many intervals on a block is chosen for certain: 1 - p is less than the
/// half of 2^-32.
const CERTAIN: u64 = 23;

/// Counters of the filter that frees go through; see [`filter_slot`].
pub const FILTER_SLOTS: u32 = 1 << 17;

/// How the loader tells the programs what to sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sampling {
    /// R, bytes; 0 if every allocation counts.
    pub interval: u64,
    /// 2^48 / R.
    pub scale: u64,
    /// The size from which on blocks are chosen for certain, bytes.
    pub certain: u64,
}

impl Sampling {
    /// Every allocation counts.
    pub const OFF: Self = Self {
        interval: 0,
        scale: 0,
        certain: 0,
    };

    /// With an interval from [`MIN_INTERVAL`] to [`MAX_INTERVAL`], or 0.
    pub const fn every(interval: u64) -> Self {
        if interval == 0 {
            return Self::OFF;
        }
        Self {
            interval,
            scale: (1 << 48) / interval,
            certain: CERTAIN * interval,
        }
    }

    /// Whether there is any sampling.
    #[inline(always)]
    pub const fn is_on(&self) -> bool {
        self.interval != 0
    }

    /// S/R in Q32, at most [`CERTAIN`]. A block of no bytes counts as one of a byte,
    /// or it would never be seen.
    #[inline(always)]
    pub const fn ratio(&self, size: u64) -> u64 {
        if size >= self.certain {
            return CERTAIN << 32;
        }
        let size = if size == 0 { 1 } else { size };
        (size * self.scale) >> 16
    }

    /// With what probability a block of this size is chosen, in Q32.
    pub const fn probability(&self, size: u64) -> u64 {
        probability(self.ratio(size))
    }

    /// Whether the choice falls on a block of this size, given a random number. Most
    /// are turned away by a multiplication and a comparison, since p < S/R.
    /// `probability` is [`probability`].
    #[inline(always)]
    pub fn chooses(&self, size: u64, random: u32, probability: impl FnOnce(u64) -> u64) -> bool {
        let ratio = self.ratio(size);
        let random = random as u64;
        random < ratio && random < probability(ratio)
    }

    /// What a chosen block of this size stands for.
    pub const fn weight(&self, size: u64) -> Weight {
        self.weight_by(size, self.probability(size))
    }

    /// The same, if its probability is `p`.
    #[inline(always)]
    pub const fn weight_by(&self, size: u64, p: u64) -> Weight {
        let count = ((1 << 48) + (p >> 1)) / p;
        // (The second comparison spares the programs a division by zero, which would
        // have a panic in them.)
        if p >= ONE || self.interval == 0 {
            return Weight {
                count,
                bytes: size << 8,
                count_variance: 0,
                bytes_variance: 0,
            };
        }
        let bytes = count * size;
        // In intervals, Q24: below 24.
        let intervals = (bytes << 8) / self.interval;
        Weight {
            count,
            bytes: (bytes + (1 << 7)) >> 8,
            count_variance: count_variance(count),
            bytes_variance: (((intervals * intervals) >> 24) * (ONE - p)) >> 32,
        }
    }
}

/// What a chosen block stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// 1/p blocks, Q16.
    pub count: u64,
    /// S/p bytes, Q8.
    pub bytes: u64,
    /// (1-p)/p², Q8.
    pub count_variance: u64,
    /// (1-p)/p² S², in units of R², Q24: at most 1.
    pub bytes_variance: u64,
}

impl Weight {
    /// That of a block which stands for itself alone.
    #[inline(always)]
    pub const fn of_one(size: u64) -> Self {
        Self {
            count: 1 << 16,
            bytes: size << 8,
            count_variance: 0,
            bytes_variance: 0,
        }
    }

    /// What is to be added to each word of a [`Weighted`].
    #[inline(always)]
    pub const fn words(&self) -> [u64; 5] {
        [
            self.count,
            self.bytes,
            self.count_variance & 0xffff_ffff,
            self.count_variance >> 32,
            self.bytes_variance,
        ]
    }
}

/// (1-p)/p² = w (w - 1) in Q8 of w = 1/p in Q16. With large weights the fraction is
/// left out, or the square would have no room: it is one part in 2^15 of them.
#[inline(always)]
const fn count_variance(count: u64) -> u64 {
    if count < 1 << 31 {
        return (count * (count - (1 << 16))) >> 24;
    }
    let whole = count >> 16;
    (whole * (whole - 1)) << 8
}

/// Sums of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Weighted {
    /// Blocks, Q16.
    pub count: u64,
    /// Bytes, Q8.
    pub bytes: u64,
    /// The variance of the number of blocks, Q8: the lower and the upper 32 bits of
    /// the summands are summed apart, since the sum may need more than 64.
    pub count_variance: [u64; 2],
    /// The variance of the bytes, in units of R², Q24.
    pub bytes_variance: u64,
}

const _: () = assert!(
    size_of::<Weighted>() == 40,
    "five words, which weights are added to"
);

/// What the chosen blocks of a site stand for. Only grows while the site's index is in
/// use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SampledSite {
    /// All that were allocated.
    pub allocated: Weighted,
    /// Those that were freed.
    pub freed: Weighted,
    /// Those that could not be entered into the live map.
    pub untracked: Weighted,
    /// Freed blocks by lifetime, Q16; see [`crate::lifetime`].
    pub lifetimes: [u64; LIFETIME_BUCKETS],
}

impl SampledSite {
    /// Nothing was chosen.
    pub const EMPTY: Self = {
        let none = Weighted {
            count: 0,
            bytes: 0,
            count_variance: [0; 2],
            bytes_variance: 0,
        };
        Self {
            allocated: none,
            freed: none,
            untracked: none,
            lifetimes: [0; LIFETIME_BUCKETS],
        }
    };
}

// SAFETY: repr(C), u64 alone, any bit pattern is valid.
unsafe impl crate::Record for SampledSite {}

/// The counter of an address. While a block is live its counter is not 0, so most
/// frees of blocks that were not chosen end at a 0. Neighbours have counters beside
/// each other; large blocks, which begin alike in their pages, are told apart by the
/// upper bits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "less than the number of slots"
)]
#[inline(always)]
pub const fn filter_slot(address: u64) -> u32 {
    (((address >> 4) ^ (address >> 21)) & (FILTER_SLOTS as u64 - 1)) as u32
}

/// 1 - e^(-x) of x below [`CERTAIN`], both in Q32. The larger bits of x are taken off
/// one by one, each a factor of e^(-x); what is left is below 1/16, where five terms
/// of the series are enough.
#[inline(always)]
pub const fn probability(ratio: u64) -> u64 {
    if ratio >= CERTAIN << 32 {
        return ONE;
    }
    let mut kept = ONE;
    // 2^32 e^-16, e^-8, … e^(-1/16).
    kept = without(kept, ratio, 36, 483);
    kept = without(kept, ratio, 35, 1_440_801);
    kept = without(kept, ratio, 34, 78_665_070);
    kept = without(kept, ratio, 33, 581_260_615);
    kept = without(kept, ratio, 32, 1_580_030_169);
    kept = without(kept, ratio, 31, 2_605_029_347);
    kept = without(kept, ratio, 30, 3_344_923_893);
    kept = without(kept, ratio, 29, 3_790_295_335);
    kept = without(kept, ratio, 28, 4_034_748_382);
    let x = ratio & ((1 << 28) - 1);
    // x (1 - x/2 (1 - x/3 (1 - x/4 (1 - x/5))))
    let series = ONE - x / 5;
    let series = ONE - ((series * x / 4) >> 32);
    let series = ONE - ((series * x / 3) >> 32);
    let series = ONE - ((series * x / 2) >> 32);
    let rest = (series * x) >> 32;
    let p = ONE - kept + ((kept * rest) >> 32);
    if p == 0 { 1 } else { p }
}

/// `kept` times a factor, if a bit of the ratio is set.
#[inline(always)]
const fn without(kept: u64, ratio: u64, bit: u32, factor: u64) -> u64 {
    if ratio & (1 << bit) == 0 {
        return kept;
    }
    (kept * factor + (1 << 31)) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVALS: [u64; 6] = [1 << 10, 1000, 512 << 10, 500_001, 1 << 26, 60_000_019];

    /// Sizes from none to all that are not certain, and beyond.
    fn sizes(interval: u64) -> impl Iterator<Item = u64> {
        let grown = std::iter::successors(Some(1_u64), |size| Some(size + size / 37 + 1));
        let near = [22, 23, 24, 1000].map(|times| times * interval);
        let end = 30 * interval;
        grown
            .take_while(move |size| *size < end)
            .chain([0, u64::MAX >> 8])
            .chain(near)
    }

    fn exact(size: u64, interval: u64) -> f64 {
        -(-(size.max(1) as f64) / interval as f64).exp_m1()
    }

    #[test]
    fn a_probability_is_within_the_stated_error() {
        for interval in INTERVALS {
            let sampling = Sampling::every(interval);
            for size in sizes(interval) {
                let exact = exact(size, interval) * ONE as f64;
                let p = sampling.probability(size);
                // An interval that divides 2^48 badly is another one by so much.
                let other = exact * interval as f64 / (1_u64 << 48) as f64;
                let error = (p as f64 - exact).abs();
                assert!(
                    (1..=ONE).contains(&p) && error <= ERROR as f64 + other,
                    "{size} of {interval}: {p}, not {exact}"
                );
            }
        }
    }

    /// The quick look turns nobody away who is chosen.
    #[test]
    fn the_choice_is_made_with_that_probability() {
        for interval in INTERVALS {
            let sampling = Sampling::every(interval);
            for size in sizes(interval) {
                let p = sampling.probability(size);
                assert!(p <= sampling.ratio(size).max(1), "{size} of {interval}");
                let chosen = |random: u64| {
                    sampling.chooses(size, u32::try_from(random).unwrap(), probability)
                };
                assert!(chosen(p - 1), "{size} of {interval}");
                assert!(p == ONE || !chosen(p), "{size} of {interval}");
            }
        }
    }

    #[test]
    fn a_weight_is_the_probabilitys_inverse() {
        for interval in INTERVALS {
            let sampling = Sampling::every(interval);
            for size in sizes(interval) {
                let p = sampling.probability(size) as f64 / ONE as f64;
                let weight = sampling.weight(size);
                let variance = (1.0 - p) / (p * p);
                let near = |found: f64, exact: f64, part: f64, least: f64| {
                    let error = (found - exact).abs();
                    assert!(
                        error <= exact * part + least,
                        "{size} of {interval}: {found}, not {exact}"
                    );
                };
                near(weight.count as f64 / 65536.0, 1.0 / p, 8e-6, 0.0);
                let bytes = weight.bytes as f64 / 256.0;
                near(bytes, size as f64 / p, 8e-6, 0.002);
                // A unit of Q8 and of Q24 is nothing beside what is summed with it.
                let count = weight.count_variance as f64 / 256.0;
                near(count, variance, 1e-4, 1.0 / 128.0);
                let square = (interval as f64).powi(2);
                let bytes = weight.bytes_variance as f64 / f64::from(1 << 24);
                near(bytes, variance * (size as f64).powi(2) / square, 1e-4, 3e-7);
            }
        }
    }

    #[test]
    fn a_certain_block_stands_for_itself() {
        let sampling = Sampling::every(1 << 10);
        for size in [23 << 10, 1 << 30] {
            let weight = sampling.weight(size);
            let itself = Weight {
                count: 1 << 16,
                bytes: size << 8,
                count_variance: 0,
                bytes_variance: 0,
            };
            assert_eq!(weight, itself);
            assert!(sampling.chooses(size, u32::MAX, probability));
        }
    }

    #[test]
    fn neighbours_have_counters_of_their_own() {
        let slots: std::collections::HashSet<_> = (0..u64::from(FILTER_SLOTS))
            .map(|number| filter_slot(0x5555_5555_0000 + 16 * number))
            .collect();
        assert_eq!(slots.len(), FILTER_SLOTS as usize);
    }
}
