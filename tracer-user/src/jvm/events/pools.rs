//! Memory pools as they are after each collection.

use std::collections::BTreeMap;

/// Pools of one virtual machine; it has some eight.
const MAX_POOLS: usize = 64;

/// Points of one pool's series. When there are more, neighbours become one.
const MAX_POINTS: usize = 512;

/// A pool after a collection; bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that the virtual machine has for it.
    pub committed: u64,
    /// Bytes that it may have; `None` if that is not bounded.
    pub max: Option<u64>,
}

/// One pool over time.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    points: Vec<Point>,
    /// Points that become one.
    step: usize,
    /// Points that the last one stands for.
    filled: usize,
}

impl Pool {
    fn add(&mut self, point: Point) {
        self.step = self.step.max(1);
        if self.filled < self.step
            && let Some(last) = self.points.last_mut()
        {
            *last = lower(*last, point);
            self.filled += 1;
            return;
        }
        if self.points.len() >= MAX_POINTS {
            let pairs = self.points.chunks(2);
            self.points = pairs
                .filter_map(|pair| pair.iter().copied().reduce(lower))
                .collect();
            self.step *= 2;
        }
        self.points.push(point);
        self.filled = 1;
    }

    /// The points, by time. Where there were too many, each stands for several:
    /// it is the lowest of them.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The least bytes in use in the first third of the time, and in the last;
    /// `None` with fewer than three points.
    pub fn floors(&self) -> Option<(u64, u64)> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        let third = (last.time.checked_sub(first.time)?) / 3;
        if self.points.len() < 3 {
            return None;
        }
        let least = |from: u64, to: u64| {
            let within = self.points.iter().filter(|p| (from..=to).contains(&p.time));
            within.map(|point| point.used).min()
        };
        Some((
            least(first.time, first.time + third)?,
            least(last.time - third, last.time)?,
        ))
    }
}

/// The one with fewer bytes in use.
fn lower(one: Point, other: Point) -> Point {
    if other.used < one.used { other } else { one }
}

/// All pools by name.
#[derive(Debug, Default)]
pub struct Pools(BTreeMap<String, Pool>);

impl Pools {
    /// Adds what a pool is after a collection.
    pub fn add(&mut self, name: &str, point: Point) {
        if let Some(pool) = self.0.get_mut(name) {
            pool.add(point);
        } else if self.0.len() < MAX_POOLS {
            self.0.entry(name.to_owned()).or_default().add(point);
        }
    }

    /// Each pool by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Pool)> {
        self.0.iter().map(|(name, pool)| (name.as_str(), pool))
    }
}

/// Whether objects that survive end up in a pool of this name.
pub fn is_old(name: &str) -> bool {
    name.contains("Old Gen")
        || name.contains("Tenured")
        || name == "ZHeap"
        || name.starts_with("Shenandoah")
        || name.starts_with("Epsilon")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(time: u64, used: u64) -> Point {
        Point {
            time,
            used,
            committed: 1 << 20,
            max: None,
        }
    }

    #[test]
    fn the_floor_is_the_least_of_a_third() {
        let mut pool = Pool::default();
        for (time, used) in [(0, 50), (10, 40), (30, 90), (60, 10), (80, 70), (90, 60)] {
            assert_eq!(pool.floors().is_some(), pool.points().len() >= 3);
            pool.add(point(time, used));
        }
        assert_eq!(pool.floors(), Some((40, 10)));
    }

    #[test]
    fn a_long_series_keeps_its_floor() {
        let mut pool = Pool::default();
        for time in 0..10_000 {
            pool.add(point(time, 1000 + time % 7));
            assert!(pool.points().len() <= MAX_POINTS);
        }
        assert!(pool.points().is_sorted_by_key(|point| point.time));
        assert_eq!(pool.floors(), Some((1000, 1000)));
        assert!(pool.points().len() > MAX_POINTS / 3);
    }

    #[test]
    fn old_generations_are_known_by_name() {
        for name in [
            "G1 Old Gen",
            "PS Old Gen",
            "Tenured Gen",
            "ZGC Old Generation",
            "ZHeap",
        ] {
            assert!(is_old(name), "{name}");
        }
        for name in ["G1 Eden Space", "Metaspace", "ZGC Young Generation"] {
            assert!(!is_old(name), "{name}");
        }
    }
}
