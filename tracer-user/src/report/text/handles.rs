//! The handles that a JVM's native code made and did not delete.

use super::layout::{Layout, PLAIN};
use super::site::{last_allocation, median};
use super::stack::Stack;
use super::table::{Cell, Row, Table};
use crate::report::model::{MemoryKind, Report, Site};
use crate::report::shape::Shape;
use crate::report::{names, units};

/// Adds the call paths with most live handles; nothing if none are live.
pub fn render(text: &mut String, report: &Report, layout: &Layout) {
    problems(text, report, layout);
    let mut live = live(report);
    if live.is_empty() {
        return;
    }
    live.sort_by_key(|site| (std::cmp::Reverse(site.live_count), site.id));
    text.push('\n');
    let heading = format!("JNI handles: {}", sum(&live));
    layout.prose(text, layout.strong, 0, &heading);
    layout.prose(
        text,
        PLAIN,
        0,
        "Global and weak global references that native code made during the run and did not delete.",
    );
    text.push('\n');
    let (top, rest) = live.split_at(layout.top.min(live.len()));
    let rows = std::iter::zip(1.., top).map(|(number, site)| row(report, site, number));
    Table {
        rows: rows.collect(),
    }
    .render(text, layout);
    if !rest.is_empty() {
        let paths = units::counted(rest.len() as u64, "more call path");
        let line = format!("{paths}: {} handles.", units::grouped(count(rest)));
        layout.prose(text, PLAIN, 0, &line);
    }
}

/// Why there are none of a JVM, so that nobody takes that for good news.
fn problems(text: &mut String, report: &Report, layout: &Layout) {
    for jvm in &report.jvm {
        let Some(problem) = &jvm.handle_problem else {
            continue;
        };
        let process = names::process_of(report, jvm.process);
        let problem = names::clean(problem);
        text.push('\n');
        let line = format!("JNI handles of {process} are not counted: {problem}.");
        layout.prose(text, layout.warning, 0, &line);
    }
}

fn live(report: &Report) -> Vec<&Site> {
    report
        .sites
        .iter()
        .filter(|site| site.kind == MemoryKind::JniHandle && site.live_count > 0)
        .collect()
}

fn count(sites: &[&Site]) -> u64 {
    sites
        .iter()
        .fold(0, |sum, site| sum.saturating_add(site.live_count))
}

fn sum(live: &[&Site]) -> String {
    let paths = units::counted(live.len() as u64, "call path");
    format!("{} live from {paths}", units::grouped(count(live)))
}

fn row<'a>(report: &'a Report, site: &'a Site, number: usize) -> Row<'a> {
    let callers = site.frames.len().saturating_sub(1);
    let oldest = site.oldest_age.map(units::seconds);
    Row {
        cells: vec![
            Cell::new("#", format!("{number:>2}")),
            Cell::new("LIVE", units::grouped(site.live_count)),
            Cell::new("MADE", units::grouped(site.allocated_count)),
            Cell::new("DELETED", units::grouped(site.freed_count)),
            Cell::new("OLDEST", oldest.unwrap_or_else(|| "–".into())),
            Cell::new("LAST MADE", last_allocation(report, site)),
            Cell::new("LIFETIME OF DELETED", median(&site.lifetimes)),
        ],
        notes: notes(report, site),
        stack: Stack {
            frames: &site.frames[..callers],
            end: Some(site.stack_end),
        },
    }
}

fn notes(report: &Report, site: &Site) -> Vec<String> {
    let maker = site.frames.last();
    let mut notes: Vec<_> = maker
        .map(|maker| format!("by {}", names::label(maker)))
        .into_iter()
        .collect();
    notes.extend(Shape::of(site, report).map(|shape| shape.describe().to_owned()));
    if report.processes.len() > 1 {
        notes.push(format!("in {}", names::process_of(report, site.process)));
    }
    notes.extend(site.thread.as_ref().map(names::thread));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::{Frame, Jvm};
    use crate::report::sample;

    fn text(report: &Report, top: usize) -> String {
        let mut text = String::new();
        render(&mut text, report, &Layout::new(top, Some(80), false));
        text
    }

    fn handles(live: u64) -> Site {
        let report = sample::report();
        let function = |name: &str| Frame {
            function: Some(name.into()),
            ..Frame::default()
        };
        Site {
            kind: MemoryKind::JniHandle,
            live_count: live,
            live_bytes: 0,
            allocated_count: live + 7,
            allocated_bytes: 0,
            freed_count: 7,
            freed_bytes: 0,
            frames: vec![function("Java_Keep_keep"), function("jni_NewGlobalRef")],
            ..report.sites[0].clone()
        }
    }

    #[test]
    fn most_handles_come_first_and_none_say_nothing() {
        let mut report = sample::report();
        assert_eq!(text(&report, 10), "");
        report.sites.push(handles(0));
        assert_eq!(text(&report, 10), "");
        report.sites.extend([handles(11), handles(1013)]);
        let found = text(&report, 1);
        for part in [
            "JNI handles: 1,024 live from 2 call paths",
            " 1  1,013  1,020        7",
            "by jni_NewGlobalRef",
            "    Java_Keep_keep",
            "1 more call path: 11 handles.",
        ] {
            assert!(found.contains(part), "no {part:?} in {found}");
        }
    }

    /// They change nothing of what is said about memory.
    #[test]
    fn handles_are_no_memory() {
        let mut report = sample::report();
        let layout = Layout::new(10, Some(80), false);
        let before = super::super::render(&report, &layout);
        let mut many = handles(1013);
        many.lower_bound = true;
        report.sites.push(many);
        let section = text(&report, 10);
        let after = super::super::render(&report, &layout);
        assert!(after.contains(&section), "{after}");
        assert_eq!(after.replace(&section, ""), before);
    }

    #[test]
    fn that_they_are_not_counted_is_said() {
        let mut report = sample::report();
        report.jvm.push(Jvm {
            handle_problem: Some("no \x1b[2Jsymbols".into()),
            ..Jvm::default()
        });
        let found = text(&report, 10);
        assert!(found.contains("are not counted: no "), "{found}");
        assert!(!found.contains('\x1b'), "{found:?}");
    }
}
