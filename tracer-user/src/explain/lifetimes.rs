//! How long blocks lived, and how old those are that are live.

use super::{INDENT, section};
use crate::model::Site;
use crate::model::life_table::{Interval, LifeTable};
use crate::report::text::{Layout, PLAIN};
use crate::report::units;

/// Lines of the table, at most.
const MAX_LINES: usize = 12;

/// Adds the table; what it is estimated by stands below.
pub fn render(text: &mut String, site: &Site, layout: &Layout) {
    section(
        text,
        "How long blocks lived, and how old the live ones are",
        layout,
    );
    let table = LifeTable::of(&site.lifetimes, &site.ages);
    let lines = lines(&table);
    if lines.is_empty() {
        layout.prose(text, layout.faint, INDENT, "not known");
        return;
    }
    let head = format!(
        "{:>10}  {:>12}  {:>12}  {:>8}",
        "AGE", "FREED", "LIVE", "OUTLIVED"
    );
    layout.line(text, layout.faint, &format!("{:INDENT$}{head}", ""));
    for line in lines {
        let line = said(&line, &table);
        layout.line(text, PLAIN, &format!("{:INDENT$}{line}", ""));
    }
    let note = "OUTLIVED is the part of all blocks that get older than that, estimated by the \
        life table: a live block counts until its age.";
    layout.prose(text, layout.faint, INDENT, note);
    if let Some(survived) = site.oldest_survived {
        let collections = units::counted(survived.into(), "garbage collection");
        layout.prose(
            text,
            PLAIN,
            INDENT,
            &format!("The oldest live block survived {collections}."),
        );
    }
}

/// A line: blocks whose last known age is below a bound.
fn said(line: &Interval, table: &LifeTable) -> String {
    let (age, outlived) = match line.below.is_finite() {
        true => (
            format!("<{}", units::seconds(line.below)),
            format!("{:.1} %", 100.0 * table.survival(line.below)),
        ),
        false => ("older".to_owned(), "–".to_owned()),
    };
    format!(
        "{age:>10}  {:>12}  {:>12}  {outlived:>8}",
        units::grouped(line.freed),
        units::grouped(line.live)
    )
}

/// The table's intervals; where there are too many, neighbours are one.
fn lines(table: &LifeTable) -> Vec<Interval> {
    let intervals = table.intervals();
    let together = intervals.len().div_ceil(MAX_LINES).max(1);
    let sum = |some: &[Interval]| Interval {
        below: some.last().map_or(0.0, |it| it.below),
        freed: some.iter().map(|it| it.freed).sum(),
        live: some.iter().map(|it| it.live).sum(),
    };
    intervals.chunks(together).map(sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LifetimeBucket;

    #[test]
    fn many_buckets_are_few_lines_and_nothing_is_lost() {
        let bucket = |below: u32| LifetimeBucket {
            below: Some(f64::from(below)),
            count: 2,
        };
        let freed: Vec<_> = (1..=30).map(bucket).collect();
        let live = [
            bucket(30),
            LifetimeBucket {
                below: None,
                count: 5,
            },
        ];
        let lines = lines(&LifeTable::of(&freed, &live));
        assert!(lines.len() <= MAX_LINES);
        assert_eq!(lines.iter().map(|line| line.freed).sum::<u64>(), 60);
        assert_eq!(lines.iter().map(|line| line.live).sum::<u64>(), 7);
        assert!(lines.is_sorted_by(|a, b| a.below < b.below));
    }
}
