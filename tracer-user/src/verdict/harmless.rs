//! What is no leak, in one finding for each kind.

use super::growing::MAX_SITES;
use crate::model::{Finding, FindingKind, Report, Site, Verdict};
use crate::report::units;

/// A finding for each kind of site that does no harm, as far as there are some with
/// something live; those that hold most first.
pub fn findings(report: &Report) -> Vec<Finding> {
    const KINDS: [(FindingKind, &[Verdict], &str); 3] = [
        (FindingKind::Startup, &[Verdict::Startup], "of start-up"),
        (
            FindingKind::Plateau,
            &[Verdict::Plateau],
            "without growth by now",
        ),
        (
            FindingKind::Churn,
            &[Verdict::Churn, Verdict::Batch],
            "with blocks that are freed and replaced",
        ),
    ];
    let of_kind = |(kind, verdicts, what): (FindingKind, &[Verdict], &str)| {
        let is_it = |site: &&Site| {
            let judged = site.verdict.is_some_and(|it| verdicts.contains(&it));
            judged && site.live_count > 0 && site.kind.is_memory()
        };
        of(
            kind,
            &report.sites.iter().filter(is_it).collect::<Vec<_>>(),
            what,
        )
    };
    let mut findings: Vec<_> = KINDS.into_iter().filter_map(of_kind).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.live_bytes));
    findings
}

fn of(kind: FindingKind, sites: &[&Site], what: &str) -> Option<Finding> {
    let first = sites.first()?;
    let sum = |of: fn(&Site) -> u64| {
        sites
            .iter()
            .fold(0_u64, |sum, site| sum.saturating_add(of(site)))
    };
    let live_bytes = sum(Site::held_bytes);
    let confidences = sites.iter().filter_map(|site| site.confidence);
    let mean = confidences.sum::<f64>() / sites.len() as f64;
    Some(Finding {
        title: format!(
            "{} {what} ({})",
            units::counted(sites.len() as u64, "call path"),
            units::bytes(live_bytes)
        ),
        sites: sites.iter().map(|site| site.id).take(MAX_SITES).collect(),
        site_count: sites.len() as u64,
        live_bytes,
        live_count: sum(|site| site.live_count),
        since: first.first_seen,
        ..Finding::new(kind, first.process, mean)
    })
}
