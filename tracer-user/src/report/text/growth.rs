//! Where memory was first touched, beside a table of allocations (`--overhead`).

use super::layout::{Layout, PLAIN};
use super::{balance, pages, site};
use crate::model::{Growth, Report, Totals};
use crate::report::numbers::Numbers;

/// What the table is, and what it is not.
const WHAT: &str = "Growth: where memory was first touched, by page faults.";

/// Less that is new in memory is worth no table, bytes.
const WORTH: u64 = 1 << 20;

/// Adds the paths that touched new memory, numbered on from the `first` table.
pub fn render(text: &mut String, report: &Report, first: &Numbers<'_>, layout: &Layout) {
    let Some(growth) = report.growth.as_ref().filter(|it| is_worth(it)) else {
        return;
    };
    let pages = as_report(report, growth);
    text.push('\n');
    layout.prose(text, layout.strong, 0, WHAT);
    balance::render(text, &pages, layout);
    layout.prose(text, PLAIN, 0, pages::NOT_WHO_KEEPS_BESIDE);
    text.push('\n');
    let numbers = Numbers::of_pages(growth, first);
    site::render(text, &pages, &numbers, layout);
}

/// Whether anything is new in memory.
fn is_worth(growth: &Growth) -> bool {
    let bytes: u64 = growth.sites.iter().map(|site| site.live_bytes).sum();
    let grown = growth.balance.iter().map(|it| it.growth.unsigned_abs());
    bytes.max(grown.max().unwrap_or(0)) >= WORTH
}

/// The same as a report of pages alone.
fn as_report(report: &Report, growth: &Growth) -> Report {
    let mut totals = Totals::default();
    for site in &growth.sites {
        totals.count(
            (site.allocated_count, site.allocated_bytes),
            (site.freed_count, site.freed_bytes),
            (site.live_count, site.live_bytes),
        );
    }
    let mut pages = Report {
        sites: growth.sites.clone(),
        balance: growth.balance.clone(),
        cgroups: Vec::new(),
        findings: Vec::new(),
        changes: Vec::new(),
        limits: Vec::new(),
        sampling: None,
        window: None,
        growth: None,
        totals,
        ..report.clone()
    };
    pages.settings.growth = true;
    pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MemoryKind;
    use crate::report::sample;
    use crate::report::text::render as render_all;

    #[test]
    fn the_paths_that_touched_memory_come_after_those_that_allocated() {
        let mut report = sample::report();
        let layout = Layout::new(10, Some(200), false);
        let before = render_all(&report, &layout);
        assert!(!before.contains(WHAT));
        let mut sites = report.sites.clone();
        sites
            .iter_mut()
            .for_each(|site| site.kind = MemoryKind::Page);
        report.growth = Some(Growth {
            sites,
            balance: Vec::new(),
        });
        let text = render_all(&report, &layout);
        let (blocks, pages) = text.split_once(WHAT).unwrap();
        assert!(blocks.contains("LIFETIME OF FREED") && !blocks.contains("IN MEMORY"));
        assert!(pages.contains("IN MEMORY") && pages.contains(pages::NOT_WHO_KEEPS_BESIDE));
        // Little is not worth a table.
        let growth = report.growth.as_mut().unwrap();
        growth
            .sites
            .iter_mut()
            .for_each(|site| site.live_bytes = 4096);
        assert!(!render_all(&report, &layout).contains(WHAT));
    }
}
