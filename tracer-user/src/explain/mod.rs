//! What speaks for and against a verdict: the evidence behind a finding or a row of the
//! table (`--explain`), of a run or of a saved report.

mod class;
mod holders;
mod lifetimes;
mod path;
mod plot;
mod reasons;
#[cfg(test)]
mod tests;

use anyhow::{Result, anyhow};

use crate::model::{CurvePoint, Finding, MemoryKind, Report, RowNumber, Site};
use crate::report::numbers::{Numbered, Numbers};
use crate::report::text::{Layout, PLAIN};
use crate::report::{names, units};
use crate::verdict;
use reasons::Reasons;

/// Columns before what belongs to a heading.
const INDENT: usize = 2;
/// Lines and letters of a plot, at most.
const PLOT: (usize, usize) = (6, 64);
/// Columns before a plot, for its scale.
const SCALE: usize = 12;

/// Explains what has a number in a judged report, as text that ends with a newline and
/// is not wider than the layout.
///
/// # Errors
/// Fails if nothing has that number, and says which numbers there are.
pub fn render(report: &Report, number: RowNumber, layout: &Layout) -> Result<String> {
    let numbers = Numbers::of(report);
    let pages = report.growth.as_ref();
    let pages = pages.map(|growth| Numbers::of_pages(growth, &numbers));
    let of_pages = || pages.as_ref()?.find(report, number);
    let found = numbers.find(report, number).or_else(of_pages);
    let found = found.ok_or_else(|| nothing(number, pages.as_ref().unwrap_or(&numbers)))?;
    let mut text = String::new();
    heading(&mut text, number, &found, layout);
    if let Some(finding) = found.finding {
        of_finding(&mut text, report, number, finding, layout);
    }
    let together = found.finding.filter(|_| number.part == 1);
    let together = together.and_then(|finding| together_of(report, finding));
    match (together.as_ref().or(found.site), found.finding) {
        (Some(site), _) => of_site(&mut text, report, site, layout),
        (None, Some(finding)) => {
            if let Some((heap, class)) = verdict::class_of(report, finding) {
                class::render(&mut text, heap, class, layout);
            }
        }
        (None, None) => {}
    }
    Ok(text)
}

/// What the call paths of a finding have together, with the frames of the largest; `None`
/// if it has not several.
fn together_of(report: &Report, finding: &Finding) -> Option<Site> {
    let sites = report.sites.iter();
    let sites = sites.filter(|site| finding.sites.contains(&site.id));
    let sites: Vec<&Site> = sites.collect();
    (sites.len() > 1).then(|| Site::sum(&sites).into_owned())
}

fn nothing(number: RowNumber, numbers: &Numbers<'_>) -> anyhow::Error {
    match numbers.last() {
        0 => anyhow!("there is no finding or row {number}: the report has none"),
        last => anyhow!(
            "there is no finding or row {number}: they are 1 to {last}, and N.2, N.3, … are further call paths of finding N"
        ),
    }
}

/// A heading, and what belongs to it in the lines below.
fn section(text: &mut String, heading: &str, layout: &Layout) {
    text.push('\n');
    layout.prose(text, layout.strong, 0, heading);
}

fn heading(text: &mut String, number: RowNumber, found: &Numbered<'_>, layout: &Layout) {
    let what = match (found.finding, found.site) {
        (Some(finding), _) => format!(
            "{} {}",
            finding.kind_and_confidence(),
            names::clean(&finding.title)
        ),
        (None, Some(site)) => of_no_finding(site),
        (None, None) => String::new(),
    };
    layout.prose(text, layout.strong, 0, &format!("{number}. {what}"));
}

/// What a call path is that is in no finding.
fn of_no_finding(site: &Site) -> String {
    let (verb, unit) = match site.kind {
        MemoryKind::Page => ("touched", "page"),
        _ => ("holds", "block"),
    };
    let holds = format!(
        "a call path that {verb} {} in {}",
        units::bytes(site.held_bytes()),
        units::counted(site.live_count, unit)
    );
    match (site.verdict, site.confidence) {
        (Some(verdict), Some(confidence)) => format!(
            "{} ({:.0} % sure): {holds}",
            verdict.name().to_uppercase(),
            100.0 * confidence
        ),
        _ => format!("NOT JUDGED, since too little was seen: {holds}"),
    }
}

/// What is said of a finding as a whole.
fn of_finding(
    text: &mut String,
    report: &Report,
    number: RowNumber,
    finding: &Finding,
    layout: &Layout,
) {
    let mut said: Vec<String> = vec![format!(
        "In {}, since {} after the run's start",
        names::process_of(report, finding.process),
        units::seconds(finding.since)
    )];
    match (finding.site_count, number.part) {
        (0 | 1, _) => {}
        (count, 1) => said.push(format!(
            "what follows is of {}its {} together, and the path of the largest",
            match count > finding.sites.len() as u64 {
                true => "the largest of ",
                false => "",
            },
            units::counted(count, "call path")
        )),
        (_, part) => said.push(format!("this is its call path number {part}")),
    }
    said.extend(
        finding
            .evidence
            .iter()
            .map(|it| names::clean(it).into_owned()),
    );
    layout.prose(text, PLAIN, INDENT, &format!("{}.", said.join("; ")));
}

