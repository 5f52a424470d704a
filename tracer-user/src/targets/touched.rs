//! Whose the pages are that came into memory: by the page faults that were told of, and
//! by two looks at the page map.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use crate::model::pages::{KindOfPages, PageKind, TouchedPages};
use crate::process::pagemap::PAGE;
use crate::process::resident::Residents;

/// Within so many bytes, aligned, a fault may bring in other pages than its own: a huge
/// page at most. (The kernel maps what is around a page of a file within 64 KiB.)
const AROUND: u64 = 2 << 20;

/// A page that was touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touch {
    /// The page's address.
    pub address: u64,
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// By which path: the index of a site.
    pub site: u32,
}

/// What a path has brought into memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TouchedSums {
    /// Bytes by kind.
    pub kinds: BTreeMap<PageKind, u64>,
    /// The part of them that came in around a page that was touched.
    pub around: u64,
    /// When the first that is there was touched, nanoseconds of `CLOCK_MONOTONIC`.
    pub oldest: u64,
}

impl TouchedSums {
    /// Bytes of all kinds.
    pub fn bytes(&self) -> u64 {
        self.kinds.values().sum()
    }

    /// The same for a report.
    pub fn pages(&self) -> TouchedPages {
        let kinds = self.kinds.iter();
        let kinds = kinds.map(|(kind, bytes)| KindOfPages {
            kind: *kind,
            bytes: *bytes,
        });
        TouchedPages {
            kinds: kinds.collect(),
            around_bytes: self.around,
        }
    }

    fn add(&mut self, kind: PageKind, time: u64) {
        self.oldest = match self.bytes() {
            0 => time,
            _ => self.oldest.min(time),
        };
        *self.kinds.entry(kind).or_default() += PAGE;
    }
}

/// What is known of a process's pages.
pub struct Pages<'a> {
    /// Those in memory when the run began, or nothing for a process that began later.
    pub before: &'a Residents,
    /// Those in memory now.
    pub after: &'a Residents,
    /// When these were looked at, nanoseconds of `CLOCK_MONOTONIC`.
    pub as_of: u64,
    /// What is mapped, in order.
    pub mapped: Vec<(Range<u64>, PageKind)>,
    /// What was touched, in order.
    pub touches: &'a [Touch],
    /// What its parent had touched when it was forked from it, in order.
    pub inherited: Vec<Touch>,
    /// Whether some page faults were not followed: then it is not known what came in around
    /// a page that was touched, and what was touched itself.
    pub has_gaps: bool,
}

/// Whose the pages are that came into memory since the run began, bytes each.
#[derive(Debug, Default)]
pub struct Touched {
    /// Of which paths.
    pub sites: HashMap<u32, TouchedSums>,
    /// Of a parent.
    pub inherited: u64,
    /// Those that came in without a fault that was told of, by the number of the
    /// mapping.
    pub untold: BTreeMap<usize, u64>,
    /// The same where there were others that were not followed.
    pub not_followed: u64,
    /// Touched pages that are not in memory any more, nor in swap space.
    pub gone: Vec<Touch>,
}

/// Finds out whose the pages are.
pub fn settle(pages: &Pages<'_>) -> Touched {
    let mut touched = Touched::default();
    let mut there = Vec::new();
    for touch in pages.touches {
        let is_there = pages.after.present.has(touch.address);
        if is_there || !pages.after.is_whole {
            there.push(*touch);
        } else if touch.time < pages.as_of && !pages.after.swapped.has(touch.address) {
            touched.gone.push(*touch);
        }
    }
    let new = pages.after.present.minus(&pages.before.present);
    let new = new.minus(&pages.before.swapped);
    for (number, (range, kind)) in pages.mapped.iter().enumerate() {
        for run in new.runs(range) {
            for piece in pieces(&run) {
                let around = around(&piece, range);
                let near = within(&there, &around);
                let owners = Owners {
                    near,
                    inherited: within(&pages.inherited, &around),
                    has_gaps: pages.has_gaps,
                };
                owners.of_piece(&piece, (number, *kind), &mut touched);
            }
        }
    }
    touched
}

