//! The tree by which jemalloc finds what a page is (`rtree_t` in rtree.h, of 5.3, with two
//! levels: 48 bits of addresses and pages of 4 KiB). Its root is among a file's variables, a
//! leaf for each GiB of addresses in a block of metadata.

use std::ops::Range;

use super::super::memory::{Memory, Words};
use super::extent::{BYTES, Entry, Extent};
use crate::process::pagemap::PAGE;
use crate::process::resident::PageSet;

/// What a leaf stands for, as a power of two, bytes.
const GIB: u32 = 30;
/// A leaf, and the root: words of so many pages, and of so many leaves.
const COUNT: u64 = 1 << 18;
const BYTES_OF_ALL: u64 = COUNT * 8;
/// Entries of what may be a leaf that are looked at.
const LOOKED_AT: usize = 256;

/// The tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tree {
    /// Where its root's words begin.
    root: u64,
}

impl Tree {
    /// The tree, if a place among the variables of a mapping leads to a leaf of it.
    pub fn at(
        (memory, present): (&dyn Memory, &PageSet),
        metadata: &[Range<u64>],
        variables: &Range<u64>,
        (place, word): (u64, u64),
    ) -> Option<Self> {
        let end = word.checked_add(BYTES_OF_ALL)?;
        if !word.is_multiple_of(64) || !is_in(metadata, word) || !is_in(metadata, end - 1) {
            return None;
        }
        let mut words = Words::new(memory, present);
        let runs = present.runs(&(word..end)).into_iter();
        let places = runs.flat_map(|run| (run.start.max(word)..run.end.min(end)).step_by(8));
        let entries = places.filter_map(|place| Some((place, Entry(words.get(place)?))));
        let entries = entries.filter(|(_, entry)| is_in(metadata, entry.place()));
        entries.take(LOOKED_AT).find_map(|(of, entry)| {
            let page = page_of(memory, present, entry)?;
            if page / PAGE % COUNT != (of - word) / 8 {
                return None;
            }
            let root = place.checked_sub((page >> GIB) * 8)?;
            let is_there = root >= variables.start && root + BYTES_OF_ALL <= variables.end;
            is_there.then_some(Self { root })
        })
    }

    /// The entries of a range's pages, in order, each with its page: of what follows itself
    /// only the first. No more than there is room for; whether that was enough.
    pub fn entries(
        self,
        words: &mut Words<'_>,
        present: &PageSet,
        range: &Range<u64>,
        entries: &mut Vec<(u64, Entry)>,
        room: usize,
    ) -> bool {
        let mut gib = range.start >> GIB;
        while gib < COUNT && gib << GIB < range.end {
            let pages = range.start.max(gib << GIB)..range.end.min((gib + 1) << GIB);
            let leaf = words.get(self.root + gib * 8).filter(|leaf| *leaf != 0);
            gib += 1;
            let Some(leaf) = leaf else { continue };
            let at = |page: u64| leaf.checked_add(page / PAGE % COUNT * 8);
            let (Some(first), Some(last)) = (at(pages.start), at(pages.end - 1)) else {
                continue;
            };
            for run in present.runs(&(first..last + 8)) {
                for place in (run.start.max(first)..run.end.min(last + 8)).step_by(8) {
                    let Some(word @ 1..) = words.get(place) else {
                        continue;
                    };
                    let entry = Entry(word);
                    if entries.last().is_some_and(|(_, last)| *last == entry) {
                        continue;
                    }
                    if entries.len() >= room {
                        return false;
                    }
                    let page = pages.start / PAGE * PAGE + (place - first) / 8 * PAGE;
                    entries.push((page, entry));
                }
            }
        }
        true
    }
}

/// Whether an address is in one of them.
pub fn is_in(ranges: &[Range<u64>], address: u64) -> bool {
    ranges.iter().any(|range| range.contains(&address))
}

/// The first page of the extent that an entry leads to.
fn page_of(memory: &dyn Memory, present: &PageSet, entry: Entry) -> Option<u64> {
    let bytes = described(memory, present, entry)?;
    let address = u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
    let page = address / PAGE * PAGE;
    Extent::parse(&bytes, entry, page).map(|extent| extent.pages.start)
}

/// What is said of an entry's extent.
fn described(memory: &dyn Memory, present: &PageSet, entry: Entry) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    let piece = piece(present, entry)?;
    let read = memory.read(std::slice::from_ref(&piece), &mut bytes);
    (read == BYTES).then_some(bytes)
}

/// Where that is, if it is in memory.
pub fn piece(present: &PageSet, entry: Entry) -> Option<Range<u64>> {
    let piece = entry.place()..entry.place().checked_add(BYTES as u64)?;
    (present.has(piece.start) && present.has(piece.end - 1)).then_some(piece)
}
