//! The answers, before the numbers.

use anstyle::Style;

use super::balance;
use super::layout::{Layout, PLAIN};
use crate::model::{Finding, FindingKind, MemoryKind, Report, Site};
use crate::report::numbers::told;
use crate::report::{held_by, names, units};

/// Findings that are told one by one; the others in one line.
pub const MAX_FINDINGS: usize = 4;
/// Names of a path that are shown, the deepest.
const MAX_NAMES: usize = 6;
/// What is said for a finding, at most.
const MAX_EVIDENCE: usize = 2;

/// Growth of a process from which on it is said beside that no leak was seen, bytes.
const MUCH: i64 = 1 << 20;
/// A run that is shorter is not judged, seconds.
pub const SHORTEST: f64 = 2.0;
const TOO_SHORT: &str = "The run was too short to tell what leaks from what is needed.";

/// Adds the findings, or that there are none, and an empty line.
pub fn render(text: &mut String, report: &Report, layout: &Layout) {
    let told: Vec<_> = told(report).collect();
    if !told.iter().any(|finding| finding.kind.is_growth()) {
        let line = match report.duration < SHORTEST {
            true => TOO_SHORT.to_owned(),
            false => no_leak(report),
        };
        layout.prose(text, layout.strong, 0, &line);
    }
    for (number, finding) in told.iter().take(MAX_FINDINGS).enumerate() {
        let head = head(number + 1, finding);
        layout.prose(text, style(finding, layout), 0, &head);
        let before = &told[..number];
        for line in details(finding, before) {
            layout.prose(text, PLAIN, 3, &line);
        }
    }
    let rest = told.iter().skip(MAX_FINDINGS);
    let (count, rate) = rest.fold((0_u64, 0.0), |(count, rate), finding| {
        (count + 1, rate + finding.bytes_per_second)
    });
    if count > 0 {
        let line = format!(
            "And {}, {}/s together (--explain {}, and on).",
            units::counted(count, "lesser finding"),
            units::bytes_per_second(rate),
            MAX_FINDINGS + 1
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
        "{number}. {} ({:.0} % sure) {}",
        finding.kind.text(),
        100.0 * finding.confidence,
        names::clean(&finding.title)
    )
}

/// What there is to say of a finding; advice, and what growth will come to, are not said
/// again.
fn details(finding: &Finding, before: &[&Finding]) -> Vec<String> {
    let mut lines = Vec::new();
    if !finding.path.is_empty() {
        lines.push(deepest(&finding.path));
    }
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

/// The deepest names of a path.
pub fn deepest(path: &[String]) -> String {
    let from = path.len().saturating_sub(MAX_NAMES);
    let shown: Vec<_> = path[from..].iter().map(|name| names::clean(name)).collect();
    let shown = shown.join(" > ");
    match from {
        0 => shown,
        _ => format!("… > {shown}"),
    }
}

/// That nothing grows, with what was watched and what could not be seen.
fn no_leak(report: &Report) -> String {
    let paths = report.memory().count() as u64;
    let mut line = format!(
        "No leak seen in {}, of {}",
        units::seconds(report.duration),
        units::counted(paths, "call path")
    );
    if let Some(unjudged) = unjudged(report) {
        line.push_str(&format!("; {unjudged}"));
    }
    let unseen: u64 = report
        .processes
        .iter()
        .map(|it| it.unseen.len() as u64)
        .sum();
    match report.lost_events() {
        0 => {}
        1 => line.push_str("; 1 event was lost"),
        lost => line.push_str(&format!("; {} were lost", units::counted(lost, "event"))),
    }
    if unseen > 0 {
        let functions = units::counted(unseen, "function");
        line.push_str(&format!("; {functions} of allocators not seen"));
    }
    line.push('.');
    match balance::growth_note(report) {
        Some(note) if report.resident_growth() >= MUCH => format!("{line} But {note}."),
        _ => line,
    }
}

/// What holds memory and could not be judged.
fn unjudged(report: &Report) -> Option<String> {
    let is_it = |site: &&Site| {
        let managed = site.kind == MemoryKind::JavaHeap;
        site.live_count > 0 && site.verdict.is_none() && !managed
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
