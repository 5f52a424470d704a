//! What was seen at one site, and what that says of the whole run.
//!
//! An allocation in a burst stands for those of the time since the spell before. Deaths of
//! such a block are seen with a probability that depends on its age ([`Coverage`]), and
//! each that is seen stands for one over that many (Horvitz and Thompson, 1952). Deaths in
//! a burst of blocks that were followed for certain stand for those since the spell before.
//!
//! How far the estimates may be from the truth is told by leaving out bursts (Quenouille
//! and Tukey's jackknife, by groups): blocks of one burst often die together, so deaths
//! are not independent of each other, but bursts at random moments are. They are dealt out
//! to [`GROUPS`] in turn, and what is left of a sum without a group stands for all of it.
//!
//! Deaths that were not seen vary in no group. Of few blocks, each of whose deaths would
//! hardly have been seen, that none was says little: one more death than was seen is as
//! likely as not (as in Laplace's rule of succession), and what that one would stand for
//! is how far off live blocks may be at least.

use std::collections::HashMap;

use super::GROUPS;
use super::coverage::{Coverage, bin};
use super::schedule::{Schedule, Standing};
use crate::model::budget::Survival;
use crate::targets::estimate::{Estimate, Estimates};

/// What was seen at a site in a spell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seen {
    /// Blocks that were allocated.
    pub allocated: Estimate,
    /// Those of them that were freed as long as they were followed for certain.
    pub freed: Estimate,
    /// Allocated blocks, those that were chosen of them.
    pub samples: u64,
    /// Those of them that were not freed so.
    pub kept: u64,
}

/// A block's death that is no part of [`Seen`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Late {
    /// What the block stands for.
    pub block: Estimate,
    /// The spell in which it was allocated.
    pub spell: usize,
    /// Its age, nanoseconds.
    pub age: u64,
}

/// Blocks and bytes.
type Sum = [f64; 2];

/// Blocks that were allocated in bursts of a group and died in such of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Met {
    bin: u8,
    born: u8,
    /// The group of the burst in which it died; [`FULL`] if it was none.
    died: u8,
}

/// Not the number of a group.
const FULL: u8 = u8::MAX;

/// What was seen at a site.
#[derive(Debug, Clone, Default)]
pub struct Flows {
    /// In spells that are no bursts: allocated, and freed.
    certain: [Estimate; 2],
    /// What bursts stand for, by group: allocated, and kept as long as they were followed
    /// for certain.
    allocated: [Sum; GROUPS],
    kept: [Sum; GROUPS],
    /// Deaths of blocks that were followed for certain: in other spells than bursts, and
    /// what those in bursts stand for, by group.
    gone: Estimate,
    gone_in: [Sum; GROUPS],
    /// Deaths of others, each times what the block stands for.
    young: HashMap<Met, Sum>,
    survival: Survival,
    /// Allocated blocks, those that were chosen of them.
    samples: u64,
    /// Of each kept block the time that was watched until it was, nanoseconds.
    watched_before: f64,
}

impl Flows {
    /// Adds what was seen in a spell that has ended, up to whose end so many nanoseconds were
    /// watched.
    pub fn add(&mut self, seen: &Seen, standing: Standing, watched: f64) {
        let kept = seen.allocated.without(&seen.freed);
        match standing.group {
            None => {
                self.certain[0].add(&seen.allocated);
                self.certain[1].add(&seen.freed);
            }
            Some(group) => {
                add(
                    &mut self.allocated[group],
                    &seen.allocated,
                    standing.of_allocations,
                );
                add(&mut self.kept[group], &kept, standing.of_allocations);
            }
        }
        self.survival.followed += seen.kept;
        self.samples += seen.samples;
        self.watched_before += seen.kept as f64 * watched;
    }

    /// Adds a death that was seen in a spell that has ended, of a block that was allocated
    /// in another.
    pub fn lose(&mut self, late: &Late, born: Standing, standing: Standing) {
        self.survival.died += 1;
        let Some(group) = born.group else {
            match standing.group {
                None => self.gone.add(&late.block),
                Some(group) => add(&mut self.gone_in[group], &late.block, standing.of_frees),
            }
            return;
        };
        let met = Met {
            bin: u8::try_from(bin(late.age)).unwrap_or(u8::MAX),
            born: small(group),
            died: standing.group.map_or(FULL, small),
        };
        let sum = self.young.entry(met).or_default();
        add(sum, &late.block, born.of_allocations);
    }

    /// Notes that a block was found to be gone whose address was handed out again.
    pub fn find_gone(&mut self) {
        self.survival.reused += 1;
    }

