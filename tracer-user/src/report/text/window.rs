//! What is new in a window of a run that goes on.

use std::cmp::Reverse;

use super::balance;
use crate::model::balance::change;
use crate::model::{Report, Site, SiteWindow};
use crate::report::units;
use crate::report::words::Words;

/// One line on what is new, of a report that has a window.
pub fn line(report: &Report) -> Option<String> {
    let window = report.window.as_ref()?;
    let sums = &window.sums;
    let words = Words::of(report);
    let resident = match (window.resident_start, window.resident_end) {
        (0, 0) => String::new(),
        (start, end) => format!("; resident set {}", balance::signed(change(start, end))),
    };
    let estimated = match report.is_sampled() {
        true => " (estimates)",
        false => "",
    };
    Some(format!(
        "The last {}{estimated}: {}; {} {} in {}, {} {} in {}{resident}",
        units::seconds(window.ended - window.began),
        grown(sums, words),
        words.came,
        units::bytes(sums.allocated_bytes),
        units::counted(sums.allocated_count, words.unit),
        words.went,
        units::bytes(sums.freed_bytes),
        units::counted(sums.freed_count, words.unit),
    ))
}

/// The sites of memory at which anything happened, those that grew most first.
pub fn busy(report: &Report) -> Vec<&Site> {
    let is_busy = |site: &&Site| site.window.is_some_and(|window| !window.is_empty());
    let mut busy: Vec<_> = report.memory().filter(is_busy).collect();
    let grown = |site: &Site| site.window.map_or(0, |window| window.live_bytes);
    busy.sort_by_key(|site| (Reverse(grown(site)), site.id));
    busy
}

/// What a table of the busy sites leaves out.
pub fn remainder(report: &Report, busy: &[&Site], rest: &[&Site]) -> Vec<String> {
    let words = Words::of(report);
    let mut lines = Vec::new();
    if busy.is_empty() {
        lines.push(nothing(report, words));
    }
    if !rest.is_empty() {
        let mut sums = SiteWindow::default();
        for window in rest.iter().filter_map(|site| site.window) {
            sums.add(&window);
        }
        let paths = units::counted(rest.len() as u64, "more call path");
        lines.push(format!("{paths}: {}.", grown(&sums, words)));
    }
    let idle = report.memory().count() - busy.len();
    if idle > 0 {
        let paths = units::counted(idle as u64, "call path");
        let happened = match report.is_sampled() {
            true => "was seen to happen",
            false => "happened",
        };
        lines.push(format!("At {paths} nothing {happened}."));
    }
    lines
}

/// That there is no row. What was not followed may have been anything.
fn nothing(report: &Report, words: Words) -> String {
    let (came, went) = (words.came, words.went);
    match report.is_sampled() {
        false => format!("Nothing was {came} or {went}."),
        true if report.budget.is_some() => format!(
            "Nothing was followed in it: what was {came} and {went} is a part of what the next burst stands for."
        ),
        true => format!("No block of the sample was {came} or {went}."),
    }
}

/// What is new of one site.
pub fn note(window: &SiteWindow, words: Words) -> String {
    format!(
        "new: {}, {} {}, {} {}",
        grown(window, words),
        units::grouped(window.allocated_count),
        words.came,
        units::grouped(window.freed_count),
        words.went
    )
}

fn grown(window: &SiteWindow, words: Words) -> String {
    let sign = |amount: i64| if amount < 0 { "-" } else { "+" };
    format!(
        "{}{} in {}{} {} {}",
        sign(window.live_bytes),
        units::bytes(window.live_bytes.unsigned_abs()),
        sign(window.live_count),
        units::grouped(window.live_count.unsigned_abs()),
        words.units,
        words.live
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BudgetReport, Window};
    use crate::report::sample;

    #[test]
    fn a_window_shows_what_happened_in_it() {
        let mut report = sample::report();
        report.window = Some(Window {
            began: 10.0,
            ended: 12.0,
            sums: SiteWindow::default(),
            resident_start: 5 << 20,
            resident_end: 4 << 20,
        });
        let shrunk = SiteWindow {
            live_bytes: -2048,
            live_count: -1,
            freed_bytes: 2048,
            freed_count: 1,
            ..SiteWindow::default()
        };
        let grown = SiteWindow {
            live_bytes: 1024,
            live_count: 2,
            allocated_bytes: 1024,
            allocated_count: 2,
            ..SiteWindow::default()
        };
        report.sites[0].window = Some(shrunk);
        report.sites[1].window = Some(grown);
        let order: Vec<_> = busy(&report).iter().map(|site| site.id).collect();
        assert_eq!(order, [report.sites[1].id, report.sites[0].id]);
        let text = line(&report).unwrap();
        assert!(
            text.starts_with("The last 2.0 s: +0 B in +0 blocks live;"),
            "{text}"
        );
        assert!(text.ends_with("; resident set -1.00 MiB"), "{text}");
        assert_eq!(
            remainder(&report, &[], &[])[0],
            "Nothing was allocated or freed."
        );
        let mut sampled = sample::sampled_report();
        assert_eq!(
            remainder(&sampled, &[], &[])[0],
            "No block of the sample was allocated or freed."
        );
        sampled.budget = Some(BudgetReport::default());
        let line = &remainder(&sampled, &[], &[])[0];
        assert!(line.starts_with("Nothing was followed in it"), "{line}");
        assert_eq!(
            note(&shrunk, Words::of(&report)),
            "new: -2.00 KiB in -1 blocks live, 0 allocated, 1 freed"
        );
    }
}
