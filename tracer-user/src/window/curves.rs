//! What is live at each site over time, within bounds: all sites are read at the same
//! moments, of which there are at most 64; after as many every second is forgotten.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracer_ebpf::site::SiteKey;

use crate::model::{CurvePoint, Level, MemoryKind, OlderFrees};

/// Moments that are kept at most.
const MAX_MOMENTS: usize = 64;
/// The time between the first ones.
const FIRST_GAP: Duration = Duration::from_millis(250);
/// Reading takes no more than one part in so many of the time between two moments.
const PART: u32 = 200;

/// A site, and what of it is counted.
pub type Key = (SiteKey, MemoryKind);

/// What was live over time.
pub struct Curves {
    /// When, seconds from the run's start.
    moments: Vec<f64>,
    /// What there was at the last moments, as many as there are since the site had anything.
    levels: HashMap<Key, Vec<Level>>,
    /// Blocks from before the run that had been freed, at the first moments.
    older: Vec<u64>,
    gap: Duration,
    due: Option<Instant>,
}

impl Default for Curves {
    fn default() -> Self {
        Self {
            moments: Vec::new(),
            levels: HashMap::new(),
            older: Vec::new(),
            gap: FIRST_GAP,
            due: None,
        }
    }
}

impl Curves {
    /// Enters a moment, seconds from the run's start and after the last, with all that is
    /// live then.
    pub fn enter(&mut self, at: f64, now: HashMap<Key, Level>) {
        if self.moments.last().is_some_and(|last| *last >= at) {
            return;
        }
        if self.moments.len() >= MAX_MOMENTS {
            self.thin();
        }
        let before = self.moments.len();
        self.moments.push(at);
        for (key, levels) in &mut self.levels {
            if !now.contains_key(key) {
                // Given to others meanwhile, or unmapped: nothing is live.
                let last = levels.last().copied().unwrap_or_default();
                levels.push(Level {
                    allocated_count: last.allocated_count,
                    ..Level::default()
                });
            }
        }
        for (key, level) in now {
            let levels = self.levels.entry(key).or_default();
            // One that had something and was forgotten began anew.
            levels.truncate(before);
            levels.push(level);
        }
    }

    /// Enters how many blocks from before the run had been freed by the last moment.
    pub fn enter_older_frees(&mut self, count: u64) {
        if self.older.len() < self.moments.len() {
            self.older.push(count);
        }
    }

    /// The moments that this was entered at.
    pub fn older_frees(&self) -> Vec<OlderFrees> {
        let moments = self.moments.iter().zip(&self.older);
        let points = moments.map(|(at, count)| OlderFrees {
            at: *at,
            count: *count,
        });
        points.collect()
    }

    /// Forgets every second moment, and sites that had nothing at the others.
    fn thin(&mut self) {
        let all = self.moments.len();
        let stays = |at: usize| at % 2 == 1;
        let mut at = 0;
        self.moments.retain(|_| {
            at += 1;
            stays(at)
        });
        let mut at = 0;
        self.older.retain(|_| {
            at += 1;
            stays(at)
        });
        self.levels.retain(|_, levels| {
            let mut at = all - levels.len();
            levels.retain(|_| {
                at += 1;
                stays(at)
            });
            levels.iter().any(|level| level.live_count > 0)
        });
        self.gap *= 2;
    }

    /// What a site had at the moments since it had anything, and that it had nothing before.
    pub fn of(&self, key: SiteKey, kind: MemoryKind) -> Vec<CurvePoint> {
        let Some(levels) = self.levels.get(&(key, kind)) else {
            return Vec::new();
        };
        let from = self.moments.len().saturating_sub(levels.len());
        let before = from.checked_sub(1).and_then(|at| self.moments.get(at));
        let before = before.map(|at| CurvePoint::new(*at, Level::default()));
        let known = self.moments.iter().skip(from).zip(levels);
        let known = known.map(|(at, level)| CurvePoint::new(*at, *level));
        before.into_iter().chain(known).collect()
    }

    /// Whether it is time for another moment.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// It is time for another moment.
    pub fn hasten(&mut self) {
        self.due = None;
    }

    /// The next moment is not before a while after `end`, since this one `took` so long.
    pub fn rest(&mut self, end: Instant, took: Duration) {
        self.due = Some(end + self.gap.max(took * PART));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(low: u64) -> Key {
        (SiteKey { high: 0, low }, MemoryKind::Heap)
    }

    fn level(live: u64) -> Level {
        Level {
            live_bytes: live * 10,
            live_count: live,
            allocated_count: live,
        }
    }

    #[test]
    fn a_long_run_has_no_more_moments_than_a_short_one() {
        let mut curves = Curves::default();
        for tick in 0..1000_u32 {
            let mut now = HashMap::from([(key(1), level(tick.into()))]);
            if tick >= 500 {
                now.insert(key(2), level(u64::from(tick) - 499));
            }
            curves.enter(f64::from(tick), now);
        }
        let moments = &curves.moments;
        assert!((MAX_MOMENTS / 2..=MAX_MOMENTS).contains(&moments.len()));
        let of = |low| curves.of(key(low).0, MemoryKind::Heap);
        for point in of(1) {
            assert!(
                (point.at - point.live_count as f64).abs() < 0.1,
                "{point:?}"
            );
        }
        let late = of(2);
        assert_eq!((late[0].live_count, late[0].at < 500.0), (0, true));
        assert!((late[1].at - 499.0 - late[1].live_count as f64).abs() < 0.1);
        assert!(late.len() > moments.len() / 3);
    }

    #[test]
    fn what_is_gone_is_nothing_and_what_comes_back_is_what_it_is() {
        let mut curves = Curves::default();
        for now in [Some(3), None, Some(2)] {
            let now = now.map(|live| (key(1), level(live)));
            curves.enter(curves.moments.len() as f64, now.into_iter().collect());
        }
        let live = |curve: &[CurvePoint]| curve.iter().map(|it| it.live_count).collect::<Vec<_>>();
        assert_eq!(live(&curves.of(key(1).0, MemoryKind::Heap)), [3, 0, 2]);
        let point = |at, live| CurvePoint::new(at, level(live));
        let sum = CurvePoint::sum(&[point(2.0, 1)], &[point(1.0, 5), point(2.0, 6)]);
        assert_eq!(live(&sum), [5, 7]);
    }
}
