//! The pages of a process that are in memory at one moment, to be compared with
//! those of another: a bit for each page.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::time::Instant;

use super::mappings::{Mapping, MappingKind};
use super::pagemap::{Kept, PAGE, PageMap};

/// Words of a chunk.
const WORDS: usize = 8;
/// Pages of a chunk: 2 MiB.
const PAGES: u64 = WORDS as u64 * 64;
/// Chunks that one set keeps: half a terabyte if it is dense, in 24 MiB.
pub const MAX_CHUNKS: usize = 256 << 10;

/// A set of pages.
#[derive(Debug, Clone, Default)]
pub struct PageSet {
    chunks: BTreeMap<u64, [u64; WORDS]>,
}

impl PageSet {
    /// Enters pages. Returns false if there is no room.
    pub fn insert(&mut self, range: &Range<u64>) -> bool {
        let (mut page, end) = (range.start / PAGE, range.end / PAGE);
        while page < end {
            let chunk = page / PAGES;
            if self.chunks.len() >= MAX_CHUNKS && !self.chunks.contains_key(&chunk) {
                return false;
            }
            let next = end.min((chunk + 1) * PAGES);
            let words = self.chunks.entry(chunk).or_default();
            for (word, mask) in words.iter_mut().zip(masks(chunk, page, next)) {
                *word |= mask;
            }
            page = next;
        }
        true
    }

    /// Whether the page of an address is in it.
    pub fn has(&self, address: u64) -> bool {
        let page = address / PAGE;
        let bit = page % PAGES;
        self.chunks.get(&(page / PAGES)).is_some_and(|words| {
            let word = usize::try_from(bit / 64).ok().and_then(|at| words.get(at));
            word.is_some_and(|word| word >> (bit % 64) & 1 != 0)
        })
    }

    /// The pages that are in it and not in `other`.
    pub fn minus(&self, other: &Self) -> Self {
        let chunks = self.chunks.iter().filter_map(|(chunk, words)| {
            let others = other.chunks.get(chunk).copied().unwrap_or_default();
            let left: [u64; WORDS] = std::array::from_fn(|at| words[at] & !others[at]);
            left.iter().any(|word| *word != 0).then_some((*chunk, left))
        });
        Self {
            chunks: chunks.collect(),
        }
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.without(&Self::default(), &(0..u64::MAX))
    }

    /// Bytes of a range that are in it and not in `other`, whole pages.
    pub fn without(&self, other: &Self, range: &Range<u64>) -> u64 {
        self.count(range, |chunk, words| match other.chunks.get(&chunk) {
            Some(others) => std::array::from_fn(|at| words[at] & !others[at]),
            None => *words,
        })
    }

    /// Bytes of a range that are in both, whole pages.
    pub fn with(&self, other: &Self, range: &Range<u64>) -> u64 {
        self.count(range, |chunk, words| match other.chunks.get(&chunk) {
            Some(others) => std::array::from_fn(|at| words[at] & others[at]),
            None => [0; WORDS],
        })
    }

    /// Runs of pages in a range, in order.
    pub fn runs(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        let (first, end) = (range.start / PAGE, range.end.div_ceil(PAGE));
        for (chunk, _) in self.chunks.range(first / PAGES..end.div_ceil(PAGES)) {
            for page in (chunk * PAGES).max(first)..((chunk + 1) * PAGES).min(end) {
                let address = page * PAGE;
                if !self.has(address) {
                    continue;
                }
                match runs.last_mut() {
                    Some(run) if run.end == address => run.end += PAGE,
                    _ => runs.push(address..address + PAGE),
                }
            }
        }
        runs
    }

    fn count(&self, range: &Range<u64>, of: impl Fn(u64, &[u64; WORDS]) -> [u64; WORDS]) -> u64 {
        let (first, end) = (range.start / PAGE, range.end.div_ceil(PAGE));
        let chunks = self.chunks.range(first / PAGES..end.div_ceil(PAGES));
        let pages = chunks.map(|(chunk, words)| {
            let masks = masks(*chunk, first, end);
            let words = of(*chunk, words);
            let bits = words.iter().zip(masks);
            bits.map(|(word, mask)| u64::from((word & mask).count_ones()))
                .sum::<u64>()
        });
        pages.sum::<u64>() * PAGE
    }
}

/// The bits of a chunk's words that stand for pages from `first` to before `end`.
fn masks(chunk: u64, first: u64, end: u64) -> [u64; WORDS] {
    let below = |page: u64, word: usize| {
        let begin = chunk * PAGES + word as u64 * 64;
        match page.saturating_sub(begin) {
            bits @ 0..64 => (1 << bits) - 1,
            _ => u64::MAX,
        }
    };
    std::array::from_fn(|word| below(end, word) & !below(first, word))
}

