//! What chance does to the numbers of a run with `--sample`.

use serde::{Deserialize, Serialize};

use super::{Report, Site};

/// Two-sided 95 % of a normal distribution, in standard errors.
const TWO_SIDED: f64 = 1.96;
/// One-sided 95 %.
const ONE_SIDED: f64 = 1.645;
/// Sites whose relative standard error is above this have no place among others.
const TOO_LARGE: f64 = 0.5;

/// How a run was sampled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// An allocation of S bytes was chosen with probability 1 - e^(-S/interval), bytes; 0 if
    /// none were chosen by chance. Of samplers in processes it is what their samples tell of
    /// it, the largest; 0 if they told of none.
    pub interval: u64,
    /// Bursts in which all were followed (`--overhead`); 0 if they were followed all the
    /// time.
    #[serde(default, skip_serializing_if = "is_none")]
    pub bursts: u64,
    /// The standard errors of the totals.
    pub errors: Errors,
}

/// A sampler in a process: code that chooses allocations by chance, and tells of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampler {
    /// Who offers its probes: `otel_memory`, or `ddheap`.
    pub provider: String,
    /// The file that has them, as the process sees it.
    pub module: String,
    /// Samples that it told of, in all traced processes that have the file.
    pub samples: u64,
    /// Frees of samples, in the same way.
    pub frees: u64,
    /// The mean interval of its samples, as they tell it, bytes; 0 if they do not.
    pub interval: u64,
    /// Other samplers that the process has, which were not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unused: Vec<String>,
}

/// The standard errors of estimates, and how many blocks they are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Allocated blocks that were chosen.
    pub samples: u64,
    /// Those of them that are live.
    pub live_samples: u64,
    /// Of `live_bytes`, bytes.
    pub live_bytes: f64,
    /// Of `live_count`.
    pub live_count: f64,
    /// Of `allocated_bytes`, bytes.
    pub allocated_bytes: f64,
    /// Of `allocated_count`.
    pub allocated_count: f64,
    /// Of `freed_bytes`, bytes.
    pub freed_bytes: f64,
    /// Of `freed_count`.
    pub freed_count: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_none(bursts: &u64) -> bool {
    *bursts == 0
}

impl Errors {
    /// Adds those of another site: blocks are chosen independently of each other, so
    /// the variances add up.
    pub fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.live_samples += other.live_samples;
        for (sum, error) in [
            (&mut self.live_bytes, other.live_bytes),
            (&mut self.live_count, other.live_count),
            (&mut self.allocated_bytes, other.allocated_bytes),
            (&mut self.allocated_count, other.allocated_count),
            (&mut self.freed_bytes, other.freed_bytes),
            (&mut self.freed_count, other.freed_count),
        ] {
            *sum = sum.hypot(error);
        }
    }
}

impl Sampling {
    /// How the numbers came about, in some words.
    pub fn how(&self) -> String {
        match (self.bursts, self.interval) {
            (0, 0) => "by a part of them, of unknown size".to_owned(),
            (0, interval) => format!("by a sample (one in {interval} bytes)"),
            (_, 0) => "by bursts (--overhead)".to_owned(),
            _ => "by bursts and a sample (--overhead)".to_owned(),
        }
    }

    /// What more than may be live if nothing that was chosen is, with a probability of
    /// 5 % at most, bytes: none of L bytes is chosen with probability e^(-L/interval),
    /// whatever the sizes of the blocks are. Without an interval nobody knows.
    pub fn unseen(&self) -> u64 {
        match self.interval {
            // What no burst saw can be of any size, but that is said by who asks.
            0 if self.bursts > 0 => 0,
            0 => u64::MAX,
            interval => rounded(interval as f64 * 20_f64.ln()),
        }
    }

    /// What more than may be live, with a probability of about 5 %, bytes. A few
    /// samples are no normal distribution; the three intervals are more than enough
    /// for that.
    pub fn upper(&self, live: u64) -> u64 {
        let chance = rounded(ONE_SIDED * self.errors.live_bytes);
        live.saturating_add(chance).saturating_add(self.unseen())
    }

    /// What less than may be live, with a probability of about 5 %, bytes.
    pub fn lower(&self, live: u64) -> u64 {
        live.saturating_sub(rounded(ONE_SIDED * self.errors.live_bytes))
    }
}

/// Where 95 % of such estimates have the truth: the score interval of a number of
/// events, each of which counts for `error²/value`. It is nearer to its 95 % than
/// `value ± 1.96 errors` if there are few. `None` of nothing, where there is nothing
/// to go by.
pub fn range(value: f64, error: f64) -> Option<(f64, f64)> {
    if value <= 0.0 {
        return None;
    }
    let each = error * error / value;
    let centre = value + each * TWO_SIDED * TWO_SIDED / 2.0;
    let half = TWO_SIDED * error.hypot(each * TWO_SIDED / 2.0);
    Some(((centre - half).max(0.0), centre + half))
}

/// The same of what was estimated by bursts. There the value is a difference, of what was
/// allocated and of the deaths that were seen, each of which may stand for many: it may be
/// too high by as much as too low.
pub fn range_by_bursts(value: f64, error: f64) -> Option<(f64, f64)> {
    let (low, high) = range(value, error)?;
    Some((low.min((value - TWO_SIDED * error).max(0.0)), high))
}

/// The same of live blocks or bytes, which are estimated by bursts, or by a sample.
pub fn range_of_live(live: f64, error: f64, by_bursts: bool) -> Option<(f64, f64)> {
    match by_bursts {
        true => range_by_bursts(live, error),
        false => range(live, error),
    }
}

impl Errors {
    /// Whether there are none: all blocks were chosen for certain.
    pub fn are_none(&self) -> bool {
        self.allocated_bytes <= 0.0 && self.allocated_count <= 0.0
    }
}

impl Site {
    /// Whether chance has a part in its numbers.
    pub fn is_estimate(&self) -> bool {
        self.errors
            .as_ref()
            .is_some_and(|errors| !errors.are_none())
    }

    /// What is live of it for certain, to order sites by: of what was seen in bursts two
    /// standard errors less, or a path whose blocks may have died unseen would be before
    /// a leak.
    pub fn rank(&self) -> u64 {
        match (&self.errors, self.survival) {
            (Some(errors), Some(_)) => self
                .held_bytes()
                .saturating_sub(rounded(2.0 * errors.live_bytes)),
            _ => self.held_bytes(),
        }
    }

    /// Whether its live bytes are estimated by so few blocks that its place among the
    /// others says nothing.
    pub fn is_unsure(&self) -> bool {
        let errors = self.errors.as_ref();
        errors.is_some_and(|errors| errors.live_bytes > TOO_LARGE * self.live_bytes as f64)
            || self
                .survival
                .is_some_and(|it| self.live_bytes > 0 && !it.tells())
    }

    /// Where 95 % of such estimates have the live bytes; `None` if they are exact, or
    /// nothing.
    pub fn live_range(&self) -> Option<(u64, u64)> {
        let error = self.errors.as_ref()?.live_bytes;
        let (low, high) = range_of_live(self.live_bytes as f64, error, self.survival.is_some())?;
        Some((rounded(low), rounded(high)))
    }
}

impl Report {
    /// Whether numbers of blocks are estimates.
    pub fn is_sampled(&self) -> bool {
        self.sampling.is_some()
    }
}

/// To a whole number; a negative one is 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates"
)]
pub fn rounded(value: f64) -> u64 {
    value.round() as u64
}
