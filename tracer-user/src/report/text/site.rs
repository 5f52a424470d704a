//! The table of sites.

use super::header::rate;
use super::layout::{Layout, Marks, PLAIN};
use super::mapping;
use super::order::Rows;
use super::stack::Stack;
use super::table::{Cell, Row, Table};
use super::{balance, chance, lifetimes, origins, pages, window};
use crate::model::{LifetimeBucket, MemoryKind, Report, RowNumber, Site, Verdict};
use crate::report::numbers::Numbers;
use crate::report::words::Words;
use crate::report::{held_by, names, pool, units};

/// Adds the top rows and what they leave out. Rows without a number in `numbers` are
/// numbered as they come.
pub fn render(text: &mut String, report: &Report, numbers: &Numbers<'_>, layout: &Layout) {
    let Rows { rows, small } = Rows::of(report, numbers, layout);
    let (top, rest) = rows.split_at(layout.top.min(rows.len()));
    let is_window = report.window.is_some();
    let number = |(index, site): (usize, &&Site)| {
        let known = numbers.of_site(site).filter(|_| !is_window);
        known.unwrap_or(RowNumber::whole(index))
    };
    let shown = (1..).zip(top);
    let held = report.held_bytes();
    Table::new(shown.map(|(index, site)| row(report, site, number((index, site)), held)))
        .render(text, layout);
    let remainder = match report.window {
        Some(_) => window::remainder(report, &rows, rest),
        None => remainder(report, &rows, rest, &small),
    };
    for line in remainder {
        layout.prose(text, PLAIN, 0, &line);
    }
}

fn remainder(report: &Report, rows: &[&Site], rest: &[&Site], small: &[&Site]) -> Vec<String> {
    let words = Words::of(report);
    let mut lines = Vec::new();
    if rows.is_empty() {
        lines.push(nothing_live(report));
    }
    if !rest.is_empty() {
        let (bytes, blocks) = held(rest, words);
        lines.push(format!(
            "{}: {bytes} in {blocks} {}.",
            units::counted(rest.len() as u64, "more call path"),
            words.live,
        ));
    }
    let live = rows.len() + small.len();
    if !small.is_empty() {
        let (bytes, blocks) = held(small, words);
        let is_judged = small.iter().all(|site| site.verdict.is_some());
        let (hold, each) = match small.len() {
            1 => ("holds", ""),
            _ => ("hold", ", less than 1 % each,"),
        };
        let grow = match (is_judged, small.len()) {
            (true, 1) => "does not grow",
            (true, _) => "do not grow",
            (false, 1) => "is not known to grow",
            (false, _) => "are not known to grow",
        };
        lines.push(format!(
            "{} {hold} {bytes} in {blocks} {}{each} and {grow}: --top {live} shows all.",
            units::counted(small.len() as u64, "more call path"),
            words.live,
        ));
    }
    let idle = report.memory().count() - live;
    if idle > 0 {
        let verb = if idle == 1 { "holds" } else { "hold" };
        let what = match report.is_sampled() {
            true => "no sampled block that is live".to_owned(),
            false => format!("nothing {}", words.live),
        };
        lines.push(format!(
            "{} {verb} {what}.",
            units::counted(idle as u64, "call path")
        ));
    }
    lines
}

/// What sites hold together: bytes, and blocks.
fn held(sites: &[&Site], words: Words) -> (String, String) {
    let total = |value: fn(&Site) -> u64| {
        let values = sites.iter().map(|site| value(site));
        values.fold(0_u64, u64::saturating_add)
    };
    let about = Marks::new(sites.iter().any(|site| site.lower_bound))
        .or_estimates(sites.iter().any(|site| site.errors.is_some()))
        .about;
    (
        format!("{about}{}", units::bytes(total(Site::held_bytes))),
        format!(
            "{about}{}",
            units::counted(total(|site| site.live_count), words.unit)
        ),
    )
}

/// What to say when no block is live: with losses, or with `--older-than`, it
/// is less than that nothing leaks; nor does it mean much if memory grew.
pub fn nothing_live(report: &Report) -> String {
    if report.settings.growth {
        return pages::nothing_new(report);
    }
    let mut said = nothing_seen(report);
    let more = [origins::nothing_live(report), chance::nothing_live(report)];
    for more in more.into_iter().flatten() {
        said.push_str(&format!(" {more}"));
    }
    said
}

fn nothing_seen(report: &Report) -> String {
    match balance::growth_note(report) {
        None => nothing_seen_live(report),
        Some(note) if is_whole_truth(report) => {
            format!("No block that was seen is live, but {note}.")
        }
        Some(note) => format!("{} Meanwhile {note}.", nothing_seen_live(report)),
    }
}

