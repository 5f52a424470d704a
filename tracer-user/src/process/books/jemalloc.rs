//! jemalloc's arenas, of 5.3 with statistics (its default): their blocks of metadata
//! (`base_block_t` in base.h) are known by their headers, and the three caches of free
//! extents (`ecache_t` in ecache.h) of the arena in one by their states and sums.

use std::ops::Range;

use super::{Books, Memory, half, word};
use crate::process::mappings::{Mapping, MappingKind};
use crate::process::pagemap::PAGE;

/// A block of metadata has its address at a multiple of this, and a multiple of it as its
/// size (`HUGEPAGE`), bytes.
const BLOCK: u64 = 2 << 20;
/// Blocks that are larger are none, bytes.
const MAX_BLOCK: u64 = 1 << 30;
/// What of a block is searched for an arena, which is made right after the block's
/// header and the arena's `base_t` of 14 KiB.
const SEARCHED: u64 = 256 << 10;
/// Places in one mapping that are looked at, at most.
const MAX_PLACES: u64 = 64 << 10;

/// Size classes of pages, and one for all that are larger (`SC_NPSIZES + 1`).
const CLASSES: usize = 200;
/// An `eset_t` up to its sums by class: a bit, and 32 bytes, for each class.
const SUMS: usize = CLASSES.div_ceil(64) * 8 + CLASSES * 32;
/// From there its number of pages lies behind the sums, of two words each, and a pointer.
const PAGES: usize = SUMS + CLASSES * 16 + 8;
/// Then its state.
const STATE: usize = PAGES + 8;
/// All of an `eset_t`.
const ESET: usize = STATE + 8;
/// Two of them, and the state and number of an `ecache_t`, behind its mutex.
const CACHE: usize = 2 * ESET + 16;
/// What a mutex can have: it depends on how jemalloc was built.
const MUTEX: Range<usize> = 8..257;
/// Looks at an arena, while its program changes it.
const LOOKS: usize = 3;

/// The books of all arenas; none if one that is there could not be read.
pub(super) fn find(memory: &mut Memory<'_>, mappings: &[Mapping]) -> Option<Books> {
    let mut books = Books {
        allocator: "jemalloc",
        arenas: 0,
        free: 0,
    };
    let private = mappings
        .iter()
        .filter(|mapping| mapping.kind == MappingKind::Anonymous && mapping.is_writable);
    for mapping in private {
        for place in places(&mapping.range) {
            if let Some(Found::Free(bytes)) = arena(memory, place)? {
                books.arenas += 1;
                books.free += bytes;
            }
        }
    }
    (books.arenas > 0).then_some(books)
}

pub fn places(range: &Range<u64>) -> impl Iterator<Item = u64> + use<> {
    let first = range.start.next_multiple_of(BLOCK);
    let count = range.end.saturating_sub(first).div_ceil(BLOCK);
    (0..count.min(MAX_PLACES)).map(move |number| first + number * BLOCK)
}

/// What a block of metadata has.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// An arena with so many free bytes.
    Free(u64),
    /// An arena whose sums do not come out.
    Crooked,
}

/// The arena in the block at a place. `Some(None)` if there is no block, or no arena in
/// it; `None` if one is there and cannot be read.
fn arena(memory: &mut Memory<'_>, place: u64) -> Option<Option<Found>> {
    if !memory.present.has(place) || !is_block(&memory.read(&(place..place + 40))?, place) {
        return Some(None);
    }
    for _ in 0..LOOKS {
        match caches(&memory.read(&(place..place + SEARCHED))?) {
            Some(Found::Crooked) => {}
            found => return Some(found),
        }
    }
    None
}

/// Whether these are the first five words of a block: its size, the next one, and the
/// extent of what is unused of it (its bits, address and size), which ends with it.
pub fn is_block(header: &[u8], place: u64) -> bool {
    let header: [Option<u64>; 5] = std::array::from_fn(|at| word(header, at * 8));
    let [Some(size), Some(next), Some(_), Some(unused), Some(left)] = header else {
        return false;
    };
    let end = place.saturating_add(size);
    (BLOCK..=MAX_BLOCK).contains(&size)
        && size.is_multiple_of(BLOCK)
        && next.is_multiple_of(BLOCK)
        && (place..=end).contains(&unused)
        && unused.checked_add(left) == Some(end)
}

/// What an arena has free, by its caches of dirty, muzzy and retained extents, which lie
/// one behind another.
fn caches(bytes: &[u8]) -> Option<Found> {
    let last = bytes.len().checked_sub(3 * CACHE)?;
    (0..last).step_by(8).find_map(|first| {
        if !is_cache(bytes, first, 1) {
            return None;
        }
        let next = MUTEX.step_by(8).map(|mutex| mutex + CACHE);
        let step = next.into_iter().find(|step| {
            is_cache(bytes, first + step, 2) && is_cache(bytes, first + 2 * step, 3)
        })?;
        let number = |cache: usize| half(bytes, cache + 2 * ESET + 4);
        if number(first) != number(first + step) || number(first) != number(first + 2 * step) {
            return None;
        }
        // What is retained was given back, and only its addresses are kept. Its sums are
        // checked with the others.
        let pages = [first, first + step, first + 2 * step].map(|cache| {
            let [plain, guarded] = [cache, cache + ESET].map(|set| pages_of(bytes, set));
            plain?.checked_add(guarded?)
        });
        let free = match pages {
            [Some(dirty), Some(muzzy), Some(_)] => dirty.checked_add(muzzy),
            _ => None,
        };
        let free = free.and_then(|pages| pages.checked_mul(PAGE));
        Some(free.map_or(Found::Crooked, Found::Free))
    })
}

