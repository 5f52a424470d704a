//! glibc's arenas but the first, by the headers of their heaps (`heap_info` in
//! malloc/arena.c): no symbols are needed, and only pages that are in memory are
//! read.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::free_lists::FreeLists;
use super::mappings::{Mapping, MappingKind};
use super::pagemap::PAGE;
use super::resident::PageSet;

/// A heap of an arena has its address at a multiple of this, and reserves as much
/// (`HEAP_MAX_SIZE`), bytes.
const HEAP: u64 = 64 << 20;
/// The arena lies right behind its first heap's header: of four or six words.
const HEADER: Range<u64> = 32..65;
/// Places in one mapping that are looked at, at most.
const MAX_PLACES: u64 = 16 << 10;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arenas {
    /// What their heaps reserve.
    pub heaps: Vec<Range<u64>>,
    /// How many arenas have such; the first has none.
    pub count: u64,
    /// What all arenas have free, if that could be read.
    pub free: Option<FreeLists>,
}

/// A heap of an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heap {
    /// Its first address.
    pub start: u64,
    /// Where its arena's state is: in the arena's first heap.
    pub arena: u64,
    /// How much of it is in use, bytes from its start.
    pub size: u64,
}

impl Heap {
    /// All heaps in a process's memory.
    pub fn all(memory: &File, mappings: &[Mapping], present: &PageSet) -> Vec<Self> {
        let private = mappings
            .iter()
            .filter(|mapping| mapping.kind == MappingKind::Anonymous && mapping.is_writable);
        let places = private.flat_map(|mapping| places(&mapping.range));
        let heaps: Vec<Self> = places
            .filter(|place| present.has(*place))
            .filter_map(|start| {
                let Header { arena, size, .. } = header(memory, start)?;
                Some(Self { start, arena, size })
            })
            .collect();
        // An arena lies in a heap that says that it is its.
        let is_one = |arena: u64| {
            let mut heaps = heaps.iter();
            heaps.any(|heap| heap.start == arena / HEAP * HEAP && heap.arena == arena)
        };
        let ours = heaps.iter().filter(|heap| is_one(heap.arena));
        ours.copied().collect()
    }
}

/// A heap's header: its arena, the heap before it, how much of it is in use, and how
/// much can be read and written.
struct Header {
    arena: u64,
    size: u64,
    open: u64,
}

impl Arenas {
    /// Looks for them in a process's memory.
    pub fn find(memory: &File, mappings: &[Mapping], present: &PageSet) -> Self {
        let heaps = Heap::all(memory, mappings, present);
        let arenas: BTreeSet<u64> = heaps.iter().map(|heap| heap.arena).collect();
        let first = arenas.first();
        Self {
            free: first.and_then(|arena| FreeLists::read(memory, present, *arena)),
            heaps: heaps
                .iter()
                .map(|heap| heap.start..heap.start + HEAP)
                .collect(),
            count: arenas.len() as u64,
        }
    }
}

fn places(range: &Range<u64>) -> impl Iterator<Item = u64> + use<> {
    let first = range.start.next_multiple_of(HEAP);
    let count = range.end.saturating_sub(first).div_ceil(HEAP);
    (0..count.min(MAX_PLACES)).map(move |number| first + number * HEAP)
}

fn header(memory: &File, place: u64) -> Option<Header> {
    let mut bytes = [0; 32];
    memory.read_exact_at(&mut bytes, place).ok()?;
    let (words, _) = bytes.as_chunks();
    let [arena, _, size, open] = [0, 1, 2, 3].map(|at: usize| {
        let word = words.get(at).copied().unwrap_or_default();
        u64::from_le_bytes(word)
    });
    let header = Header { arena, size, open };
    header.is_one().then_some(header)
}

impl Header {
    fn is_one(&self) -> bool {
        let Self { arena, size, open } = *self;
        HEADER.contains(&(arena % HEAP))
            && arena.is_multiple_of(16)
            && size > 0
            && size <= open
            && open <= HEAP
            && open.is_multiple_of(PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_checked() {
        let one = |arena, size, open| Header { arena, size, open }.is_one();
        let heap = 3 * HEAP;
        assert!(one(heap + 0x20, 0x21000, 0x21000));
        assert!(one(heap + 0x30, 0x1000, 0x40_0000));
        assert!(!one(heap + 0x20, 0x42000, 0x21000), "more than it has");
        assert!(!one(heap + 0x1020, 0x21000, 0x21000), "no arena there");
        assert!(!one(heap + 0x20, 0x21000, 0x21010), "no pages");
        assert!(!one(0, 0, 0));
    }

    #[test]
    fn places_are_bounded() {
        let range = HEAP + 1..4 * HEAP;
        assert_eq!(places(&range).collect::<Vec<_>>(), [2 * HEAP, 3 * HEAP]);
        assert_eq!(places(&(1..PAGE)).count(), 0);
        assert_eq!(places(&(0..1 << 47)).count() as u64, MAX_PLACES);
    }
}