/// Whether no block was left out by choice or by a loss.
fn is_whole_truth(report: &Report) -> bool {
    let settings = &report.settings;
    report.lost_events() == 0
        && settings.survived == 0
        && settings.older_than <= 0.0
        && !settings.is_by_caller()
        && !report.is_sampled()
}

fn nothing_seen_live(report: &Report) -> String {
    let age = report.settings.older_than;
    match () {
        () if report.lost_events() > 0 => {
            "No live block was seen, but events were lost: this does not prove that nothing leaks."
                .into()
        }
        () if report.settings.survived > 0 => nothing_survived(report),
        () if age > 0.0 => {
            format!(
                "Nothing that was allocated during the run has been live for {}.",
                units::seconds(age)
            )
        }
        () => "Nothing that was allocated during the run is still live.".into(),
    }
}

/// The same with `--survived`: if there were too few collections, it says
/// nothing about leaks.
fn nothing_survived(report: &Report) -> String {
    let asked = u64::from(report.settings.survived);
    let most = report.jvm.iter().map(|jvm| jvm.collections.count).max();
    match most.unwrap_or(0) {
        few if few < asked => format!(
            "No block can have survived {}: there were {} during the run.",
            units::counted(asked, "garbage collection"),
            units::grouped(few)
        ),
        _ => format!(
            "Nothing that was allocated during the run survived {}.",
            units::counted(asked, "garbage collection")
        ),
    }
}

/// A row; `held` is what all paths hold, bytes.
fn row<'a>(report: &'a Report, site: &'a Site, number: RowNumber, held: u64) -> Row<'a> {
    let callers = site.frames.len().saturating_sub(1);
    Row {
        cells: cells(report, site, number, held),
        notes: notes(report, site),
        stack: Stack::new(&site.frames[..callers], Some(site.stack_end))
            .in_few_lines(!needs_attention(site)),
    }
}

/// Whether it grows, or nobody knows.
pub(super) fn needs_attention(site: &Site) -> bool {
    site.verdict.is_none_or(|verdict| verdict.grows())
}

fn cells(report: &Report, site: &Site, number: RowNumber, held: u64) -> Vec<Cell> {
    let Marks { at_least, about } = Marks::of(site);
    let oldest = site.oldest_age.map_or_else(
        || "–".into(),
        |age| format!("{about}{}", units::seconds(age)),
    );
    let allocations = rate(site.allocated_count, report.duration);
    let bytes = rate(site.allocated_bytes, report.duration);
    let [live, blocks, last, rate, freed] = match site.kind {
        MemoryKind::Page => ["IN MEMORY", "PAGES", "LAST TOUCH", "PAGES/S", "GIVEN BACK"],
        _ => ["LIVE", "BLOCKS", "LAST ALLOC", "ALLOCS/S", "FREED"],
    };
    let mut cells = vec![
        Cell::new("#", format!("{number:>2}")),
        Cell::new(
            live,
            format!(
                "{about}{}{}",
                units::bytes(site.held_bytes()),
                chance::share(site)
            ),
        ),
        Cell::new(
            blocks,
            format!("{about}{}", units::grouped(site.live_count)),
        ),
        Cell::new("SHARE", units::percent(site.held_bytes(), held)),
        Cell::new("OLDEST", oldest),
        Cell::new(last, last_allocation(report, site)),
        Cell::new(
            rate,
            format!("{at_least}{}", units::per_second(allocations)),
        ),
        Cell::new(
            "BYTES/S",
            format!("{at_least}{}", units::bytes_per_second(bytes)),
        ),
        Cell::new(
            freed,
            format!(
                "{about}{}",
                units::percent(site.freed_count, site.allocated_count)
            ),
        ),
    ];
    if site.kind != MemoryKind::Page {
        cells.push(Cell::new(
            "LIFETIME OF FREED",
            lifetimes::median(&site.lifetimes),
        ));
    }
    cells
}

/// How long before the end of the run the site last allocated.
pub(super) fn last_allocation(report: &Report, site: &Site) -> String {
    format!("{} ago", units::seconds(report.duration - site.last_seen))
}

