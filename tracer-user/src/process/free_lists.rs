//! What glibc's arenas have free, by their own lists (`malloc_state` in
//! malloc/malloc.c of 2.26 and later), without symbols: arenas lead to one another.
//!
//! The process runs on meanwhile, so what is read may be half changed: everything is
//! bounded, and the sums are about right. Only pages that are in memory are read.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::pagemap::PAGE;
use super::resident::PageSet;

/// Arenas that are followed, chunks that are looked at in all, each some 2 us.
const MAX_ARENAS: usize = 1024;
const MAX_CHUNKS: u64 = 100_000;
/// Lists of free chunks, and what of an arena is read, bytes.
const LISTS: u8 = 127;
const ARENA: usize = 2200;
/// Before the lists are two words: where the top chunk is, and the last remainder. The
/// lists begin here; in 2.26 and before one word earlier.
const BEGINS: [usize; 2] = [112, 104];
/// Behind the lists: four words of a bit map's halves, then the next arena.
const NEXT: usize = LISTS as usize * 16 + 16;
/// A header, and the pointers of a free chunk, which stay when pages are given back.
const CHUNK: u64 = 48;

/// What is free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FreeLists {
    /// Arenas that were read.
    pub arenas: u64,
    /// Bytes of free chunks, those at the top of the arenas among them.
    pub free: u64,
    /// Bytes of pages in memory that `malloc_trim(0)` gives back.
    pub trimmable: u64,
}

struct Walk<'a> {
    memory: &'a File,
    present: &'a PageSet,
    /// Chunks that may be looked at yet.
    left: u64,
    found: FreeLists,
}

impl FreeLists {
    /// Reads those of the arena at an address, and of all others. `None` if they are
    /// not as glibc has them.
    pub fn read(memory: &File, present: &PageSet, arena: u64) -> Option<Self> {
        BEGINS.into_iter().find_map(|begin| {
            let mut walk = Walk {
                memory,
                present,
                left: MAX_CHUNKS,
                found: Self::default(),
            };
            let arenas = walk.arenas(arena, begin)?;
            for (place, state) in arenas {
                walk.arena(place, &state, begin)?;
            }
            Some(walk.found)
        })
    }
}

impl Walk<'_> {
    /// The arenas, each with its bytes: a ring.
    fn arenas(&self, first: u64, begin: usize) -> Option<Vec<(u64, [u8; ARENA])>> {
        let mut arenas = Vec::new();
        let mut at = first;
        while arenas.len() < MAX_ARENAS {
            let state = self.read(at)?;
            let next = word(&state, begin + NEXT)?;
            arenas.push((at, state));
            if next == first {
                return Some(arenas);
            }
            at = next;
        }
        None
    }

    fn arena(&mut self, place: u64, state: &[u8; ARENA], begin: usize) -> Option<()> {
        // Its memory, which is never less than what is free.
        let system = word(state, begin + NEXT + 24)?;
        let before = self.found.free;
        for list in (0..LISTS).map(u64::from) {
            // A list's head looks like a chunk, whose pointers are the list's.
            let offset = begin as u64 + list * 16;
            let head = place + offset - 16;
            let mut chunk = word(state, usize::try_from(offset).ok()?)?;
            while chunk != head {
                let [size, next] = self.chunk(chunk, system)?;
                self.add(chunk..chunk.checked_add(size)?);
                chunk = next;
            }
        }
        let top = word(state, begin - 16)?;
        let [size, _] = self.chunk(top, system)?;
        self.found.free += size;
        self.found.arenas += 1;
        (self.found.free - before <= system).then_some(())
    }

    /// The size of a chunk, and the word where a free one has the next.
    fn chunk(&mut self, chunk: u64, system: u64) -> Option<[u64; 2]> {
        self.left = self.left.checked_sub(1)?;
        let bytes: [u8; 24] = self.read(chunk)?;
        let size = word(&bytes, 8)? & !7;
        (size >= 16 && size <= system).then_some([size, word(&bytes, 16)?])
    }

    fn add(&mut self, chunk: Range<u64>) {
        self.found.free += chunk.end - chunk.start;
        let start = (chunk.start + CHUNK).next_multiple_of(PAGE);
        let pages = start..chunk.end / PAGE * PAGE;
        if pages.start < pages.end {
            self.found.trimmable += self.present.with(self.present, &pages);
        }
    }

    fn read<const BYTES: usize>(&self, place: u64) -> Option<[u8; BYTES]> {
        let end = place.checked_add(BYTES as u64)?;
        let is_there =
            place.is_multiple_of(8) && self.present.has(place) && self.present.has(end - 1);
        let mut bytes = [0; BYTES];
        is_there.then(|| self.memory.read_exact_at(&mut bytes, place).ok())??;
        Some(bytes)
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u64> {
    let word = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const AT: u64 = 4 * PAGE;
    /// A free chunk, and the one at the top.
    const FREE: u64 = 8 * PAGE;
    const TOP: u64 = 20 * PAGE;

    /// Memory with one arena, one free chunk of ten pages, and the top.
    fn memory(next_of_free: u64) -> (File, PageSet) {
        let mut bytes = vec![0_u8; 40 * 4096];
        let mut put = |place: u64, word: u64| {
            let place = usize::try_from(place).unwrap();
            bytes[place..place + 8].copy_from_slice(&word.to_le_bytes());
        };
        for list in (0..LISTS).map(u64::from) {
            let head = AT + 112 + list * 16 - 16;
            put(head + 16, head);
            put(head + 24, head);
        }
        let head = AT + 112 + 5 * 16 - 16;
        put(head + 16, FREE);
        put(FREE + 8, (10 * PAGE) | 1);
        put(
            FREE + 16,
            if next_of_free == 0 {
                head
            } else {
                next_of_free
            },
        );
        put(AT + 96, TOP);
        put(TOP + 8, (3 * PAGE) | 1);
        put(AT + 112 + NEXT as u64, AT);
        put(AT + 112 + NEXT as u64 + 24, 30 * PAGE);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let mut present = PageSet::default();
        // The last two pages of the free chunk were never touched.
        assert!(present.insert(&(0..FREE + 8 * PAGE)));
        assert!(present.insert(&(TOP..40 * PAGE)));
        (file, present)
    }

    #[test]
    fn free_chunks_are_summed() {
        let (file, present) = memory(0);
        let found = FreeLists::read(&file, &present, AT).unwrap();
        let expected = FreeLists {
            arenas: 1,
            free: 13 * PAGE,
            trimmable: 7 * PAGE,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn lists_that_are_none_are_given_up() {
        // A chunk that leads to itself, one out of memory, and a crooked one.
        for next in [FREE, 1 << 40, FREE + 3] {
            let (file, present) = memory(next);
            assert_eq!(FreeLists::read(&file, &present, AT), None, "{next:x}");
        }
        let (file, present) = memory(0);
        assert_eq!(FreeLists::read(&file, &present, AT + 8), None);
        assert_eq!(FreeLists::read(&file, &PageSet::default(), AT), None);
    }
}
