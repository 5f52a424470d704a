//! How long blocks lived, and how old those are that are live.

use super::{INDENT, section};
use crate::model::{LifetimeBucket, Site};
use crate::report::text::{Layout, PLAIN};
use crate::report::units;
use crate::verdict::LifeTable;

/// Lines of the table, at most.
const MAX_LINES: usize = 12;

/// A line of the table: blocks whose last known age is below a bound.
struct Line {
    /// Seconds; infinite for the last one.
    below: f64,
    freed: u64,
    live: u64,
}

/// Adds the table; what it is estimated by stands below.
pub fn render(text: &mut String, site: &Site, layout: &Layout) {
    section(
        text,
        "How long blocks lived, and how old the live ones are",
        layout,
    );
    let lines = lines(&site.lifetimes, &site.ages);
    if lines.is_empty() {
        layout.prose(text, layout.faint, INDENT, "not known");
        return;
    }
    let head = format!(
        "{:>10}  {:>12}  {:>12}  {:>8}",
        "AGE", "FREED", "LIVE", "OUTLIVED"
    );
    layout.line(text, layout.faint, &format!("{:INDENT$}{head}", ""));
    let table = LifeTable::of(&site.lifetimes, &site.ages);
    for line in lines {
        layout.line(text, PLAIN, &format!("{:INDENT$}{}", "", line.text(&table)));
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

impl Line {
    fn text(&self, table: &LifeTable) -> String {
        let (age, outlived) = match self.below.is_finite() {
            true => (
                format!("<{}", units::seconds(self.below)),
                format!("{:.1} %", 100.0 * table.survival(self.below)),
            ),
            false => ("older".to_owned(), "–".to_owned()),
        };
        format!(
            "{age:>10}  {:>12}  {:>12}  {outlived:>8}",
            units::grouped(self.freed),
            units::grouped(self.live)
        )
    }
}

/// The buckets of both, ascending; where there are too many, neighbours are one.
fn lines(lifetimes: &[LifetimeBucket], ages: &[LifetimeBucket]) -> Vec<Line> {
    let line = |bucket: &LifetimeBucket, freed, live| Line {
        below: bucket.below.unwrap_or(f64::INFINITY),
        freed,
        live,
    };
    let freed = lifetimes.iter().map(|it| line(it, it.count, 0));
    let live = ages.iter().map(|it| line(it, 0, it.count));
    let mut lines: Vec<Line> = freed.chain(live).collect();
    lines.sort_by(|a, b| a.below.total_cmp(&b.below));
    lines.dedup_by(|next, kept| {
        let same = next.below.total_cmp(&kept.below).is_eq();
        if same {
            kept.freed += next.freed;
            kept.live += next.live;
        }
        same
    });
    let together = lines.len().div_ceil(MAX_LINES).max(1);
    let sum = |lines: &[Line]| Line {
        below: lines.last().map_or(0.0, |line| line.below),
        freed: lines.iter().map(|line| line.freed).sum(),
        live: lines.iter().map(|line| line.live).sum(),
    };
    lines.chunks(together).map(sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let lines = lines(&freed, &live);
        assert!(lines.len() <= MAX_LINES);
        assert_eq!(lines.iter().map(|line| line.freed).sum::<u64>(), 60);
        assert_eq!(lines.iter().map(|line| line.live).sum::<u64>(), 7);
        assert!(lines.is_sorted_by(|a, b| a.below < b.below));
    }
}
