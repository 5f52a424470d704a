//! What was live of each call path over time, for as long as it was watched.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::model::{Report, Site};

/// Points that are kept of a call path: the last ones.
const POINTS: usize = 40;
/// Growth is that of so many last seconds, or of the last two points if they are further apart.
const HORIZON: f64 = 10.0;

/// What was live at a time: seconds since the run's start, and bytes.
pub type Point = (f64, u64);

/// The points of all call paths of the last report, by their keys.
#[derive(Debug, Default)]
pub struct History(HashMap<u64, Vec<Point>>);

impl History {
    /// Enters a report. Call paths that it has not are forgotten.
    pub fn enter(&mut self, report: &Report, keys: &[u64]) {
        let mut before = std::mem::take(&mut self.0);
        for (site, key) in report.sites.iter().zip(keys) {
            let mut points = before.remove(key).unwrap_or_default();
            if points.last().is_none_or(|(at, _)| *at < report.duration) {
                points.push((report.duration, site.held_bytes()));
            }
            let superfluous = points.len().saturating_sub(POINTS);
            points.drain(..superfluous);
            self.0.insert(*key, points);
        }
    }

    /// What is known of a call path: the curve that its report has, or what was seen here.
    pub fn of(&self, site: &Site, key: u64) -> Vec<Point> {
        let seen = self.0.get(&key).map(Vec::as_slice).unwrap_or_default();
        let curve = site.curve.iter().map(|it| (it.at, it.live_bytes));
        match site.curve.len() > seen.len() {
            true => curve.collect(),
            false => seen.to_vec(),
        }
    }
}

/// By how many bytes a second the last points grow; `None` if there are not two.
pub fn growth(points: &[Point]) -> Option<f64> {
    let (last, before) = points.split_last()?;
    let near = before.iter().find(|(at, _)| *at >= last.0 - HORIZON);
    let first = near.or_else(|| before.last())?;
    let seconds = last.0 - first.0;
    (seconds > 0.0).then(|| (last.1 as f64 - first.1 as f64) / seconds)
}

/// What tells the call paths of a report apart, the same in each report of a run.
pub fn keys(report: &Report) -> Vec<u64> {
    let mut seen: HashMap<u64, u64> = HashMap::new();
    let key = |site: &Site| {
        let key = key(report, site);
        let times = seen.entry(key).or_insert(0);
        *times += 1;
        // Paths that differ in what is not hashed keep their order.
        key.wrapping_add(*times - 1)
    };
    report.sites.iter().map(key).collect()
}

fn key(report: &Report, site: &Site) -> u64 {
    let mut hasher = DefaultHasher::new();
    let process = report.processes.get(site.process);
    process.map(|it| it.pid).hash(&mut hasher);
    std::mem::discriminant(&site.kind).hash(&mut hasher);
    site.thread.as_ref().map(|it| it.id).hash(&mut hasher);
    for frame in &site.frames {
        frame.function.as_deref().hash(&mut hasher);
        frame.module.as_deref().hash(&mut hasher);
        (frame.line, frame.inlined).hash(&mut hasher);
        if frame.function.is_none() {
            (frame.module_offset, frame.address).hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn growth_is_that_of_the_last_seconds() {
        let points: Vec<Point> = (0..30).map(|at| (f64::from(at), 0)).collect();
        assert_eq!(growth(&points), Some(0.0));
        let mut points = points;
        points.push((30.0, 5000));
        assert_eq!(growth(&points), Some(500.0));
        assert_eq!(growth(&[(0.0, 9), (60.0, 3)]), Some(-0.1));
        assert_eq!(growth(&[(0.0, 9)]), None);
        assert_eq!(growth(&[(5.0, 9), (5.0, 10)]), None);
    }

    #[test]
    fn a_path_is_known_again_and_its_points_are_bounded() {
        let mut report = sample::report();
        let first = keys(&report);
        let mut history = History::default();
        for second in 0..100_u32 {
            report.duration = f64::from(second);
            report.sites[0].live_bytes += 10;
            report.sites.rotate_left(1);
            let now = keys(&report);
            history.enter(&report, &now);
            report.sites.rotate_right(1);
        }
        assert_eq!(keys(&report), first);
        let points = history.of(&report.sites[0], first[0]);
        assert_eq!(points.len(), POINTS);
        assert_eq!(growth(&points), Some(10.0));
        report.sites.remove(0);
        history.enter(&report, &first[1..]);
        assert_eq!(history.0.len(), report.sites.len());
    }

    #[test]
    fn equal_paths_have_keys_of_their_own() {
        let mut report = sample::report();
        report.sites.push(report.sites[0].clone());
        let keys = keys(&report);
        assert_ne!(keys[0], keys[report.sites.len() - 1]);
    }
}