fn of_site(text: &mut String, report: &Report, site: &Site, layout: &Layout) {
    if let Some(holders) = &site.holders {
        holders::render(text, report, holders, layout);
    }
    curve(text, report, site, layout);
    came_and_went(text, report, site, layout);
    lifetimes::render(text, site, layout);
    let reasons = Reasons::of(report, site);
    let grows = site.verdict.is_none_or(|verdict| verdict.grows());
    let (speak_for, against) = match grows {
        true => (&reasons.grows, &reasons.calm),
        false => (&reasons.calm, &reasons.grows),
    };
    let what = match site.verdict {
        Some(verdict) => format!("“{}”", verdict.name()),
        None => "a leak".to_owned(),
    };
    list(text, &format!("Speaks for {what}"), speak_for, layout);
    list(text, &format!("Speaks against {what}"), against, layout);
    path::render(text, site, layout);
}

fn list(text: &mut String, heading: &str, lines: &[String], layout: &Layout) {
    section(text, heading, layout);
    if lines.is_empty() {
        layout.prose(text, layout.faint, INDENT, "nothing that was seen");
    }
    for line in lines {
        layout.prose(text, PLAIN, INDENT, &format!("- {line}."));
    }
}

/// What was live over time.
fn curve(text: &mut String, report: &Report, site: &Site, layout: &Layout) {
    let has_bytes = site.kind.is_memory();
    let value = |point: &CurvePoint| match has_bytes {
        true => point.live_bytes as f64,
        false => point.live_count as f64,
    };
    let points: Vec<(f64, f64)> = site
        .curve
        .iter()
        .map(|point| (point.at, value(point)))
        .collect();
    let unit = if has_bytes { "bytes" } else { "number" };
    section(text, &format!("What was live over time ({unit})"), layout);
    if points.is_empty() {
        let why = "not known: curves are kept of findings and of what holds most, and not within a budget (--overhead)";
        layout.prose(text, layout.faint, INDENT, why);
        return;
    }
    let peak = plot::peak(&points);
    let label = match has_bytes {
        true => units::bytes(rounded(peak)),
        false => units::grouped(rounded(peak)),
    };
    draw(text, &points, report.duration, &label, layout);
}

fn rounded(value: f64) -> u64 {
    crate::model::sampling::rounded(value)
}

/// Draws a curve with its scale: the largest value, and the run's time.
fn draw(text: &mut String, points: &[(f64, f64)], end: f64, largest: &str, layout: &Layout) {
    let (height, widest) = PLOT;
    let width = widest.min(layout.width.saturating_sub(SCALE + 2)).max(1);
    for (index, line) in plot::bars(points, end, width, height).iter().enumerate() {
        let label = if index == 0 { largest } else { "" };
        let line = format!("{label:>SCALE$} │{line}");
        layout.line(text, PLAIN, line.trim_end());
    }
    let end = units::seconds(end);
    let gap = width.saturating_sub(end.chars().count() + 3);
    let axis = format!("{:>SCALE$} └0 s{:gap$}{end}", 0, "");
    layout.line(text, layout.faint, &axis);
}

/// Births and deaths in each half of the run, as far as the curve has them, and in all.
fn came_and_went(text: &mut String, report: &Report, site: &Site, layout: &Layout) {
    let (came, went) = match site.kind {
        MemoryKind::Page => ("touched", "given back"),
        MemoryKind::Thread => ("started", "ended"),
        MemoryKind::JniHandle => ("made", "deleted"),
        _ => ("allocated", "freed"),
    };
    section(text, "What came and went", layout);
    let rate =
        |count: u64, time: f64| units::per_second(count as f64 / time.max(f64::MIN_POSITIVE));
    let line = |when: &str, born: u64, died: u64, time: f64| {
        format!(
            "{when}: {} {came} ({}/s), {} {went} ({}/s)",
            units::grouped(born),
            rate(born, time),
            units::grouped(died),
            rate(died, time)
        )
    };
    let span = report.duration;
    let mut lines = vec![line("in all", site.allocated_count, site.freed_count, span)];
    for (when, from, to) in halves(&site.curve, span / 2.0) {
        let born = to.allocated_count.saturating_sub(from.allocated_count);
        let grown = to.live_count.cast_signed() - from.live_count.cast_signed();
        let died = born
            .cast_signed()
            .saturating_sub(grown)
            .max(0)
            .cast_unsigned();
        lines.push(line(when, born, died, to.at - from.at));
    }
    for line in lines {
        layout.prose(text, PLAIN, INDENT, &line);
    }
    if site.is_estimate() {
        let note = "These are estimates of a sample.";
        layout.prose(text, layout.faint, INDENT, note);
    }
}

/// The first and the last point of each half of a curve.
fn halves(curve: &[CurvePoint], middle: f64) -> Vec<(&'static str, CurvePoint, CurvePoint)> {
    let start = CurvePoint::new(0.0, crate::model::Level::default());
    let at = curve.partition_point(|point| point.at <= middle);
    let Some(between) = at.checked_sub(1).map(|last| curve[last]) else {
        return Vec::new();
    };
    let first = ("in the first half", start, between);
    let last = curve.last().filter(|last| last.at > between.at);
    let last = last.map(|last| ("in the last half", between, *last));
    std::iter::once(first).chain(last).collect()
}
