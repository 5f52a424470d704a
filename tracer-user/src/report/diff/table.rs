//! The table of the most grown and the most shrunk call paths.

use super::{Change, Diff, Snapshot, findings};
use crate::model::sampling::rounded;
use crate::report::text::{Cell, Layout, PLAIN, Row, Stack, Table};
use crate::report::{names, units};

/// The difference as text. No line is wider than the layout.
pub fn render(diff: &Diff, layout: &Layout) -> String {
    let mut text = String::new();
    header(&mut text, diff, layout);
    findings::render(&mut text, diff, layout);
    let grown: Vec<&Change> = diff
        .changes
        .iter()
        .filter(|change| change.growth() > 0)
        .collect();
    let shrunk: Vec<&Change> = diff
        .changes
        .iter()
        .rev()
        .filter(|change| change.growth() < 0)
        .collect();
    section(&mut text, diff, "Most grown", &grown, layout);
    section(&mut text, diff, "Most shrunk", &shrunk, layout);
    let same = diff.changes.len() - grown.len() - shrunk.len();
    layout.prose(
        &mut text,
        PLAIN,
        0,
        &format!("{} unchanged.", units::counted(same as u64, "call path")),
    );
    text
}

fn header(text: &mut String, diff: &Diff, layout: &Layout) {
    for (heading, side) in [("Before", &diff.before), ("After", &diff.after)] {
        layout.prose(text, PLAIN, 0, &format!("{heading}: {}", summary(side)));
        for note in &side.notes {
            layout.prose(text, layout.warning, 2, note);
        }
    }
    let (before, after) = (diff.before.total(), diff.after.total());
    let mut growth = format!(
        "Growth: {} ({} {})",
        change(diff, before.bytes, after.bytes),
        units::grouped_change(before.bytes, after.bytes),
        diff.after.unit,
    );
    if diff.counted() {
        let blocks = units::grouped_change(before.count, after.count);
        growth.push_str(&format!(", {blocks} blocks"));
    }
    layout.prose(text, layout.strong, 0, &growth);
    text.push('\n');
}

fn summary(side: &Snapshot) -> String {
    let total = side.total();
    let mut line = format!(
        "{}: {}",
        names::clean(&side.name),
        amount(&side.unit, total.bytes)
    );
    if side.counted {
        line.push_str(&format!(" in {}", units::counted(total.count, "block")));
    }
    if let Some(duration) = side.duration {
        line.push_str(&format!(", after {}", units::seconds(duration)));
    }
    line
}

fn section(text: &mut String, diff: &Diff, heading: &str, changes: &[&Change], layout: &Layout) {
    if changes.is_empty() {
        return;
    }
    let shown = layout.top.min(changes.len());
    if shown > 0 {
        layout.prose(text, layout.strong, 0, heading);
        let rows = changes[..shown]
            .iter()
            .enumerate()
            .map(|(index, change)| row(diff, change, index + 1));
        Table::new(rows).render(text, layout);
    }
    let rest = &changes[shown..];
    if !rest.is_empty() {
        let sum = |value: fn(&Change) -> u64| {
            rest.iter()
                .fold(0_u64, |sum, change| sum.saturating_add(value(change)))
        };
        let total = change(
            diff,
            sum(|change| change.before.bytes),
            sum(|change| change.after.bytes),
        );
        let line = format!(
            "{}: {total}.",
            units::counted(rest.len() as u64, "more call path")
        );
        layout.prose(text, PLAIN, 0, &line);
        text.push('\n');
    }
}

fn row<'a>(diff: &Diff, path: &'a Change, number: usize) -> Row<'a> {
    let (before, after) = (path.before, path.after);
    let mut notes = vec![
        format!(
            "{} {}",
            units::grouped_change(before.bytes, after.bytes),
            diff.after.unit
        ),
        format!(
            "{} to {}",
            units::grouped(before.bytes),
            units::grouped(after.bytes)
        ),
    ];
    if path.error() > 0.0 {
        let error = units::bytes(rounded(path.error().ceil()));
        notes.push(format!("± {error} (standard error)"));
    }
    if path.is_chance() {
        notes.push("may be chance".into());
    }
    if before.bytes == 0 {
        notes.push("new".into());
    } else if after.bytes == 0 {
        notes.push("gone".into());
    }
    if let Some(process) = &path.process {
        notes.push(format!("in {}", names::clean(process)));
    }
    let mut cells = vec![
        Cell::new("#", format!("{number:>2}")),
        Cell::new("CHANGE", change(diff, before.bytes, after.bytes)),
        Cell::new("BEFORE", amount(&diff.before.unit, before.bytes)),
        Cell::new("AFTER", amount(&diff.after.unit, after.bytes)),
    ];
    if diff.counted() {
        cells.push(Cell::new(
            "BLOCKS",
            units::grouped_change(before.count, after.count),
        ));
    }
    Row {
        cells,
        notes,
        stack: Stack::new(&path.frames, None),
    }
}

/// An amount in its unit; only bytes are scaled.
pub fn amount(unit: &str, value: u64) -> String {
    if unit == "bytes" {
        units::bytes(value)
    } else {
        format!("{} {unit}", units::grouped(value))
    }
}

fn change(diff: &Diff, before: u64, after: u64) -> String {
    let unit = &diff.after.unit;
    match unit.as_str() {
        "bytes" => units::bytes_change(before, after),
        _ => format!("{} {unit}", units::grouped_change(before, after)),
    }
}

#[cfg(test)]
mod tests {
    use crate::grouping::Rules;
    use crate::report::diff::{Snapshot, compare};
    use crate::report::sample;
    use crate::report::text::Layout;

    #[test]
    fn growth_first_then_what_shrank() {
        let before = sample::report();
        let mut after = sample::report();
        after.duration = 120.0;
        after.sites[0].live_bytes += 1_009 * 2_000;
        after.sites[0].live_count += 2_000;
        after.sites[1].live_bytes = 0;
        after.sites[1].live_count = 0;
        let before = Snapshot::of_report("monday.json", before);
        let after = Snapshot::of_report("friday.json", after);
        let text = super::render(
            &compare(before, after, &Rules::new(&[]).unwrap()).unwrap(),
            &Layout::new(1, Some(80), false),
        );
        let expected = "\
Before: monday.json: 10.7 MiB in 11,032 blocks, after 1m 00s
After: friday.json: 11.6 MiB in 12,008 blocks, after 2m 00s
Growth: +950 KiB (+972,496 bytes), +976 blocks

Nothing new grows, and what grew goes on as it did.

Most grown
 #     CHANGE    BEFORE     AFTER  BLOCKS
 1  +1.92 MiB  9.63 MiB  11.6 MiB  +2,000
    +2,018,000 bytes · 10,097,063 to 12,115,063
    malloc  (libc.so.6)
    Session::Session() (inlined)  leaky/session.h:7
    open_session(int)  leaky/session.cpp:42
    main  leaky/main.cpp:90
    __libc_start_main  (libc.so.6)

Most shrunk
 #      CHANGE     BEFORE  AFTER  BLOCKS
 1  -1,021 KiB  1,021 KiB    0 B  -1,024
    -1,045,504 bytes · 1,045,504 to 0 · gone
    malloc  (libc.so.6)
    Cache::insert(Key const&)  leaky/cache.cpp:13
    main  leaky/main.cpp:90
    __libc_start_main  (libc.so.6)

1 call path unchanged.
";
        assert_eq!(text, expected);
    }
}