fn notes(report: &Report, site: &Site) -> Vec<String> {
    let Marks { at_least, about } = Marks::of(site);
    let words = Words::of(report);
    let mut notes: Vec<String> = verdict(site).into_iter().collect();
    notes.push(match site.resident_bytes {
        None => format!(
            "{about}{}{} bytes {}",
            units::grouped(site.live_bytes),
            chance::count(site.errors.map(|it| it.live_bytes)),
            words.live
        ),
        Some(resident) => format!(
            "{} bytes in memory of {about}{} {}",
            units::grouped(resident),
            units::grouped(site.live_bytes),
            match site.kind {
                MemoryKind::Heap => words.live,
                _ => "mapped",
            }
        ),
    });
    notes.push(came(site, words, at_least));
    notes.push(freed(site, words, at_least));
    notes.extend(chance::notes(site));
    if let Some(count) = site.oldest_survived.filter(|count| *count > 0) {
        let collections = units::counted(count.into(), "garbage collection");
        notes.push(format!("the oldest survived {collections}"));
    }
    notes.extend(site.window.as_ref().map(|it| window::note(it, words)));
    if let Some(allocator) = site.frames.last() {
        let place = match site.kind {
            MemoryKind::Page => "at",
            _ => "by",
        };
        notes.push(format!("{place} {}", names::label(allocator)));
    } else if site.kind == MemoryKind::Mapping {
        notes.push("a mapping".into());
    }
    mapping::notes(&mut notes, report, site);
    pages::notes(&mut notes, site);
    if site.kind == MemoryKind::JavaHeap {
        notes.push(
            "the Java heap, in the garbage collector's hands: --java-heap looks into it".into(),
        );
    }
    notes.extend(pool::note(report, site).map(|note| note.text));
    notes.extend(lifetimes::young(site, words));
    if report.processes.len() > 1 {
        notes.push(format!("in {}", names::process_of(report, site.process)));
    }
    notes.extend(holders(site));
    notes.extend(site.holders.as_ref().map(held_by::sentence));
    notes.extend(site.thread.as_ref().map(names::thread));
    notes
}

/// What it is, and how sure that is.
pub(super) fn verdict(site: &Site) -> Option<String> {
    let (verdict, confidence) = (site.verdict?, site.confidence?);
    let is_page = site.kind == MemoryKind::Page;
    let what = match verdict {
        Verdict::Leak | Verdict::Growing if is_page => "grows through the run",
        Verdict::Leak => "looks like a leak",
        Verdict::Growing => "grows, and may leak",
        Verdict::Plateau => "grew and does no more, like a full cache",
        Verdict::Startup if is_page => "touched early in the run",
        Verdict::Startup => "of start-up",
        Verdict::Batch => "freed at once from time to time",
        Verdict::Churn if is_page => "given back and touched anew",
        Verdict::Churn => "freed and replaced",
    };
    Some(format!("{what} ({:.0} % sure)", 100.0 * confidence))
}

/// How many processes hold it, and the largest of them.
fn holders(site: &Site) -> Option<String> {
    let largest = site.shares.first().filter(|_| site.processes > 1)?;
    Some(format!(
        "held by {} processes, at most {} in one ({}{})",
        units::grouped(site.processes),
        units::bytes(largest.live_bytes),
        largest.pid,
        if largest.ended { ", when it ended" } else { "" }
    ))
}

/// What came, without the bytes if all of them are live.
fn came(site: &Site, words: Words, at_least: &str) -> String {
    let is_all = site.errors.is_none() && !site.lower_bound;
    let is_all = is_all && site.live_bytes == site.allocated_bytes;
    let bytes = match is_all {
        true => String::new(),
        false => format!(
            " ({at_least}{}{} bytes)",
            units::grouped(site.allocated_bytes),
            chance::count(site.errors.map(|it| it.allocated_bytes))
        ),
    };
    format!(
        "{} {at_least}{}{}{bytes}",
        words.came,
        units::grouped(site.allocated_count),
        chance::count(site.errors.map(|it| it.allocated_count)),
    )
}

fn freed(site: &Site, words: Words, at_least: &str) -> String {
    if site.freed_count == 0 {
        return format!("{} 0", words.went);
    }
    let within = match site.lifetimes.last() {
        Some(LifetimeBucket {
            below: Some(limit), ..
        }) => {
            let whose = match site.errors {
                None => "all",
                Some(_) => "all that were sampled",
            };
            format!(", {whose} within {}", units::seconds(*limit))
        }
        _ => String::new(),
    };
    format!(
        "{} {at_least}{}{} ({at_least}{}{} bytes){within}",
        words.went,
        units::grouped(site.freed_count),
        chance::count(site.errors.map(|it| it.freed_count)),
        units::grouped(site.freed_bytes),
        chance::count(site.errors.map(|it| it.freed_bytes))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Jvm;
    use crate::report::sample;

    #[test]
    fn too_few_collections_prove_nothing() {
        let mut report = sample::report();
        report.settings.survived = 2;
        let say = |collections: &[u64]| {
            let mut report = report.clone();
            let jvm = |count: &u64| {
                let mut jvm = Jvm::default();
                jvm.collections.count = *count;
                jvm
            };
            report.jvm = collections.iter().map(jvm).collect();
            nothing_live(&report)
        };
        for (collections, part) in [
            (&[][..], "there were 0"),
            (&[1], "there were 1"),
            (&[1, 2], "survived 2 garbage collections"),
        ] {
            let text = say(collections);
            assert!(text.contains(part), "{text}");
        }
    }
}
