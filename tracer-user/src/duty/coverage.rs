//! How likely it was that a block's death was seen, by its age.
//!
//! A block that was allocated in a burst dies unseen if no burst is there at that moment.
//! How often one was follows from when there were bursts: of all pairs of moments that are
//! so far apart, the first within a burst, it is the part whose second is within a spell,
//! too. Since bursts come at random moments, it is the same for all blocks. In a burst less
//! happens than otherwise, so that it sees less.

use super::{Schedule, Spell};
use crate::model::sampling::rounded;

/// Ages that are told apart, in an octave.
const IN_AN_OCTAVE: f64 = 2.0;
/// The youngest, nanoseconds.
const YOUNGEST: f64 = 4e6;
/// How many there are: up to 19 days.
const BINS: usize = 58;
/// Bursts are cut into so many pieces.
const PIECES: u32 = 8;
/// Pairs of bursts that are looked at, about; if there are more, those of each so many'th
/// with all others, and of so many at least.
const PAIRS: usize = 2_000_000;
const LEAST: usize = 50;

/// Ages, and how likely deaths at them were seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Coverage {
    seen: Vec<f64>,
}

/// The bin of an age, nanoseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most BINS, and a cast from float saturates"
)]
pub fn bin(age: u64) -> usize {
    let octaves = (age as f64 / YOUNGEST).log2();
    ((octaves * IN_AN_OCTAVE) as usize).min(BINS - 1)
}

/// Where a bin begins, nanoseconds.
fn edge(bin: usize) -> f64 {
    match bin {
        0 => 0.0,
        BINS => f64::INFINITY,
        bin => YOUNGEST * (bin as f64 / IN_AN_OCTAVE).exp2(),
    }
}

impl Coverage {
    /// Of a run until `now`.
    pub fn of(schedule: &Schedule, now: u64) -> Self {
        let spells = schedule.spells();
        let mut sums = vec![[0.0; 2]; BINS];
        let bursts = schedule.bursts().max(1);
        let every = bursts.div_ceil((PAIRS / bursts).max(LEAST));
        for (index, spell) in spells.iter().enumerate() {
            let Some(work) = spell.burst.filter(|_| index % every == 0) else {
                continue;
            };
            let length = (spell.allocations_until - spell.began) as f64;
            // Each piece has the same part of what the burst stands for.
            let weight = work.since / f64::from(PIECES);
            for piece in 0..PIECES {
                let at = spell.began as f64 + length * (f64::from(piece) + 0.5) / f64::from(PIECES);
                // Later nobody looks for its blocks.
                let until = spell.let_go.unwrap_or(now).min(now);
                let ages = (0.0, until as f64 - at);
                add(&mut sums, ages, |sum| &mut sum[1], weight);
                let is_followed = |later: &&Spell| later.began < until;
                for later in spells[index..].iter().take_while(is_followed) {
                    let lag = (later.began as f64 - at, later.ended as f64 - at);
                    let speed = later.burst.map_or(1.0, |work| work.speed);
                    add(&mut sums, lag, |sum| &mut sum[0], weight * speed);
                }
            }
        }
        let part = |[seen, all]: &[f64; 2]| if *all > 0.0 { seen / all } else { 0.0 };
        Self {
            seen: sums.iter().map(part).collect(),
        }
    }

    /// The probability that a death in a bin was seen; 0 if none can have been.
    pub fn seen(&self, bin: usize) -> f64 {
        self.seen.get(bin).copied().unwrap_or(0.0)
    }
}

/// Adds a range of ages to the bins that it is in.
fn add(
    sums: &mut [[f64; 2]],
    (from, to): (f64, f64),
    which: impl Fn(&mut [f64; 2]) -> &mut f64,
    weight: f64,
) {
    let from = from.max(0.0);
    if to <= from {
        return;
    }
    let first = bin(rounded(from));
    for (bin, sum) in sums.iter_mut().enumerate().skip(first) {
        let (low, high) = (edge(bin).max(from), edge(bin + 1).min(to));
        if high > low {
            *which(sum) += weight * (high - low);
        }
        if edge(bin + 1) >= to {
            break;
        }
    }
}
