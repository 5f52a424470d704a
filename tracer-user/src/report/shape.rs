//! What the numbers of a site look like: a hint for the reader, from one run.

use crate::model::{MemoryKind, Report, Site};

/// Shorter runs tell nothing about growth, seconds.
const LEAST_DURATION: f64 = 2.0;

/// The shape of a site's allocations over the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Blocks are added through the run and hardly any is freed.
    Grows,
    /// Blocks are freed and replaced, none lives long: a cache, a buffer.
    Steady,
    /// All blocks date from the first part of the run: set-up.
    Once,
}

impl Shape {
    /// The shape of a site with live blocks; `None` if the run was too short
    /// or the numbers say nothing clear.
    pub fn of(site: &Site, report: &Report) -> Option<Self> {
        let duration = report.duration;
        let managed = site.kind == MemoryKind::JavaHeap;
        if duration < LEAST_DURATION || site.live_count == 0 || managed || site.is_unsure() {
            return None;
        }
        let freed_share = site.freed_count as f64 / site.allocated_count as f64;
        let oldest = site.oldest_age.unwrap_or(0.0);
        if site.last_seen < duration / 4.0 {
            return Some(Self::Once);
        }
        if freed_share > 0.5 && oldest < duration / 2.0 {
            return Some(Self::Steady);
        }
        let seen = site.errors.map_or(site.live_count, |it| it.live_samples);
        let several = seen > 2;
        let through_the_run = site.last_seen > duration / 2.0 && oldest > duration / 2.0;
        (several && through_the_run && freed_share < 0.5).then_some(Self::Grows)
    }

    /// In words, of pages: that they come is no leak yet.
    pub fn of_pages(self) -> &'static str {
        match self {
            Self::Grows => "grows through the run",
            Self::Steady => "given back and touched anew",
            Self::Once => "touched early in the run",
        }
    }

    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Grows => "grows: looks like a leak",
            Self::Steady => "steady: freed and replaced, like a cache",
            Self::Once => "allocated once, early in the run",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// The shape in a run of 10 s.
    fn shape(allocated: u64, freed: u64, oldest: f64, last_seen: f64) -> Option<Shape> {
        let report = Report {
            duration: 10.0,
            ..sample::report()
        };
        let site = Site {
            allocated_count: allocated,
            freed_count: freed,
            live_count: allocated - freed,
            oldest_age: Some(oldest),
            last_seen,
            ..report.sites[0].clone()
        };
        Shape::of(&site, &report)
    }

    #[test]
    fn a_leak_grows_a_cache_is_steady_and_a_start_happens_once() {
        assert_eq!(shape(500, 0, 9.9, 9.8), Some(Shape::Grows));
        assert_eq!(shape(500, 436, 1.2, 9.8), Some(Shape::Steady));
        assert_eq!(shape(3, 0, 9.9, 0.1), Some(Shape::Once));
    }

    #[test]
    fn unclear_numbers_get_no_hint() {
        assert_eq!(
            shape(500, 400, 9.9, 9.8),
            None,
            "mostly freed, but some stay"
        );
        assert_eq!(shape(1, 0, 2.0, 8.0), None, "a single late block");
        assert_eq!(shape(5, 5, 0.0, 9.8), None, "nothing live");
    }
}