/// A run in parts, none of which lies in two blocks.
fn pieces(run: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let run = run.clone();
    let blocks = run.start / AROUND..run.end.div_ceil(AROUND);
    blocks.map(move |block| {
        run.start.max(block * AROUND)..run.end.min((block + 1).saturating_mul(AROUND))
    })
}

/// The block that a piece lies in, as far as it is of the same mapping.
fn around(piece: &Range<u64>, mapping: &Range<u64>) -> Range<u64> {
    let block = piece.start / AROUND * AROUND;
    block.max(mapping.start)..block.saturating_add(AROUND).min(mapping.end)
}

fn within<'a>(touches: &'a [Touch], range: &Range<u64>) -> &'a [Touch] {
    let at = |address: u64| touches.partition_point(|touch| touch.address < address);
    touches
        .get(at(range.start)..at(range.end))
        .unwrap_or_default()
}

/// Who may have brought in the pages of a block.
struct Owners<'a> {
    near: &'a [Touch],
    inherited: &'a [Touch],
    has_gaps: bool,
}

impl Owners<'_> {
    fn of_piece(
        &self,
        piece: &Range<u64>,
        (number, kind): (usize, PageKind),
        touched: &mut Touched,
    ) {
        let mut next = 0;
        let mut page = piece.start;
        while page < piece.end {
            while self
                .near
                .get(next)
                .is_some_and(|touch| touch.address < page)
            {
                next += 1;
            }
            if let Some((touch, is_own)) = self.nearest(page, next) {
                let sums = touched.sites.entry(touch.site).or_default();
                sums.add(kind, touch.time);
                sums.around += if is_own { 0 } else { PAGE };
            } else if self.is_inherited(page) {
                touched.inherited += PAGE;
            } else if self.has_gaps {
                touched.not_followed += PAGE;
            } else {
                *touched.untold.entry(number).or_default() += PAGE;
            }
            page += PAGE;
        }
    }

    /// Who touched a page, or else the one next to it, and whether it was the page
    /// itself; `next` is the first at it or above.
    fn nearest(&self, page: u64, next: usize) -> Option<(&Touch, bool)> {
        let above = self.near.get(next);
        if let Some(own) = above.filter(|touch| touch.address == page) {
            return Some((own, true));
        }
        // What the parent had there is no neighbour's.
        if self.has_gaps || self.had_by_parent(page) {
            return None;
        }
        let below = next.checked_sub(1).and_then(|at| self.near.get(at));
        let distance = |touch: &&Touch| touch.address.abs_diff(page);
        let nearest = below.into_iter().chain(above).min_by_key(distance)?;
        Some((nearest, false))
    }
}

impl Owners<'_> {
    fn had_by_parent(&self, page: u64) -> bool {
        let at = |touch: &Touch| touch.address.cmp(&page);
        self.inherited.binary_search_by(at).is_ok()
    }

    /// Whether a page that nobody is known to have touched came from the parent.
    fn is_inherited(&self, page: u64) -> bool {
        match self.has_gaps {
            true => self.had_by_parent(page),
            false => !self.inherited.is_empty(),
        }
    }
}

/// The pages that a fork leaves to a child of what its parent had touched.
pub fn inherited(touches: &[Touch], forked: u64) -> Vec<Touch> {
    let older = touches.iter().filter(|touch| touch.time <= forked);
    older.copied().collect()
}

/// Bytes that were in memory and are not, nor in swap space; and those that are there.
pub fn given_back(before: &Residents, after: &Residents) -> (u64, u64) {
    let everywhere = 0..u64::MAX;
    let lost = before.present.minus(&after.present);
    let swapped = lost.with(&after.swapped, &everywhere);
    (lost.bytes().saturating_sub(swapped), swapped)
}

