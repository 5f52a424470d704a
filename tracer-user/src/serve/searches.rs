//! For which findings of a closer look who holds their blocks is searched for, and when: plain
//! data and arithmetic.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::Report;

/// Searches of a look are so far apart at least.
const REST: Duration = Duration::from_mins(10);
/// What a finding's blocks have to have grown by, since they were searched for, to be
/// searched for again.
const GROWN: u64 = 2;

/// A finding whose holders may be searched for.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspect {
    /// What it is known by, from window to window.
    pub name: String,
    /// Bytes that are live.
    pub bytes: u64,
    /// Its sites, by their indices in the kernel.
    pub sites: Vec<u32>,
}

/// What was searched for, and when the next search may begin.
#[derive(Debug, Default)]
pub struct Searches {
    /// Bytes that findings had when they were searched for.
    searched: HashMap<String, u64>,
    /// Since the look's begin.
    not_before: Duration,
    /// The same of those that somebody asks for: they need no rest.
    paid: Duration,
}

impl Searches {
    /// The sites that are to be searched for now, the time since the look's begin: if any of
    /// these findings is new, or has doubled, those of all of them, its own first.
    pub fn due(&mut self, now: Duration, suspects: &[Suspect]) -> Vec<u32> {
        if now < self.not_before {
            return Vec::new();
        }
        let is_due = |suspect: &&Suspect| match self.searched.get(&suspect.name) {
            Some(before) => suspect.bytes >= before.saturating_mul(GROWN),
            None => true,
        };
        let (due, others): (Vec<_>, Vec<_>) = suspects.iter().partition(is_due);
        if due.is_empty() {
            return Vec::new();
        }
        let all = due.into_iter().chain(others);
        let mut sites = Vec::new();
        for suspect in all {
            self.searched.insert(suspect.name.clone(), suspect.bytes);
            sites.extend(&suspect.sites);
        }
        sites
    }

    /// A search has ended. It took so much processor time, of which the host's budget gives
    /// `rate` seconds in each second: the next one waits until that is paid.
    pub fn ended(&mut self, now: Duration, took: Duration, rate: f64) {
        let paid = Duration::try_from_secs_f64(took.as_secs_f64() / rate.max(1e-6));
        let paid = paid.unwrap_or(Duration::MAX / 2);
        self.paid = now + paid;
        self.not_before = now + paid.max(REST);
    }

    /// Whether all that has ended is paid for.
    pub fn are_paid(&self, now: Duration) -> bool {
        now >= self.paid
    }
}

/// Findings of a report that grow, and are as sure as is asked.
pub fn suspects(report: &Report, confidence: f64) -> Vec<Suspect> {
    let growing = report.findings.iter();
    let growing = growing.filter(|it| it.kind.is_growth() && it.confidence >= confidence);
    growing
        .filter_map(|finding| {
            let sites = report.sites.iter();
            let sites = sites.filter(|site| finding.sites.contains(&site.id));
            let sites: Vec<u32> = sites.flat_map(|it| it.indices.clone()).collect();
            (!sites.is_empty()).then(|| Suspect {
                name: finding.place(),
                bytes: finding.live_bytes,
                sites,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Finding, FindingKind};
    use crate::report::sample;

    fn suspect(name: &str, bytes: u64, site: u32) -> Suspect {
        Suspect {
            name: name.to_owned(),
            bytes,
            sites: vec![site],
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_finding_is_searched_for_once_and_when_it_has_doubled() {
        let mut searches = Searches::default();
        let first = [suspect("a", 100, 1)];
        assert_eq!(searches.due(SECOND, &first), [1]);
        searches.ended(2 * SECOND, SECOND, 1.0);
        let later = 2 * SECOND + REST;
        assert!(searches.due(later, &[suspect("a", 199, 1)]).is_empty());
        let both = [suspect("a", 199, 1), suspect("b", 5, 2)];
        assert!(searches.due(later - SECOND, &both).is_empty(), "it rests");
        assert_eq!(searches.due(later, &both), [2, 1], "the new one first");
        searches.ended(later, SECOND, 1.0);
        let grown = [suspect("a", 398, 1), suspect("b", 9, 2)];
        assert_eq!(searches.due(later + REST, &grown), [1, 2]);
    }

    #[test]
    fn a_search_is_paid_for_before_the_next() {
        let mut searches = Searches::default();
        searches.ended(SECOND, 30 * SECOND, 0.02);
        let new = [suspect("a", 1, 1)];
        let paid = 1501 * SECOND;
        assert!(searches.due(paid - SECOND, &new).is_empty());
        assert_eq!(searches.due(paid, &new), [1]);
        assert!(!searches.are_paid(paid - SECOND) && searches.are_paid(paid));
        searches.ended(paid, SECOND, 1.0);
        assert!(searches.are_paid(paid + SECOND), "no rest for who asks");
        searches.ended(paid, Duration::MAX, 0.0);
        assert!(searches.due(1000 * paid, &new).is_empty());
    }

    #[test]
    fn what_is_sure_and_has_blocks_is_searched_for() {
        let mut report = sample::report();
        report.sites[0].indices = vec![7, 9];
        let id = report.sites[0].id;
        let of = |confidence: f64, sites: Vec<u64>, kind| Finding {
            sites,
            ..Finding::new(kind, 0, confidence)
        };
        report.findings = vec![
            of(0.9, vec![id], FindingKind::Leak),
            of(0.8, vec![id], FindingKind::Growing),
            of(1.0, vec![id], FindingKind::Plateau),
            of(1.0, vec![], FindingKind::OutsideAllocations),
        ];
        let found = suspects(&report, 0.9);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].sites, [7, 9]);
    }
}
