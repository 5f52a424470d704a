//! What no verdict was found for, and has most of a growth: it goes up and down too much, or came too
//! late, for its numbers to tell. That is no all-clear.

use std::collections::HashSet;

use super::engine;
use super::growing::MAX_SITES;
use super::undecided;
use crate::model::{Finding, MemoryKind, Report, Site};
use crate::report::own::goes_with_a_stack;
use crate::report::text::SHORTEST;
use crate::report::units;

/// Less than this part of what the process grew by is left as it is.
const PART: f64 = 0.3;

/// A finding for each language's heap and each call path like that, but for those that are `told`
/// otherwise (sites by their indices).
pub fn findings(report: &Report, told: &[usize]) -> Vec<Finding> {
    if report.duration < SHORTEST || report.is_sampled() {
        return Vec::new();
    }
    let mut told: HashSet<usize> = told.iter().copied().collect();
    let mut findings = Vec::new();
    for heap in engine::heaps(report) {
        let sites = heap.sites(report);
        let sites: Vec<&Site> = sites.iter().map(AsRef::as_ref).collect();
        let sum = Site::sum(&sites);
        let is_told = heap.sites.iter().any(|at| told.contains(at));
        if is_open(report, sites[0], &sum) && !is_told {
            findings.push(finding(report, &sum, heap.name, &sites));
        }
        told.extend(heap.sites);
    }
    for (index, site) in report.sites.iter().enumerate() {
        if !told.contains(&index) && is_open(report, site, site) {
            let function = undecided::function(site);
            findings.push(finding(report, site, &function, &[site]));
        }
    }
    findings
}

/// Whether nothing is said of a site, or of the first of several, that hold so much together.
fn is_open(report: &Report, first: &Site, sum: &Site) -> bool {
    let is_kind = matches!(first.kind, MemoryKind::Heap | MemoryKind::Mapping);
    first.verdict.is_none()
        && is_kind
        && !first.is_unsure()
        && !goes_with_a_stack(report, first)
        && undecided::is_much(report, sum, PART)
}

fn finding(report: &Report, sum: &Site, function: &str, sites: &[&Site]) -> Finding {
    let mut evidence = Vec::new();
    if sites.len() > 1 {
        let paths = units::counted(sites.len() as u64, "call path");
        evidence.push(format!("{paths} have this in common"));
    }
    evidence.push(format!(
        "what came in {} and what went of it tells no trend",
        units::seconds(report.duration)
    ));
    Finding {
        sites: sites.iter().map(|site| site.id).take(MAX_SITES).collect(),
        site_count: sites.len() as u64,
        ..undecided::finding_of(report, sum, function, evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Balance, FindingKind, Verdict};
    use crate::report::sample;

    const MIB: u64 = 1 << 20;

    fn site(id: u64, bytes: u64, function: &str) -> Site {
        let frames = vec![
            sample::program("parse", "a.c", 5, id),
            sample::program(function, "b.c", 7, 2),
        ];
        Site {
            verdict: None,
            ..sample::site(id, (bytes, 900), (bytes, 900), frames)
        }
    }

    fn found(sites: Vec<Site>, growth: u64) -> Vec<Finding> {
        let report = Report {
            balance: vec![Balance {
                growth: growth.cast_signed(),
                ..Balance::default()
            }],
            sites,
            duration: 12.0,
            ..sample::report()
        };
        findings(&report, &[])
    }

    #[test]
    fn most_of_a_growth_is_told_though_nobody_can_say_what_it_is() {
        let all = found(vec![site(1, 6 * MIB, "keep")], 10 * MIB);
        let [finding] = &all[..] else {
            panic!("{all:?}");
        };
        assert_eq!(finding.kind, FindingKind::Undecided);
        assert_eq!(finding.title, "6.00 MiB in memory for keep");
        assert!(finding.path.contains(&"keep".to_owned()), "{finding:?}");
        // It is little of the growth, or little.
        assert_eq!(found(vec![site(1, 2 * MIB, "keep")], 10 * MIB), []);
        assert_eq!(found(vec![site(1, MIB / 2, "keep")], MIB), []);
        let judged = Site {
            verdict: Some(Verdict::Plateau),
            ..site(1, 6 * MIB, "keep")
        };
        assert_eq!(found(vec![judged], 10 * MIB), []);
    }

    #[test]
    fn a_languages_heap_is_one() {
        let grows = |id: u64| site(id, 3 * MIB, "requestOsChunks__system_4433");
        let all = found(vec![grows(1), grows(2)], 10 * MIB);
        let [finding] = &all[..] else {
            panic!("{all:?}");
        };
        assert_eq!(finding.title, "6.00 MiB in memory for Nim's heap");
        assert!(
            finding.evidence[0].starts_with("2 call paths"),
            "{finding:?}"
        );
    }
}
