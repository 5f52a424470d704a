//! Which rows a table has, and in which order.

use std::cmp::Reverse;

use super::findings::MAX_FINDINGS;
use super::layout::Layout;
use super::window;
use crate::cli::table::Sort;
use crate::model::{Report, RowNumber, Site};
use crate::report::numbers::Numbers;

/// Call paths of one finding that come before those of lesser ones; its others come later.
const LEADING: usize = 3;
/// What holds less than one part in so many of what is live is a small row.
const SMALL: u64 = 100;

/// The call paths of a table.
pub struct Rows<'a> {
    /// In the order that was asked for.
    pub rows: Vec<&'a Site>,
    /// Those that hold little and of which nothing says that they grow, which are told in
    /// one line.
    pub small: Vec<&'a Site>,
}

impl<'a> Rows<'a> {
    /// The rows of a table of memory: what is live, or what is new in a window.
    pub fn of(report: &'a Report, numbers: &Numbers<'_>, layout: &Layout) -> Self {
        let mut rows = match report.window {
            Some(_) => window::busy(report),
            None => report.memory().filter(|site| site.live_count > 0).collect(),
        };
        let is_window = report.window.is_some();
        let all = report.held_bytes();
        match layout.sort {
            Sort::Growth if is_window => {}
            Sort::Growth => rows.sort_by_key(|site| by_growth(site, all, numbers)),
            Sort::Live => rows.sort_by_key(|site| (Reverse(site.rank()), site.id)),
            Sort::Rate => rows.sort_by_key(|site| (Reverse(allocated(site)), site.id)),
            Sort::Age => rows.sort_by(|a, b| {
                let age = |site: &Site| site.oldest_age.unwrap_or(0.0);
                age(b).total_cmp(&age(a)).then(a.id.cmp(&b.id))
            }),
        }
        let is_left_out = |site: &&Site| {
            let grows = site.verdict.is_some_and(|verdict| verdict.grows());
            is_small(site, all) && !grows
        };
        let keeps_all = layout.small_rows || is_window || rows.iter().all(is_left_out);
        let (small, rows) = match keeps_all {
            true => (Vec::new(), rows),
            false => rows.into_iter().partition(is_left_out),
        };
        Self { rows, small }
    }
}

/// First the first call path of each finding that is told, and up to three that hold
/// much; then what else holds much, and the rest: each as findings are ordered, and then by
/// what it holds. So what grows by little does not hide what is large.
fn by_growth(site: &Site, all: u64, numbers: &Numbers<'_>) -> (u8, RowNumber) {
    let last = RowNumber::whole(usize::MAX);
    let number = numbers.of_site(site).unwrap_or(last);
    let is_told = numbers.is_of_finding(number) && number.whole <= MAX_FINDINGS;
    let class = match is_small(site, all) {
        false if is_told && number.part <= LEADING => 0,
        true if is_told && number.part == 1 => 0,
        false => 1,
        true => 2,
    };
    (class, number)
}

/// Whether a call path holds little of all that is live.
fn is_small(site: &Site, all: u64) -> bool {
    site.held_bytes().saturating_mul(SMALL) < all
}

/// Bytes allocated: in the window, if there is one.
fn allocated(site: &Site) -> u64 {
    let window = site.window.map(|window| window.allocated_bytes);
    window.unwrap_or(site.allocated_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn ids(report: &Report, layout: &Layout) -> (Vec<u64>, Vec<u64>) {
        let rows = Rows::of(report, &Numbers::of(report), layout);
        let ids = |sites: &[&Site]| sites.iter().map(|site| site.id).collect();
        (ids(&rows.rows), ids(&rows.small))
    }

    fn layout(sort: Sort) -> Layout {
        let mut layout = Layout::new(10, None, false);
        (layout.sort, layout.small_rows) = (sort, true);
        layout
    }

    #[test]
    fn rows_come_in_the_order_that_is_asked_for() {
        let mut report = sample::report();
        // Of the three that hold something, the leak holds most and the cache allocates most.
        report.sites[2].oldest_age = Some(59.5);
        for (sort, expected) in [
            (Sort::Growth, [1, 2, 3]),
            (Sort::Live, [1, 2, 3]),
            (Sort::Rate, [2, 1, 3]),
            (Sort::Age, [3, 1, 2]),
        ] {
            assert_eq!(ids(&report, &layout(sort)).0, expected, "{sort:?}");
        }
        // What grows comes first even if it holds less.
        report.sites[1].live_bytes = 1 << 40;
        assert_eq!(ids(&report, &layout(Sort::Growth)).0, [1, 2, 3]);
        assert_eq!(ids(&report, &layout(Sort::Live)).0, [2, 1, 3]);
    }

    #[test]
    fn the_many_paths_of_one_finding_do_not_hide_the_next() {
        let mut report = sample::report();
        let leak = report.sites[0].clone();
        for id in 11..=15 {
            report.sites.push(Site { id, ..leak.clone() });
        }
        report.findings[0].sites = vec![1, 11, 12, 13];
        let next = crate::model::Finding {
            sites: vec![14, 15],
            ..report.findings[0].clone()
        };
        report.findings.insert(1, next);
        let expected = [1, 11, 12, 14, 15, 13, 2, 3];
        assert_eq!(ids(&report, &layout(Sort::Growth)).0, expected);
    }

    #[test]
    fn what_grows_by_little_does_not_hide_what_is_large() {
        let mut report = sample::report();
        let little = Site {
            live_bytes: 7,
            ..report.sites[0].clone()
        };
        report.sites.extend((11..=13).map(|id| Site {
            id,
            ..little.clone()
        }));
        let finding = crate::model::Finding {
            sites: vec![11, 12, 13],
            ..report.findings[0].clone()
        };
        report.findings.insert(1, finding);
        let expected = [1, 11, 2, 12, 13, 3];
        assert_eq!(ids(&report, &layout(Sort::Growth)).0, expected);
    }

    #[test]
    fn what_holds_little_and_does_not_grow_is_no_row() {
        let mut report = sample::report();
        let layout = Layout::new(10, None, false);
        assert_eq!(ids(&report, &layout), (vec![1, 2], vec![3]));
        report.sites[2].verdict = None;
        assert_eq!(ids(&report, &layout), (vec![1, 2], vec![3]));
        report.sites[2].verdict = Some(crate::model::Verdict::Growing);
        assert_eq!(ids(&report, &layout), (vec![1, 2, 3], vec![]));
        // Where nothing holds much, nothing is left out.
        let little = Site {
            verdict: Some(crate::model::Verdict::Churn),
            ..report.sites[0].clone()
        };
        report.sites = (1..=200)
            .map(|id| Site {
                id,
                ..little.clone()
            })
            .collect();
        report.totals.live_bytes = 200 * little.live_bytes;
        report.findings.clear();
        let (rows, small) = ids(&report, &layout);
        assert_eq!((rows.len(), small.len()), (200, 0));
    }
}
