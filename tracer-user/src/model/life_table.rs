//! How long the blocks of a site live: a life table of the freed and the live ones.
//!
//! The live ones are censored: they have lived for their age, and will live longer. The
//! estimate is the actuarial one for grouped times (S. J. Cutler, F. Ederer, "Maximum
//! utilization of the life table method in analyzing survival", J. Chronic Dis. 8, 1958):
//! who is censored within an interval was at risk for half of it.

use super::LifetimeBucket;

/// How long blocks usually live: most of those that are freed are by then.
pub const MOST: f64 = 0.95;
/// Survivors lived for so many times that.
pub const FAR: f64 = 4.0;

/// An interval of ages.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Interval {
    /// Its upper bound, seconds; infinite for the last one.
    pub below: f64,
    /// Blocks that were freed at such an age.
    pub freed: u64,
    /// Blocks that are live at such an age.
    pub live: u64,
}

/// A site's blocks by the age that they were seen at last.
#[derive(Debug, Clone, Default)]
pub struct LifeTable {
    /// Ascending.
    intervals: Vec<Interval>,
}

/// What became of the blocks that had reached an age.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tail {
    /// How many reached it.
    pub reached: f64,
    /// Those of them that were freed.
    pub freed: f64,
}

impl LifeTable {
    /// The table of blocks that were freed after these lifetimes, and of those that are
    /// live at these ages.
    pub fn of(lifetimes: &[LifetimeBucket], ages: &[LifetimeBucket]) -> Self {
        let freed = lifetimes.iter().map(|bucket| Interval {
            freed: bucket.count,
            ..Interval::below(bucket)
        });
        let live = ages.iter().map(|bucket| Interval {
            live: bucket.count,
            ..Interval::below(bucket)
        });
        let mut intervals: Vec<Interval> = freed.chain(live).collect();
        intervals.sort_by(|a, b| a.below.total_cmp(&b.below));
        intervals.dedup_by(|next, kept| {
            let same = next.below.total_cmp(&kept.below).is_eq();
            if same {
                kept.freed += next.freed;
                kept.live += next.live;
            }
            same
        });
        Self { intervals }
    }

    /// Its intervals, ascending.
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// The age by which this part of the freed blocks were freed, seconds: the upper bound
    /// of its interval. `None` if none was freed.
    pub fn freed_by(&self, part: f64) -> Option<f64> {
        let all: f64 = self.intervals.iter().map(|it| it.freed as f64).sum();
        if all <= 0.0 {
            return None;
        }
        let mut sum = 0.0;
        let reaches = |it: &&Interval| {
            sum += it.freed as f64;
            sum >= part * all
        };
        self.intervals.iter().find(reaches).map(|it| it.below)
    }

    /// What became of those that reached an age of `seconds`.
    pub fn tail(&self, seconds: f64) -> Tail {
        let old = self.intervals.iter().filter(|it| it.below > seconds);
        old.fold(Tail::default(), |tail, it| Tail {
            reached: tail.reached + it.freed as f64 + it.live as f64,
            freed: tail.freed + it.freed as f64,
        })
    }

    /// The estimated part of blocks that are not freed before they are `seconds` old.
    pub fn survival(&self, seconds: f64) -> f64 {
        let all = self.intervals.iter();
        let mut at_risk: f64 = all.map(|it| it.freed as f64 + it.live as f64).sum();
        let mut survival = 1.0;
        for it in &self.intervals {
            if it.below > seconds {
                break;
            }
            let (freed, live) = (it.freed as f64, it.live as f64);
            let exposed = at_risk - live / 2.0;
            if exposed > 0.0 {
                survival *= 1.0 - (freed / exposed).min(1.0);
            }
            at_risk -= freed + live;
        }
        survival
    }
}

impl Interval {
    fn below(bucket: &LifetimeBucket) -> Self {
        Self {
            below: bucket.below.unwrap_or(f64::INFINITY),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(counts: &[(f64, u64)]) -> Vec<LifetimeBucket> {
        let bucket = |(below, count): &(f64, u64)| LifetimeBucket {
            below: below.is_finite().then_some(*below),
            count: *count,
        };
        counts.iter().map(bucket).collect()
    }

    #[test]
    fn who_is_live_counts_for_half_of_its_interval() {
        // Of 100 blocks 40 are freed below 1 s; 20 are live at such an age.
        let table = LifeTable::of(&buckets(&[(1.0, 40)]), &buckets(&[(1.0, 20), (2.0, 40)]));
        assert!((table.survival(0.5) - 1.0).abs() < 1e-9);
        assert!((table.survival(1.0) - (1.0 - 40.0 / 90.0)).abs() < 1e-9);
        assert!((table.survival(9.0) - table.survival(1.0)).abs() < 1e-9);
    }

    #[test]
    fn what_leaks_levels_off() {
        let table = LifeTable::of(
            &buckets(&[(0.001, 900), (0.002, 90)]),
            &buckets(&[(4.0, 5), (8.0, 5), (f64::INFINITY, 1)]),
        );
        assert_eq!(table.freed_by(0.5), Some(0.001));
        assert_eq!(table.freed_by(0.95), Some(0.002));
        assert_eq!(
            table.tail(0.01),
            Tail {
                reached: 11.0,
                freed: 0.0
            }
        );
        assert!((table.survival(1.0) - 11.0 / 1001.0).abs() < 1e-9);
        assert_eq!(LifeTable::default().freed_by(0.5), None);
        assert!((LifeTable::default().survival(1.0) - 1.0).abs() < 1e-9);
    }
}