/// The pages of a process at one moment.
#[derive(Debug, Clone, Default)]
pub struct Residents {
    /// In memory.
    pub present: PageSet,
    /// In swap space.
    pub swapped: PageSet,
    /// Whether all are there: there was time and room.
    pub is_whole: bool,
}

impl Residents {
    /// A whole look at a process without memory.
    pub fn nothing() -> Self {
        Self {
            is_whole: true,
            ..Self::default()
        }
    }

    /// Reads those of all mappings that are in a resident set, until the `deadline`, and
    /// while there is `room` for chunks, of which it takes what it needs.
    ///
    /// # Errors
    /// Fails if the page map cannot be read.
    pub fn read(
        map: &PageMap,
        mappings: &[Mapping],
        deadline: Instant,
        room: &mut usize,
    ) -> io::Result<Self> {
        let mut pages = Self::default();
        let mut has_room = true;
        let counted = |mapping: &&Mapping| {
            mapping.kind != MappingKind::Kernel && !mapping.name.starts_with("/anon_hugepage")
        };
        let mut in_time = true;
        for mapping in mappings.iter().filter(counted) {
            let mut tell = |run: Range<u64>, kept| {
                let set = match kept {
                    Kept::Anonymous | Kept::Shared => &mut pages.present,
                    Kept::Swapped => &mut pages.swapped,
                };
                has_room &= set.insert(&run);
            };
            in_time = map.each(&mapping.range, Some(deadline), &mut tell)?;
            has_room &= pages.chunks() <= *room;
            if !in_time || !has_room {
                break;
            }
        }
        pages.is_whole = in_time && has_room;
        *room = room.saturating_sub(pages.chunks());
        Ok(pages)
    }

    /// How many chunks of memory the sets are kept in.
    pub fn chunks(&self) -> usize {
        self.present.chunks.len() + self.swapped.chunks.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process::handle::ProcessHandle;
    use crate::process::mappings;

    fn set(ranges: &[Range<u64>]) -> PageSet {
        let mut set = PageSet::default();
        for range in ranges {
            assert!(set.insert(&(range.start * PAGE..range.end * PAGE)));
        }
        set
    }

    #[test]
    fn sets_are_compared_page_by_page() {
        let before = set(&[0..10, 500..600, 5000..5001]);
        let after = set(&[5..20, 511..513, 9000..9064]);
        let all = 0..1 << 40;
        assert_eq!(after.without(&before, &all), (10 + 64) * PAGE);
        assert_eq!(before.without(&after, &all), (5 + 98 + 1) * PAGE);
        assert_eq!(before.with(&after, &all), (5 + 2) * PAGE);
        let part = 15 * PAGE..9001 * PAGE;
        assert_eq!(after.without(&before, &part), (5 + 1) * PAGE);
        assert!(after.has(9063 * PAGE + 17) && !after.has(9064 * PAGE));
        assert!(!after.has(0));
    }

    #[test]
    fn runs_are_those_that_were_entered() {
        let ranges = [3..4, 500..1030, 5000..5001];
        let runs = set(&ranges).runs(&(0..1 << 40));
        let expected = ranges
            .clone()
            .map(|range| range.start * PAGE..range.end * PAGE);
        assert_eq!(runs, expected);
        let part = 600 * PAGE..700 * PAGE;
        let runs = set(&ranges).runs(&part);
        assert_eq!((runs.len(), runs.first()), (1, Some(&part)));
    }

    #[test]
    fn there_is_a_bound() {
        let mut set = PageSet::default();
        let chunk = PAGES * PAGE;
        let page = |number: u64| number * chunk..number * chunk + PAGE;
        for number in 0..MAX_CHUNKS as u64 {
            assert!(set.insert(&page(number)));
        }
        assert!(!set.insert(&page(MAX_CHUNKS as u64)));
        assert!(set.insert(&page(7)));
    }

    #[test]
    fn all_processes_share_the_room() {
        let own = ProcessHandle::open(std::process::id()).unwrap();
        let map = PageMap::open(&own).unwrap();
        let all = mappings::read(&own).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut room = 100_000;
        let pages = Residents::read(&map, &all, deadline, &mut room).unwrap();
        assert!(pages.is_whole && room == 100_000 - pages.chunks());
        room = 1;
        let pages = Residents::read(&map, &all, deadline, &mut room).unwrap();
        assert!(!pages.is_whole && room == 0);
    }
}
