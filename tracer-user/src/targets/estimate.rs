//! Estimates from blocks that were chosen by chance (`--sample`).

use tracer_ebpf::sample::{SampledSite, Sampling, Weight, Weighted};
use tracer_ebpf::stated::{Stated, StatedSite, StatedSums};

use crate::model::sampling::{Errors, rounded};

/// How many blocks there are, and their bytes, as a sample tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// Blocks.
    pub count: f64,
    /// Bytes.
    pub bytes: f64,
    /// The variance of that number of blocks.
    pub count_variance: f64,
    /// The variance of these bytes, in bytes squared.
    pub bytes_variance: f64,
}

impl Estimate {
    /// What one block stands for that was followed: itself if it was for certain.
    pub fn of_block(size: u64, is_certain: bool, sampling: &Sampling) -> Self {
        let Weight {
            count,
            bytes,
            count_variance,
            bytes_variance,
        } = match is_certain {
            true => Weight::of_one(size),
            false => sampling.weight(size),
        };
        let sums = Weighted {
            count,
            bytes,
            count_variance: [count_variance, 0],
            bytes_variance,
        };
        Self::of_sums(&sums, sampling)
    }

    /// A block that is itself, and no sample.
    pub fn of_itself(size: u64) -> Self {
        Self {
            count: 1.0,
            bytes: size as f64,
            ..Self::default()
        }
    }

    /// What a sample stands for that a process took itself; `word` is what its block
    /// keeps of it.
    pub fn of_sample(size: u64, word: u32) -> Self {
        let words = Stated::of(size, word).words(size);
        let [samples, sample_bytes, count, bytes, ..] = words;
        let [.., count_low, count_high, bytes_low, bytes_high] = words;
        Self::of_stated(&StatedSums {
            samples,
            sample_bytes,
            count,
            bytes,
            count_variance: [count_low, count_high],
            bytes_variance: [bytes_low, bytes_high],
        })
    }

    /// What the kernel's sums of such samples say; see [`StatedSums`] for their units.
    pub fn of_stated(sums: &StatedSums) -> Self {
        let signed =
            |[low, high]: [u64; 2]| low as f64 + high.cast_signed() as f64 * 4_294_967_296.0;
        Self {
            count: sums.count as f64 / 65_536.0,
            bytes: sums.bytes as f64,
            count_variance: signed(sums.count_variance) / 256.0,
            bytes_variance: signed(sums.bytes_variance),
        }
    }

    /// What the kernel's sums say; see [`Weighted`] for their units.
    pub fn of_sums(sums: &Weighted, sampling: &Sampling) -> Self {
        let [low, high] = sums.count_variance.map(|part| part as f64);
        let square = (sampling.interval as f64).powi(2);
        Self {
            count: sums.count as f64 / 65_536.0,
            bytes: sums.bytes as f64 / 256.0,
            count_variance: (low + high * 4_294_967_296.0) / 256.0,
            bytes_variance: sums.bytes_variance as f64 / 16_777_216.0 * square,
        }
    }

    /// Adds that of other blocks.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.count_variance += other.count_variance;
        self.bytes_variance += other.bytes_variance;
    }

    /// Without that of some of these blocks.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let less = |all: f64, some: f64| (all - some).max(0.0);
        Self {
            count: less(self.count, other.count),
            bytes: less(self.bytes, other.bytes),
            count_variance: less(self.count_variance, other.count_variance),
            bytes_variance: less(self.bytes_variance, other.bytes_variance),
        }
    }

    /// The same where variances are sums of estimates with signs.
    fn less(&self, other: &Self) -> Self {
        Self {
            count_variance: self.count_variance - other.count_variance,
            bytes_variance: self.bytes_variance - other.bytes_variance,
            ..self.without(other)
        }
    }

    /// The same, or what was counted if nothing was sampled.
    pub fn or_counted(&self, counted: (u64, u64)) -> (u64, u64) {
        match *self == Self::default() {
            true => counted,
            false => self.whole(),
        }
    }

    /// Blocks and bytes, as whole numbers.
    pub fn whole(&self) -> (u64, u64) {
        (rounded(self.count), rounded(self.bytes))
    }
}

/// The estimates of a site.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimates {
    /// Allocated blocks that were chosen.
    pub samples: u64,
    /// Those of them that are live.
    pub live_samples: u64,
    /// All that were allocated.
    pub allocated: Estimate,
    /// Those that were freed.
    pub freed: Estimate,
    /// Those that are live.
    pub live: Estimate,
}

impl Estimates {
    /// What the kernel's sums of a site say.
    pub fn of(
        site: &SampledSite,
        (samples, live_samples): (u64, u64),
        sampling: &Sampling,
    ) -> Self {
        let [allocated, freed, untracked] = [&site.allocated, &site.freed, &site.untracked]
            .map(|sums| Estimate::of_sums(sums, sampling));
        Self {
            samples,
            live_samples,
            allocated,
            freed,
            // What is left of the sums when nothing is live is rounding.
            live: match live_samples {
                0 => Estimate::default(),
                _ => allocated.without(&freed).without(&untracked),
            },
        }
    }

    /// Those of blocks that are no samples: how many were allocated, freed and are live.
    pub fn of_counted(allocated: (u64, u64), freed: (u64, u64), live: (u64, u64)) -> Self {
        let of = |(count, bytes): (u64, u64)| Estimate {
            count: count as f64,
            bytes: bytes as f64,
            ..Estimate::default()
        };
        Self {
            samples: allocated.0,
            live_samples: live.0,
            allocated: of(allocated),
            freed: of(freed),
            live: of(live),
        }
    }

    /// What samples of a site stand for that processes took themselves.
    pub fn of_stated(site: &StatedSite) -> Self {
        let [allocated, freed, untracked] =
            [&site.allocated, &site.freed, &site.untracked].map(Estimate::of_stated);
        let samples = site.allocated.samples;
        let gone = site.freed.samples + site.untracked.samples;
        let live_samples = samples.saturating_sub(gone);
        Self {
            samples,
            live_samples,
            allocated,
            freed,
            live: match live_samples {
                0 => Estimate::default(),
                _ => allocated.less(&freed).less(&untracked),
            },
        }
    }

    /// Adds those of another site.
    pub fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.live_samples += other.live_samples;
        self.allocated.add(&other.allocated);
        self.freed.add(&other.freed);
        self.live.add(&other.live);
    }

    /// Their standard errors.
    pub fn errors(&self) -> Errors {
        Errors {
            samples: self.samples,
            live_samples: self.live_samples,
            live_bytes: self.live.bytes_variance.max(0.0).sqrt(),
            live_count: self.live.count_variance.max(0.0).sqrt(),
            allocated_bytes: self.allocated.bytes_variance.max(0.0).sqrt(),
            allocated_count: self.allocated.count_variance.max(0.0).sqrt(),
            freed_bytes: self.freed.bytes_variance.max(0.0).sqrt(),
            freed_count: self.freed.count_variance.max(0.0).sqrt(),
        }
    }
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
mod tests;