/// Whether a cache with a state has its sets here: each of both has the state, and so has
/// the cache itself.
fn is_cache(bytes: &[u8], sets: usize, state: u32) -> bool {
    [sets + STATE, sets + ESET + STATE, sets + 2 * ESET]
        .iter()
        .all(|place| half(bytes, *place) == Some(state))
}

/// The pages of a set, if its sums by class add up to them, and its bits say in which
/// classes it has some.
fn pages_of(bytes: &[u8], set: usize) -> Option<u64> {
    let pages = word(bytes, set + PAGES)?;
    let mut sum = 0_u64;
    for class in 0..CLASSES {
        let at = set + SUMS + class * 16;
        let [count, size] = [word(bytes, at)?, word(bytes, at + 8)?];
        let has_some = word(bytes, set + class / 64 * 8)? >> (class % 64) & 1 != 0;
        if has_some != (count > 0) || size < count.checked_mul(PAGE)? {
            return None;
        }
        sum = sum.checked_add(size)?;
    }
    (pages.checked_mul(PAGE) == Some(sum)).then_some(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the first cache's sets are, and how far it is to the next.
    const FIRST: usize = 0x3a98;
    const STEP: usize = CACHE + 112;

    /// A block with an arena that has so many pages, in each cache, in extents of two.
    fn block(pages: [u64; 3]) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(SEARCHED).unwrap()];
        let mut put = |place: usize, word: u64| {
            bytes[place..place + 8].copy_from_slice(&word.to_le_bytes());
        };
        for (cache, pages) in pages.into_iter().enumerate() {
            let (sets, state) = (FIRST + cache * STEP, cache as u64 + 1);
            put(sets + STATE, state);
            put(sets + ESET + STATE, state);
            put(sets + 2 * ESET, state | 5 << 32);
            put(sets + PAGES, pages);
            if pages > 0 {
                put(sets, 1 << 1);
                put(sets + SUMS + 16, pages / 2);
                put(sets + SUMS + 24, pages * PAGE);
            }
        }
        bytes
    }

    #[test]
    fn dirty_and_muzzy_pages_are_free() {
        let found = caches(&block([1802, 4, 6008]));
        assert_eq!(found, Some(Found::Free(1806 * PAGE)));
        assert_eq!(caches(&block([0, 0, 0])), Some(Found::Free(0)));
    }

    #[test]
    fn arenas_whose_sums_do_not_come_out_have_no_books() {
        for (place, what) in [
            (FIRST + PAGES, "pages"),
            (FIRST + SUMS + 24, "bytes of a class"),
            (FIRST, "bits"),
            (FIRST + 2 * STEP + PAGES, "pages that are retained"),
        ] {
            let mut bytes = block([1802, 4, 6008]);
            bytes[place] ^= 1;
            assert_eq!(caches(&bytes), Some(Found::Crooked), "{what}");
        }
    }

    #[test]
    fn other_memory_is_no_arena() {
        assert_eq!(caches(&vec![0; usize::try_from(SEARCHED).unwrap()]), None);
        assert_eq!(caches(&vec![1; usize::try_from(SEARCHED).unwrap()]), None);
        for place in [
            FIRST + STATE,
            FIRST + STEP + ESET + STATE,
            FIRST + 2 * STEP + 2 * ESET,
            FIRST + STEP + 2 * ESET + 4,
        ] {
            let mut bytes = block([1802, 4, 6008]);
            bytes[place] ^= 1;
            assert_eq!(caches(&bytes), None, "{place}");
        }
        assert_eq!(caches(&block([2, 2, 2])[..FIRST + 3 * CACHE]), None, "cut");
    }

    #[test]
    fn headers_are_checked() {
        let place = 7 * BLOCK;
        let is_one = |words: [u64; 5]| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            is_block(&bytes, place)
        };
        let unused = place + 0x1_8800;
        let left = BLOCK - 0x1_8800;
        assert!(is_one([BLOCK, 0, 0xe80_afff, unused, left]));
        assert!(is_one([3 * BLOCK, BLOCK, 0, unused, left + 2 * BLOCK]));
        assert!(!is_one([BLOCK, 0, 0, unused, left + 8]), "beyond its end");
        assert!(!is_one([BLOCK, 8, 0, unused, left]), "no block is next");
        assert!(!is_one([PAGE, 0, 0, place, PAGE]), "small");
        assert!(!is_one([0; 5]));
        assert!(!is_block(&[0; 8], place), "cut");
    }
}
