//! The answers, before the numbers.

use anstyle::Style;

use super::balance;
use super::layout::{Layout, PLAIN};
use super::path;
use crate::model::{Finding, FindingKind, MemoryKind, Report, Site};
use crate::report::brief::brief;
use crate::report::hidden::no_leak_seen;
use crate::report::numbers::told;
use crate::report::own::goes_with_a_stack;
use crate::report::{held_by, names, units};

/// Findings that are told one by one; the others in one line.
pub const MAX_FINDINGS: usize = 4;
/// Findings that go in step with another and are named, at most.
const MAX_IN_STEP: usize = 4;
/// What is said for a finding, at most.
const MAX_EVIDENCE: usize = 2;

/// Growth of a process from which on it is said beside that no leak was seen, bytes.
const MUCH: i64 = 1 << 20;
/// A run that is shorter is not judged, seconds.
pub const SHORTEST: f64 = 2.0;
const TOO_SHORT: &str = "The run was too short to tell what leaks from what is needed.";

/// Adds the findings, or that there are none, and an empty line.
pub fn render(text: &mut String, report: &Report, layout: &Layout) {
    let told: Vec<_> = (1..).zip(told(report)).collect();
    if !told.iter().any(|(_, finding)| finding.kind.is_growth()) {
        let line = match report.duration < SHORTEST {
            true => TOO_SHORT.to_owned(),
            false => no_leak(report),
        };
        layout.prose(text, layout.strong, 0, &line);
    }
    // What goes in step with another is told there.
    let (followers, leaders): (Vec<_>, Vec<_>) = told
        .into_iter()
        .partition(|(_, finding)| finding.in_step_with.is_some());
    let mut before: Vec<&Finding> = Vec::new();
    for (number, finding) in leaders.iter().take(MAX_FINDINGS) {
        layout.prose(text, style(finding, layout), 0, &head(*number, finding));
        for line in details(report, finding, &before) {
            layout.prose(text, PLAIN, 3, &line);
        }
        if let Some(line) = in_step(finding, &followers) {
            layout.prose(text, PLAIN, 3, &line);
        }
        before.push(finding);
    }
    if let [(first, _), ..] = leaders.get(MAX_FINDINGS..).unwrap_or_default() {
        let rest = &leaders[MAX_FINDINGS..];
        let rate: f64 = rest.iter().map(|(_, it)| it.bytes_per_second).sum();
        let line = format!(
            "And {}, {}/s together (--explain {first}, and on).",
            units::counted(rest.len() as u64, "lesser finding"),
            units::bytes_per_second(rate),
        );
        layout.prose(text, PLAIN, 0, &line);
    }
    let others = report.findings.iter().filter(|it| it.kind.is_harmless());
    let others: Vec<_> = others.map(|finding| names::clean(&finding.title)).collect();
    if !others.is_empty() {
        let line = format!("Not leaks: {}.", others.join("; "));
        layout.prose(text, layout.faint, 0, &line);
    }
    if !report.changes.is_empty() {
        let changes: Vec<_> = report.changes.iter().map(|it| names::clean(it)).collect();
        let line = format!("Since the last table: {}.", changes.join("; "));
        layout.prose(text, PLAIN, 0, &line);
    }
    text.push('\n');
}

const fn style(finding: &Finding, layout: &Layout) -> Style {
    match finding.kind {
        FindingKind::Leak => layout.warning,
        _ => layout.strong,
    }
}

fn head(number: usize, finding: &Finding) -> String {
    format!(
        "{number}. {} {}",
        finding.kind_and_confidence(),
        names::clean(&finding.title)
    )
}

/// What there is to say of a finding; advice, and what growth will come to, are not said
/// again.
fn details(report: &Report, finding: &Finding, before: &[&Finding]) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(path::line(report, finding));
    let mut said = Vec::new();
    if finding.live_count > 0 {
        said.push(format!(
            "{} live in {}, since {}",
            units::bytes(finding.live_bytes),
            units::counted(finding.live_count, "block"),
            units::seconds(finding.since)
        ));
    }
    let evidence = finding.evidence.iter().take(MAX_EVIDENCE);
    said.extend(evidence.map(|it| names::clean(it).into_owned()));
    if !said.is_empty() {
        lines.push(format!("{}.", said.join("; ")));
    }
    let held = finding.holders.as_ref().map(held_by::sentence);
    lines.extend(held.map(|it| format!("{}.", capitalized(&it))));
    if let Some(forecast) = &finding.forecast
        && before.iter().all(|it| it.forecast.is_none())
    {
        lines.push(format!(
            "At this rate the {} left of {} ({}) are used up in {}.",
            units::bytes(forecast.left_bytes),
            names::clean(&forecast.limit),
            units::bytes(forecast.limit_bytes),
            units::seconds(forecast.seconds)
        ));
    }
    if !finding.advice.is_empty() && before.iter().all(|it| it.advice != finding.advice) {
        lines.push(format!("Next: {}.", names::clean(&finding.advice)));
    }
    lines
}

/// A sentence's beginning.
fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// What else comes block for block with a finding, each with its number.
fn in_step(leader: &Finding, followers: &[(usize, &Finding)]) -> Option<String> {
    let first = leader.sites.first();
    let is_its = |(_, it): &&(usize, &Finding)| it.in_step_with.as_ref() == first;
    let its: Vec<_> = followers.iter().filter(is_its).collect();
    let named = its.iter().take(MAX_IN_STEP).map(|(number, finding)| {
        format!(
            "{} ({number}), {}/s",
            brief(&names::clean(&finding.function)),
            units::bytes_per_second(finding.bytes_per_second)
        )
    });
    let mut named = named.collect::<Vec<_>>();
    if let more @ 1.. = its.len().saturating_sub(MAX_IN_STEP) {
        named.push(format!("{more} more"));
    }
    (!its.is_empty()).then(|| {
        format!(
            "As many blocks at each look, and so probably the same fault: {}.",
            named.join("; ")
        )
    })
}

/// That nothing grows, with what was watched and what could not be seen.
fn no_leak(report: &Report) -> String {
    let paths = report.memory().count() as u64;
    let mut line = format!(
        "{} in {}, of {}",
        no_leak_seen(report),
        units::seconds(report.duration),
        units::counted(paths, "call path")
    );
    if let Some(unjudged) = unjudged(report) {
        line.push_str(&format!("; {unjudged}"));
    }
    match report.lost_events() {
        0 => {}
        1 => line.push_str("; 1 event was lost"),
        lost => line.push_str(&format!("; {} were lost", units::counted(lost, "event"))),
    }
    line.push('.');
    if let Some(note) = balance::growth_note(report)
        && report.resident_growth() >= MUCH
    {
        line.push_str(&format!(" But {note}."));
    }
    for group in report.cgroups.iter().filter_map(balance::group_note) {
        line.push_str(&format!(" But {group}."));
    }
    line
}

/// What holds memory and could not be judged.
fn unjudged(report: &Report) -> Option<String> {
    let is_it = |site: &&Site| {
        let managed = site.kind == MemoryKind::JavaHeap;
        let is_known = managed || goes_with_a_stack(report, site);
        site.live_count > 0 && site.verdict.is_none() && !is_known
    };
    let sites: Vec<&Site> = report.memory().filter(is_it).collect();
    let bytes = sites.iter().map(|site| site.held_bytes());
    let bytes = bytes.fold(0, u64::saturating_add);
    (bytes > 0).then(|| {
        format!(
            "{} of {} live not judged, since too little was seen",
            units::counted(sites.len() as u64, "call path"),
            units::bytes(bytes)
        )
    })
}
