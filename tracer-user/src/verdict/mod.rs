//! The answers of a run: what each site is, what grows, and what is no leak.

mod change;
mod compared;
mod curve;
mod deep;
mod descriptors;
mod ends;
mod engine;
mod forecast;
mod growing;
mod harmless;
mod heap;
mod held;
mod judge;
#[cfg(test)]
mod large;
mod outside;
mod path;
mod renewed;
mod replaced;
mod retention;
#[cfg(test)]
mod simulated;
mod since;
mod stacks;
mod step;
mod together;
mod tree;
mod uncollected;
mod undecided;
mod unjudged;

use std::collections::HashSet;

pub use compared::compared;
pub use curve::Curve;
use ends::Ends;
pub use heap::class_of;
pub use since::Since;

use crate::model::{Finding, FindingKind, Report};
use crate::report::text::MAX_FINDINGS;
use crate::report::{owned, pool};

/// Curves of more sites than these, and those of findings, are in no report: the ones
/// that hold most.
const MAX_CURVES: usize = 20;

/// A run's report, with all that follows from what it has: whose memory is which, and the findings.
pub fn concluded(mut report: Report) -> Report {
    pool::tell_apart(&mut report);
    owned::tell_apart(&mut report);
    conclude(&mut report);
    report
}

/// Judges all sites of a report, and enters its findings.
pub fn conclude(report: &mut Report) {
    let ends = Ends::of(report);
    let pages = report
        .growth
        .iter_mut()
        .flat_map(|growth| &mut growth.sites);
    for site in report.sites.iter_mut().chain(pages) {
        let judged = judge::judge(site, ends.of_site(site));
        site.verdict = judged.map(|judgement| judgement.verdict);
        site.confidence = judged.map(|judgement| judgement.confidence);
    }
    together::judge_together(report, &ends);
    engine::judge_heaps(report, &ends);
    replaced::take_back(report, &ends);
    renewed::take_back(report);
    report.sites.iter_mut().for_each(held::raise);
    stacks::take_back(report);
    uncollected::take_back(report);
    let undecided = undecided::take_back(report, &ends);
    let mut findings = growing::findings(report);
    findings.extend(heap::findings(report));
    findings.extend(outside::findings(report));
    findings.extend(deep::findings(report));
    findings.extend(descriptors::findings(report));
    findings.extend(retention::findings(report));
    findings.extend(undecided::findings(report, &undecided));
    findings.extend(unjudged::findings(report, &undecided));
    held::enter(report, &mut findings);
    stacks::enter(report, &mut findings);
    findings.sort_by(|a, b| b.weight().total_cmp(&a.weight()));
    show_descriptors(&mut findings);
    findings.extend(harmless::findings(report));
    report.findings = findings;
    forget_curves(report);
}

/// Descriptors have no bytes and a limit, at which a program fails: they are among those findings
/// that are told one by one, the last of them if others weigh more.
fn show_descriptors(findings: &mut Vec<Finding>) {
    let is_it = |finding: &Finding| finding.kind == FindingKind::Descriptors;
    let all = findings.iter().enumerate();
    let leaders = all.filter(|(_, it)| it.in_step_with.is_none());
    let Some((place, _)) = leaders.take(MAX_FINDINGS).last() else {
        return;
    };
    if let Some(at) = findings.iter().position(is_it).filter(|at| *at > place) {
        let descriptors = findings.remove(at);
        findings.insert(place, descriptors);
    }
}

impl Finding {
    /// How important it is: what is likely and much comes first.
    fn weight(&self) -> f64 {
        let certain = match self.kind {
            FindingKind::Leak => self.confidence,
            _ => 0.5 * self.confidence,
        };
        // What has no bytes, such as threads, comes after all that has.
        certain * self.bytes_per_second.max(f64::MIN_POSITIVE)
    }
}

/// So much since the tracing of a process that runs began, a second; 0 if that is no time.
fn per_second(report: &Report, process: usize, amount: f64) -> f64 {
    let began = report.processes.get(process).map_or(0.0, |it| it.began);
    let seconds = report.duration - began;
    match seconds > 0.0 {
        true => amount / seconds,
        false => 0.0,
    }
}

fn forget_curves(report: &mut Report) {
    let told = report
        .findings
        .iter()
        .filter(|finding| finding.kind.is_growth());
    let told: HashSet<u64> = told.flat_map(|finding| &finding.sites).copied().collect();
    let sites = report.sites.iter_mut().skip(MAX_CURVES);
    for site in sites.filter(|site| !told.contains(&site.id)) {
        site.curve = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_told_one_by_one() {
        let leak = |site: u64| Finding {
            sites: vec![site],
            ..Finding::new(FindingKind::Leak, 0, 0.9)
        };
        let descriptors = || Finding::new(FindingKind::Descriptors, 0, 0.8);
        let order = |mut findings: Vec<Finding>| {
            show_descriptors(&mut findings);
            let mut findings = findings.iter();
            findings.position(|it| it.kind == FindingKind::Descriptors)
        };
        let leaks = |count: u64| (0..count).map(leak).collect::<Vec<_>>();
        let with = |mut findings: Vec<Finding>| {
            findings.push(descriptors());
            order(findings)
        };
        assert_eq!(with(leaks(9)), Some(MAX_FINDINGS - 1));
        assert_eq!(with(leaks(2)), Some(2));
        assert_eq!(with(leaks(0)), Some(0));
        assert_eq!(order(leaks(9)), None);
        // What goes in step with another is told there.
        let mut findings = leaks(9);
        findings[1].in_step_with = Some(0);
        assert_eq!(with(findings), Some(MAX_FINDINGS));
    }
}
