//! What there is to say of pages (`--growth`).

use crate::model::{Report, Site};
use crate::report::units;

/// What the answer is not.
const NOT_WHO_KEEPS: &str = "Shown is where memory was first touched, not who keeps it: what \
    an allocator hands out again is not new. Trace without --growth to see who never frees.";

/// The same where nobody can be asked who never frees.
const NOTHING_TO_PROBE: &str = "Shown is where memory was first touched, not who keeps it: what \
    an allocator hands out again is not new. No allocator was found that could be probed.";

/// The same beside a table of allocations.
pub const NOT_WHO_KEEPS_BESIDE: &str = "That is not who keeps it: what an allocator hands out \
    again is not new. The table of allocations above says who never frees.";

/// What the answer of a report of pages is not.
pub const fn not_who_keeps(report: &Report) -> &'static str {
    match report.settings.growth_instead {
        true => NOTHING_TO_PROBE,
        false => NOT_WHO_KEEPS,
    }
}

/// Adds the kinds of memory, and what came in around the pages that were touched.
pub fn notes(notes: &mut Vec<String>, site: &Site) {
    let Some(pages) = &site.pages else {
        return;
    };
    match pages.kinds.as_slice() {
        [] => {}
        [only] => notes.push(only.kind.text().to_owned()),
        several => {
            let kinds = several
                .iter()
                .map(|pages| format!("{} {}", units::bytes(pages.bytes), pages.kind.text()));
            notes.push(kinds.collect::<Vec<_>>().join(" and "));
        }
    }
    if pages.around_bytes > 0 {
        notes.push(format!(
            "{} of it came in around touched pages (huge pages, files)",
            units::bytes(pages.around_bytes)
        ));
    }
}

/// What to say if no page is new.
pub fn nothing_new(report: &Report) -> String {
    match report.lost_events() {
        0 => "No page that was touched during the run is new in memory.".into(),
        _ => "No new page was seen, but events were lost: this does not prove that nothing grew."
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pages::{KindOfPages, PageKind};
    use crate::model::{MemoryKind, TouchedPages};
    use crate::report::sample;
    use crate::report::text::{Layout, render};

    #[test]
    fn pages_are_told_in_their_own_words() {
        let mut report = sample::report();
        report.settings.growth = true;
        let kind = |kind, bytes| KindOfPages { kind, bytes };
        for site in &mut report.sites {
            site.kind = MemoryKind::Page;
            site.pages = Some(TouchedPages {
                kinds: vec![
                    kind(PageKind::Heap, site.live_bytes / 2),
                    kind(PageKind::File, site.live_bytes.div_ceil(2)),
                ],
                around_bytes: 4096,
            });
        }
        let layout = Layout::new(10, Some(300), false);
        let mut text = String::new();
        text.push_str(&render(&report, &layout));
        for part in [
            "In memory: 10.7 MiB in 11,032 pages (11,208,104 bytes) from 3 call paths",
            "Touched: 302 MiB in 310,009 pages; 5.03 MiB/s, 5,167 pages/s",
            "Given back: 291 MiB in 298,977 pages",
            NOT_WHO_KEEPS,
            "10,097,063 bytes in memory · touched 10,007 · given back 0",
            "at malloc",
            "4.81 MiB heap (brk) and 4.81 MiB mapped files",
            "4.00 KiB of it came in around touched pages",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        for word in ["leak:", "looks like a leak", "LIFETIME", "ALLOCS"] {
            assert!(!text.contains(word), "{word:?} in\n{text}");
        }
        report.sites.clear();
        assert!(nothing_new(&report).starts_with("No page that was touched"));
    }
}
