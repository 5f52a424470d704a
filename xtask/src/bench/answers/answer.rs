//! What a report says of a leak.

use std::path::Path;

use anyhow::Result;

use super::truth::Truth;
use crate::bench::looks::{self, names};
use crate::bench::model::{Errors, MemoryKind, Report, Site, sampling};

/// So near to the truth is what was counted one by one: the moment of a report is known to
/// a millisecond or two.
const EXACT: f64 = 0.002;

/// A report's answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    /// When the run began, seconds since 1970.
    pub(super) began: f64,
    /// Of how many seconds it is.
    pub(super) duration: f64,
    /// The place of the leak's first row in the table, from 1.
    pub(super) rank: Option<usize>,
    /// What is live by the leak's paths, bytes.
    pub(super) live: f64,
    /// Where 95 % of such estimates have the truth; `None` if that is not said.
    pub(super) range: Option<(f64, f64)>,
    /// By how much of itself all of that may be wrong besides.
    pub(super) factor: f64,
    /// Whether something was lost, so that it is too low.
    pub(super) lost: bool,
    /// Whether it was marked as too little to be ranked.
    pub(super) unsure: bool,
}

/// Whether the truth is where a report says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Covers {
    /// It is the number.
    Exact,
    /// It is within the interval.
    Within,
    /// It is within the interval with the factor of which the report says that all numbers
    /// share it.
    WithFactor,
    /// It is not.
    Outside,
    /// No interval is stated.
    Unstated,
}

impl Answer {
    /// Reads a report.
    ///
    /// # Errors
    /// Fails if it is none.
    pub(super) fn read(file: &Path, function: &str) -> Result<Self> {
        let report = looks::read(file)?;
        let began = looks::began(&report)?;
        Ok(Self::of(&report, began, function))
    }

    fn of(report: &Report, began: f64, function: &str) -> Self {
        let table = rows(report);
        let is_leak = |site: &&&Site| site.frames.iter().any(|frame| names(frame, function));
        let leaks: Vec<_> = table.iter().filter(is_leak).collect();
        let live: f64 = leaks.iter().map(|site| site.held_bytes() as f64).sum();
        let mut errors = Errors::default();
        for site in &leaks {
            errors.add(&site.errors.unwrap_or_default());
        }
        let estimated = leaks.iter().any(|site| site.is_estimate());
        let by_bursts = leaks.iter().any(|site| site.survival.is_some());
        Self {
            began,
            duration: report.duration,
            rank: table
                .iter()
                .position(|site| is_leak(&site))
                .map(|at| at + 1),
            live,
            range: sampling::range_of_live(live, errors.live_bytes, by_bursts)
                .filter(|_| estimated),
            factor: report.budget.as_ref().map_or(0.0, |it| it.scale_error),
            lost: leaks.iter().any(|site| site.lower_bound),
            unsure: leaks.first().is_some_and(|site| site.is_unsure()),
        }
    }

    /// How far it is off, as a part of what is true.
    pub(super) fn error(&self, truth: &Truth) -> f64 {
        self.live / self.truth(truth) - 1.0
    }

    fn truth(&self, truth: &Truth) -> f64 {
        truth.leaked(self.began, self.began + self.duration)
    }

    /// Whether what is true is where it says.
    pub(super) fn covers(&self, truth: &Truth) -> Covers {
        let is = self.truth(truth);
        match self.range {
            Some((low, high)) if (low..=high).contains(&is) => Covers::Within,
            Some((low, high)) => {
                let (less, more) = (1.0 - self.factor, 1.0 + self.factor);
                match (low * less..=high * more).contains(&is) {
                    true => Covers::WithFactor,
                    false => Covers::Outside,
                }
            }
            None if self.error(truth).abs() < EXACT => Covers::Exact,
            None => Covers::Unstated,
        }
    }
}

/// The rows of the table, as `report/text/site.rs` orders them. Pages are another account
/// of the same memory, where blocks are there.
fn rows(report: &Report) -> Vec<&Site> {
    let is_page = |site: &&Site| site.kind == MemoryKind::Page;
    let all_pages = report.memory().all(|site| is_page(&site));
    let mut rows: Vec<_> = report
        .memory()
        .filter(|site| site.live_count > 0 && (all_pages || !is_page(site)))
        .collect();
    rows.sort_by(|a, b| b.rank().cmp(&a.rank()).then(a.id.cmp(&b.id)));
    rows
}
