//! What a report says of a behaviour.

use std::collections::HashSet;

use super::label::Label;
use crate::bench::looks::{is_of, names};
use crate::bench::model::{
    ClassGrowth, Finding, FindingKind, GrowthVerdict, Report, Site, Verdict,
};

/// A verdict on what is judged, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Said {
    pub(super) verdict: Verdict,
    pub(super) confidence: f64,
    /// How fast it is said to grow, bytes a second, if it is said to.
    pub(super) rate: Option<f64>,
}

impl Said {
    /// What the findings say, or where there is none the verdict on the site that allocated
    /// most: one that gives it all back has nothing live at times.
    /// `None`: nothing is said.
    pub(super) fn of(report: &Report, label: &Label) -> Option<Self> {
        let findings = Self::of_findings(report, label);
        match label.is_class() {
            true => findings.or_else(|| Self::of_class(report, label)),
            false => findings.or_else(|| Self::of_sites(report, label)),
        }
    }

    fn of_findings(report: &Report, label: &Label) -> Option<Self> {
        let about = report
            .findings
            .iter()
            .filter(|it| is_about(report, it, label));
        let about: Vec<&Finding> = about.collect();
        [
            (FindingKind::Leak, Verdict::Leak),
            (FindingKind::Growing, Verdict::Growing),
        ]
        .into_iter()
        .find_map(|(kind, verdict)| {
            let of_kind = about.iter().filter(|it| it.kind == kind);
            // They are ordered by what they grow by, and how sure that is.
            let first = of_kind.clone().next()?;
            Some(Self {
                verdict,
                confidence: first.confidence,
                rate: Some(of_kind.map(|it| it.bytes_per_second).sum()),
            })
        })
    }

    fn of_sites(report: &Report, label: &Label) -> Option<Self> {
        let asked = |site: &&Site| (site.allocated_bytes, site.allocated_count);
        let most = sites(report, label).max_by_key(asked)?;
        Some(Self {
            verdict: most.verdict?,
            confidence: most.confidence?,
            rate: None,
        })
    }

    /// A class that is not listed has as many objects as before.
    fn of_class(report: &Report, label: &Label) -> Option<Self> {
        let heap = report.java_heap.first()?;
        let class = heap.classes.iter().find(|it| is_class(it, label));
        let verdict = match class.map_or(GrowthVerdict::Steady, |it| it.verdict) {
            GrowthVerdict::Grows => Verdict::Leak,
            GrowthVerdict::Unknown => Verdict::Growing,
            GrowthVerdict::Steady => Verdict::Plateau,
        };
        // No confidence is stated of what does not grow.
        Some(Self {
            verdict,
            confidence: 0.0,
            rate: None,
        })
    }
}

fn is_class(class: &ClassGrowth, label: &Label) -> bool {
    class.class == label.judged
}

fn sites<'a>(report: &'a Report, label: &'a Label) -> impl Iterator<Item = &'a Site> {
    let is_it = |site: &&Site| site.frames.iter().any(|frame| names(frame, &label.judged));
    report.sites.iter().filter(is_it)
}

/// Whether a finding is about what is judged.
fn is_about(report: &Report, finding: &Finding, label: &Label) -> bool {
    if label.is_class() {
        // "objects of CLASS stay: …"
        let class = finding.title.strip_prefix("objects of ");
        return class.is_some_and(|rest| rest.split(' ').next() == Some(label.judged.as_str()));
    }
    let ids: HashSet<u64> = sites(report, label).map(|site| site.id).collect();
    finding.path.iter().any(|name| is_of(name, &label.judged))
        || finding.sites.iter().any(|id| ids.contains(id))
}

/// Leaks that are about none of these, by their titles.
pub(super) fn other_leaks(report: &Report, labels: &[&Label]) -> Vec<String> {
    let leaks = report
        .findings
        .iter()
        .filter(|it| it.kind == FindingKind::Leak);
    let is_other = |it: &&Finding| !labels.iter().any(|label| is_about(report, it, label));
    leaks.filter(is_other).map(|it| it.title.clone()).collect()
}