/// Bytes that were in swap space and are in memory.
pub fn swapped_in(before: &Residents, after: &Residents) -> u64 {
    after.present.with(&before.swapped, &(0..u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn residents(ranges: &[(u64, u64)]) -> Residents {
        let mut residents = Residents::nothing();
        for (start, end) in ranges {
            assert!(residents.present.insert(&(start * PAGE..end * PAGE)));
        }
        residents
    }

    fn touch(page: u64, site: u32) -> Touch {
        Touch {
            address: page * PAGE,
            time: 100 + page,
            site,
        }
    }

    fn of(sums: &TouchedSums) -> (u64, u64, u64) {
        (sums.bytes() / PAGE, sums.around / PAGE, sums.oldest)
    }

    #[test]
    fn each_new_page_is_of_who_touched_it_or_the_next_one() {
        let before = residents(&[(10, 20)]);
        // 20 to 29 are new, 530 of another block, and 2000 of another mapping.
        let after = residents(&[(10, 30), (530, 531), (2000, 2002)]);
        let pages = Pages {
            before: &before,
            after: &after,
            as_of: u64::MAX,
            mapped: vec![
                (0..600 * PAGE, PageKind::Heap),
                (2000 * PAGE..2010 * PAGE, PageKind::File),
            ],
            // 15 was there before, 40 is gone.
            touches: &[
                touch(15, 1),
                touch(22, 1),
                touch(28, 2),
                touch(40, 3),
                touch(2001, 2),
            ],
            inherited: vec![],
            has_gaps: false,
        };
        let touched = settle(&pages);
        // 20 to 25: 25 is as near to 22 as to 28.
        assert_eq!(of(&touched.sites[&1]), (6, 5, 122));
        assert_eq!(of(&touched.sites[&2]), (6, 4, 128));
        let kinds = &touched.sites[&2].kinds;
        assert_eq!(
            (kinds[&PageKind::Heap], kinds[&PageKind::File]),
            (4 * PAGE, 2 * PAGE)
        );
        assert_eq!(touched.gone, [touch(40, 3)]);
        assert_eq!(touched.untold, BTreeMap::from([(0, PAGE)]));
    }

    #[test]
    fn where_faults_were_not_followed_nothing_is_guessed() {
        let before = residents(&[(10, 20)]);
        let after = residents(&[(10, 30)]);
        let pages = Pages {
            before: &before,
            after: &after,
            as_of: u64::MAX,
            mapped: vec![(0..600 * PAGE, PageKind::Heap)],
            touches: &[touch(22, 1), touch(28, 2)],
            inherited: vec![touch(25, 7)],
            has_gaps: true,
        };
        let touched = settle(&pages);
        assert_eq!(of(&touched.sites[&1]), (1, 0, 122));
        assert_eq!(of(&touched.sites[&2]), (1, 0, 128));
        assert_eq!(touched.inherited, PAGE);
        assert_eq!(touched.not_followed, 7 * PAGE);
        assert!(touched.untold.is_empty());
    }

    #[test]
    fn a_look_that_is_not_whole_takes_nothing_off() {
        let before = residents(&[]);
        let mut after = residents(&[(1, 2)]);
        after.is_whole = false;
        let pages = Pages {
            before: &before,
            after: &after,
            as_of: u64::MAX,
            mapped: vec![(0..100 * PAGE, PageKind::Anonymous)],
            touches: &[touch(1, 1), touch(50, 2)],
            inherited: vec![],
            has_gaps: false,
        };
        assert!(settle(&pages).gone.is_empty());
    }

    #[test]
    fn what_a_parent_had_touched_is_no_growth_of_its_child() {
        let before = residents(&[]);
        let after = residents(&[(1, 5)]);
        let parents = [touch(1, 7), touch(2, 7), touch(4, 7)];
        let pages = Pages {
            before: &before,
            after: &after,
            as_of: u64::MAX,
            mapped: vec![(0..100 * PAGE, PageKind::Anonymous)],
            touches: &[touch(3, 1)],
            inherited: inherited(&parents, 103),
            has_gaps: false,
        };
        let touched = settle(&pages);
        assert_eq!(touched.inherited, 2 * PAGE);
        // The fourth was touched after the fork, so it came with the third.
        assert_eq!(of(&touched.sites[&1]), (2, 1, 103));
    }

    #[test]
    fn what_went_to_swap_space_is_not_given_back() {
        let before = residents(&[(0, 10)]);
        let mut after = residents(&[(0, 3)]);
        assert!(after.swapped.insert(&(3 * PAGE..5 * PAGE)));
        assert_eq!(given_back(&before, &after), (5 * PAGE, 2 * PAGE));
        assert_eq!(swapped_in(&after, &before), 2 * PAGE);
    }
}