    /// What the run is like.
    pub fn estimates(&self, schedule: &Schedule, coverage: &Coverage, now: u64) -> Estimates {
        let allocated = self.total(schedule, |without, scale| {
            let bursts = sum_without(&self.allocated, without);
            plus(pair(&self.certain[0]), times(bursts, scale))
        });
        let live = self.total(schedule, |without, scale| {
            let kept = minus(
                sum_without(&self.kept, without),
                sum_without(&self.gone_in, without),
            );
            let young = self.young(coverage, without, scale);
            let certain = minus(self.certainly_kept(), pair(&self.gone));
            plus(certain, times(minus(kept, young), scale))
        });
        let certain = self.certain[0].without(&self.certain[1]);
        let one_more = self.one_more_death(schedule, now);
        let live = (live.0, plus(live.1, one_more.map(|part| part * part)));
        let live = with_variance(live, &certain, allocated.0);
        let allocated = with_variance(allocated, &self.certain[0], [f64::MAX; 2]);
        let survival = &self.survival;
        Estimates {
            samples: self.samples,
            live_samples: survival
                .followed
                .saturating_sub(survival.died + survival.reused),
            allocated,
            freed: Estimate {
                count_variance: allocated.count_variance + live.count_variance,
                bytes_variance: allocated.bytes_variance + live.bytes_variance,
                ..allocated.without(&live)
            },
            live,
        }
    }

    /// What one more death than was seen would stand for: one over the mean probability that
    /// a death was seen, times what a followed block stands for; all that was kept at most.
    fn one_more_death(&self, schedule: &Schedule, now: u64) -> Sum {
        if schedule.is_whole() {
            return [0.0; 2];
        }
        let kept = sum_without(&self.kept, None);
        let expected = self.survival(schedule, now).expected.max(1.0);
        times(kept, 1.0 / expected)
    }

    /// How many blocks were followed, and how many of them were seen to die.
    pub fn survival(&self, schedule: &Schedule, now: u64) -> Survival {
        let watched = schedule.watched() * self.survival.followed as f64;
        let exposure = watched - self.watched_before;
        let elapsed = now.saturating_sub(schedule.began()).max(1);
        Survival {
            expected: exposure / elapsed as f64,
            ..self.survival
        }
    }

    /// A sum over all bursts, and the variance that leaving out groups of them tells.
    fn total(&self, schedule: &Schedule, of: impl Fn(Option<usize>, f64) -> Sum) -> (Sum, Sum) {
        let whole = of(None, 1.0);
        let left: Vec<Sum> = (0..GROUPS)
            .filter_map(|group| Some(of(Some(group), schedule.without(group)?)))
            .collect();
        let n = left.len() as f64;
        if left.len() < 2 {
            // One burst says nothing of others.
            let part = minus(whole, self.certainly_kept());
            let unknown = if schedule.is_whole() { 0.0 } else { 1.0 };
            return (whole, part.map(|part| unknown * part * part));
        }
        let mean = times(left.iter().copied().fold([0.0; 2], plus), 1.0 / n);
        let squares = left
            .iter()
            .map(|one| minus(*one, mean).map(|part| part * part));
        (whole, times(squares.fold([0.0; 2], plus), (n - 1.0) / n))
    }

    /// What was allocated and not freed in spells that are no bursts.
    fn certainly_kept(&self) -> Sum {
        minus(pair(&self.certain[0]), pair(&self.certain[1]))
    }

    /// Deaths of blocks of bursts, without those that touch a group: fewer bursts see
    /// deaths less often, too.
    fn young(&self, coverage: &Coverage, without: Option<usize>, scale: f64) -> Sum {
        let without = without.map(small);
        let scale = |met: &Met| {
            let seen = coverage.seen(usize::from(met.bin));
            let scale = if met.died == FULL { 1.0 } else { scale };
            if seen > 0.0 { scale / seen } else { 0.0 }
        };
        let counts = |met: &&Met| without.is_none_or(|it| met.born != it && met.died != it);
        let all = self.young.iter().filter(|(met, _)| counts(met));
        all.fold([0.0; 2], |sum, (met, one)| {
            plus(sum, times(*one, scale(met)))
        })
    }
}

/// With what chance adds where a sample was chosen. No estimate is less than nothing.
fn with_variance((sum, variance): (Sum, Sum), sampled: &Estimate, most: Sum) -> Estimate {
    Estimate {
        count: sum[0].clamp(0.0, most[0].max(0.0)),
        bytes: sum[1].clamp(0.0, most[1].max(0.0)),
        count_variance: variance[0] + sampled.count_variance,
        bytes_variance: variance[1] + sampled.bytes_variance,
    }
}

fn small(group: usize) -> u8 {
    u8::try_from(group).unwrap_or(FULL - 1)
}

fn pair(estimate: &Estimate) -> Sum {
    [estimate.count, estimate.bytes]
}

fn add(sum: &mut Sum, estimate: &Estimate, weight: f64) {
    *sum = plus(*sum, times(pair(estimate), weight));
}

fn plus(a: Sum, b: Sum) -> Sum {
    [a[0] + b[0], a[1] + b[1]]
}

fn minus(a: Sum, b: Sum) -> Sum {
    [a[0] - b[0], a[1] - b[1]]
}

fn times(a: Sum, scale: f64) -> Sum {
    a.map(|part| part * scale)
}

fn sum_without(groups: &[Sum; GROUPS], without: Option<usize>) -> Sum {
    let left = groups
        .iter()
        .enumerate()
        .filter(|(group, _)| Some(*group) != without);
    left.fold([0.0; 2], |sum, (_, one)| plus(sum, *one))
}
