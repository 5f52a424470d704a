//! What leaks but is no memory: handles that a JVM's native code made and did
//! not delete, and Java threads that were started and did not end.

use super::layout::{Layout, PLAIN};
use super::lifetimes::median;
use super::site::{last_allocation, needs_attention, verdict};
use super::stack::Stack;
use super::table::{Cell, Row, Table};
use crate::model::{Jvm, MemoryKind, Report, RowNumber, Site};
use crate::report::numbers::Numbers;
use crate::report::{names, units};

/// A kind of thing, and its words.
struct Resource {
    kind: MemoryKind,
    /// In headings.
    name: &'static str,
    /// In sentences.
    noun: &'static str,
    meaning: &'static str,
    /// Headers for those made and gone, the last one made, and how long those
    /// lived that are gone.
    headers: [&'static str; 4],
    /// Why they are not counted.
    problem: fn(&Jvm) -> Option<&str>,
}

const RESOURCES: [Resource; 2] = [
    Resource {
        kind: MemoryKind::JniHandle,
        name: "JNI handles",
        noun: "handle",
        meaning: "Global and weak global references that native code made during the run and did not delete.",
        headers: ["MADE", "DELETED", "LAST MADE", "LIFETIME OF DELETED"],
        problem: |jvm| jvm.handle_problem.as_deref(),
    },
    Resource {
        kind: MemoryKind::Thread,
        name: "Threads",
        noun: "thread",
        meaning: "Java threads that were started during the run and are still alive, by where they were started.",
        headers: ["STARTED", "ENDED", "LAST STARTED", "LIFETIME OF ENDED"],
        problem: |jvm| jvm.thread_problem.as_deref(),
    },
];

/// Adds the call paths with most of each that are live; nothing if none are.
pub fn render(text: &mut String, report: &Report, numbers: &Numbers<'_>, layout: &Layout) {
    for resource in &RESOURCES {
        resource.problems(text, report, layout);
        resource.table(text, report, numbers, layout);
    }
}

impl Resource {
    /// Why there are none of a JVM, so that nobody takes that for good news.
    fn problems(&self, text: &mut String, report: &Report, layout: &Layout) {
        for jvm in &report.jvm {
            let Some(problem) = (self.problem)(jvm) else {
                continue;
            };
            let process = names::process_of(report, jvm.process);
            let problem = names::clean(problem);
            let line = format!("{} of {process} are not counted: {problem}.", self.name);
            text.push('\n');
            layout.prose(text, layout.warning, 0, &line);
        }
    }

    fn table(&self, text: &mut String, report: &Report, numbers: &Numbers<'_>, layout: &Layout) {
        let sites = report.sites.iter();
        let is_live = |site: &&Site| site.kind == self.kind && site.live_count > 0;
        let mut live: Vec<&Site> = sites.filter(is_live).collect();
        if live.is_empty() {
            return;
        }
        live.sort_by_key(|site| (std::cmp::Reverse(site.live_count), site.id));
        let paths = units::counted(live.len() as u64, "call path");
        let all = units::grouped(count(&live));
        let heading = format!("{}: {all} live from {paths}", self.name);
        text.push('\n');
        layout.prose(text, layout.strong, 0, &heading);
        layout.prose(text, PLAIN, 0, self.meaning);
        text.push('\n');
        let (top, rest) = live.split_at(layout.top.min(live.len()));
        let rows = top
            .iter()
            .map(|site| self.row(report, site, numbers.of_site(site)));
        Table::new(rows).render(text, layout);
        if !rest.is_empty() {
            let paths = units::counted(rest.len() as u64, "more call path");
            let line = format!("{paths}: {}.", units::counted(count(rest), self.noun));
            layout.prose(text, PLAIN, 0, &line);
        }
    }

    fn row<'a>(&self, report: &'a Report, site: &'a Site, number: Option<RowNumber>) -> Row<'a> {
        let callers = site.frames.len().saturating_sub(1);
        let oldest = site.oldest_age.map(units::seconds);
        let [made, gone, last, lifetime] = self.headers;
        Row {
            cells: vec![
                Cell::new(
                    "#",
                    number.map_or_else(String::new, |number| format!("{number:>2}")),
                ),
                Cell::new("LIVE", units::grouped(site.live_count)),
                Cell::new(made, units::grouped(site.allocated_count)),
                Cell::new(gone, units::grouped(site.freed_count)),
                Cell::new("OLDEST", oldest.unwrap_or_else(|| "–".into())),
                Cell::new(last, last_allocation(report, site)),
                Cell::new(lifetime, median(&site.lifetimes)),
            ],
            notes: notes(report, site),
            stack: Stack::new(&site.frames[..callers], Some(site.stack_end))
                .in_few_lines(!needs_attention(site)),
        }
    }
}

fn count(sites: &[&Site]) -> u64 {
    sites
        .iter()
        .fold(0, |sum, site| sum.saturating_add(site.live_count))
}

fn notes(report: &Report, site: &Site) -> Vec<String> {
    let maker = site.frames.last();
    let mut notes: Vec<_> = maker
        .map(|maker| format!("by {}", names::label(maker)))
        .into_iter()
        .collect();
    notes.extend(verdict(site));
    if report.processes.len() > 1 {
        notes.push(format!("in {}", names::process_of(report, site.process)));
    }
    notes.extend(site.thread.as_ref().map(names::thread));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Frame;
    use crate::report::sample;

    fn text(report: &Report, top: usize) -> String {
        let mut text = String::new();
        render(
            &mut text,
            report,
            &Numbers::of(report),
            &Layout::new(top, Some(80), false),
        );
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
