//! The chunks of a heap of glibc's, and which of them are free (`malloc_chunk`,
//! `tcache_perthread_struct` and `malloc_state` in malloc/malloc.c of 2.26 and later).
//!
//! The process runs on meanwhile, so what is read may be half changed: everything is checked
//! and bounded. A free chunk that was not recognised counts as one in use, which may hold what
//! it held before it was freed.

use std::ops::Range;

use super::memory::Words;
use crate::process::pagemap::PAGE;

/// Bits of a chunk's size: the chunk before is in use, and this one is a mapping of its own.
const BEFORE_IS_USED: u64 = 1;
const IS_MAPPED: u64 = 2;
const BITS: u64 = 7;
/// The smallest chunk, bytes.
const SMALLEST: u64 = 32;
/// A header, bytes: the words before a block.
const HEADER: u64 = 16;

/// A thread's cache: the size of its chunk, where its lists begin in the block, and how many.
const CACHES: [(u64, u64, u64); 3] = [(0x250, 64, 64), (0x290, 128, 64), (0x300, 152, 76)];
/// The lists of small free chunks of an arena: how far before the word of the chunk at the
/// top they begin, and how many there are.
const FAST: (u64, u64) = (80, 10);

/// A chunk, from its header on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Its header's address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Whether the chunk before it is in use, or in a cache.
    pub before_is_used: bool,
}

impl Chunk {
    /// What the program may use of it: also the first word of what follows.
    pub fn block(&self) -> Range<u64> {
        self.start + HEADER..self.start + self.size + 8
    }
}

/// Goes from chunk to chunk until the end of a heap, or to where something is no chunk.
/// Returns where that is; the last chunk is the one at the top if it is the end.
pub fn walk(words: &mut Words<'_>, heap: Range<u64>, chunks: &mut Vec<Chunk>, most: usize) -> u64 {
    let mut at = heap.start;
    while at < heap.end && chunks.len() < most {
        let Some(word) = words.get(at + 8) else { break };
        let size = word & !BITS;
        let end = at.saturating_add(size);
        if size < SMALLEST || !size.is_multiple_of(16) || word & IS_MAPPED != 0 {
            break;
        }
        // The top may have grown since the mappings were read.
        if end > heap.end && !end.is_multiple_of(PAGE) {
            break;
        }
        chunks.push(Chunk {
            start: at,
            size: size.min(heap.end - at),
            before_is_used: word & BEFORE_IS_USED != 0,
        });
        at = end;
    }
    at.min(heap.end)
}

/// The chunks of mappings of their own, one after the other from the start of a mapping on.
pub fn mapped(words: &mut Words<'_>, mapping: &Range<u64>) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut at = mapping.start;
    while at < mapping.end {
        let (Some(before), Some(word)) = (words.get(at), words.get(at + 8)) else {
            break;
        };
        let size = word & !BITS;
        let is_one = before == 0 && word & BITS == IS_MAPPED && size.is_multiple_of(PAGE);
        if !is_one || size == 0 || size > mapping.end - at {
            break;
        }
        chunks.push(Chunk {
            start: at,
            // There is no chunk behind it whose first word it could use.
            size: size - 8,
            before_is_used: true,
        });
        at += size;
    }
    chunks
}

/// All chunks of a process, by address, and which of them are free.
#[derive(Debug, Default)]
pub struct Chunks {
    all: Vec<Chunk>,
    is_free: Vec<bool>,
}

impl Chunks {
    /// Adds those of a heap, in order of addresses; its last one is the one at the `top`, or
    /// what is behind it is not known.
    pub fn add(&mut self, chunks: &[Chunk], has_top: bool) {
        for (at, chunk) in chunks.iter().enumerate() {
            self.all.push(*chunk);
            self.is_free.push(match chunks.get(at + 1) {
                Some(next) => !next.before_is_used,
                None => has_top,
            });
        }
    }

    /// Those in use.
    pub fn used(&self) -> impl Iterator<Item = &Chunk> {
        let both = self.all.iter().zip(&self.is_free);
        both.filter(|(_, is_free)| !**is_free)
            .map(|(chunk, _)| chunk)
    }

    fn index(&self, start: u64) -> Option<usize> {
        self.all
            .binary_search_by_key(&start, |chunk| chunk.start)
            .ok()
    }

    /// Frees what the caches of threads have, which look as if they were in use.
    pub fn free_caches(&mut self, words: &mut Words<'_>) {
        for (size, lists, count) in CACHES {
            let caches: Vec<u64> = self
                .all
                .iter()
                .filter(|chunk| chunk.size == size)
                .map(|chunk| chunk.start + HEADER)
                .collect();
            for cache in caches {
                let heads = (0..count).map(|list| words.get(cache + lists + list * 8));
                let heads: Option<Vec<u64>> = heads.collect();
                let heads = heads.filter(|heads| self.are_lists(heads, HEADER));
                for head in heads.into_iter().flatten().filter(|head| *head != 0) {
                    self.free_list(words, head, HEADER);
                }
            }
        }
    }

    /// Frees the small chunks of an arena, whose word of the chunk at the top has an address.
    pub fn free_fast(&mut self, words: &mut Words<'_>, top: u64) {
        let (before, count) = FAST;
        let heads = (0..count).map(|list| words.get((top - before) + list * 8));
        let heads: Option<Vec<u64>> = heads.collect();
        let heads = heads.filter(|heads| self.are_lists(heads, 0));
        for head in heads.into_iter().flatten().filter(|head| *head != 0) {
            self.free_list(words, head, 0);
        }
    }

    /// Whether words are lists' heads: each is empty, or leads to a chunk of its list's size.
    fn are_lists(&self, heads: &[u64], into: u64) -> bool {
        let is_one = |(size, head): (u64, &u64)| {
            let chunk = head.checked_sub(into).and_then(|start| self.index(start));
            *head == 0 || chunk.is_some_and(|at| self.all[at].size == size)
        };
        (SMALLEST..).step_by(16).zip(heads).all(is_one)
    }

    /// Follows a list to its end, or to where it is none. Since 2.32 pointers in it are mixed
    /// with where they are.
    fn free_list(&mut self, words: &mut Words<'_>, head: u64, into: u64) {
        let mut next = head;
        // What is free already was in this list, or in another.
        while let Some(at) = next.checked_sub(into).and_then(|it| self.index(it))
            && !self.is_free[at]
        {
            self.is_free[at] = true;
            let place = self.all[at].start + HEADER;
            let Some(word) = words.get(place) else { return };
            let mixed = word ^ (place >> 12);
            let is_chunk = |word: u64| word.checked_sub(into).and_then(|it| self.index(it));
            next = if is_chunk(mixed).is_some() {
                mixed
            } else {
                word
            };
        }
    }

    /// Whether a word of a file's variables is the one of the first arena that leads to the
    /// chunk at the top: its lists are there, too.
    pub fn is_arena(&self, words: &mut Words<'_>, top: u64) -> bool {
        // Behind it: the last remainder, then lists whose heads lead to themselves if empty.
        let bin = |number: u64| top + 16 + number * 16;
        let mut is_list = |number: u64| {
            let head = bin(number) - HEADER;
            words
                .get(bin(number))
                .is_some_and(|word| word == head || self.index(word).is_some())
        };
        (0..8).all(&mut is_list)
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::tests::Written;
    use super::*;

    const HEAP: u64 = 16 * PAGE;

    /// A heap: a cache, three chunks of 32 bytes, one of 64, and the top.
    fn heap() -> Written {
        let mut memory = Written::new(HEAP..HEAP + 2 * PAGE);
        let mut at = HEAP;
        for size in [0x290, 32, 32, 32, 64] {
            memory.put(at + 8, size | 1);
            at += size;
        }
        memory.put(at + 8, (HEAP + 2 * PAGE - at) | 1);
        memory
    }

    const FIRST: u64 = HEAP + 0x290;

    fn used(memory: &Written, top: Option<u64>) -> Vec<u64> {
        let present = memory.present();
        let mut words = Words::new(memory, &present);
        let mut found = Vec::new();
        let range = HEAP..HEAP + 2 * PAGE;
        assert_eq!(walk(&mut words, range.clone(), &mut found, 100), range.end);
        let mut chunks = Chunks::default();
        chunks.add(&found, true);
        chunks.free_caches(&mut words);
        if let Some(top) = top {
            chunks.free_fast(&mut words, top);
        }
        chunks.used().map(|chunk| chunk.start).collect()
    }

    #[test]
    fn chunks_follow_one_another_up_to_the_top() {
        let all = [HEAP, FIRST, FIRST + 32, FIRST + 64, FIRST + 96];
        assert_eq!(used(&heap(), None), all);
    }

    #[test]
    fn what_is_free_says_the_chunk_behind_it() {
        let mut memory = heap();
        memory.put(FIRST + 96 + 8, 64);
        let all = [HEAP, FIRST, FIRST + 32, FIRST + 96];
        assert_eq!(used(&memory, None), all);
    }

    #[test]
    fn caches_of_threads_are_free_with_mixed_pointers_and_without() {
        for is_mixed in [true, false] {
            let mut memory = heap();
            let place = FIRST + 16;
            let mix = if is_mixed { place >> 12 } else { 0 };
            memory.put(HEAP + 16 + 128, place);
            memory.put(place, (FIRST + 64 + 16) ^ mix);
            let end = FIRST + 64 + 16;
            memory.put(end, if is_mixed { end >> 12 } else { 0 });
            assert_eq!(used(&memory, None), [HEAP, FIRST + 32, FIRST + 96]);
        }
    }

    #[test]
    fn a_block_of_the_size_of_a_cache_frees_nothing() {
        let mut memory = heap();
        // The second list is of chunks of 48 bytes.
        memory.put(HEAP + 16 + 128 + 8, FIRST + 16);
        assert_eq!(used(&memory, None).len(), 5);
    }

    #[test]
    fn a_list_that_leads_to_itself_ends() {
        let mut memory = heap();
        memory.put(HEAP + 16 + 128, FIRST + 16);
        memory.put(FIRST + 16, FIRST + 16);
        assert_eq!(used(&memory, None).len(), 4);
    }

    #[test]
    fn small_chunks_of_an_arena_are_free() {
        let mut memory = heap();
        // Anywhere: at the end of the heap.
        let top = HEAP + 2 * PAGE - 400;
        memory.put(top - 80, FIRST + 32);
        memory.put(FIRST + 32 + 16, (FIRST + 32 + 16) >> 12);
        assert_eq!(used(&memory, Some(top)).len(), 4);
    }

    #[test]
    fn what_is_no_chunk_ends_the_walk() {
        // The last would end beyond the heap, at no page: the chunk at the top ends at one.
        for wrong in [0, 3, 24, 40 | 1, u64::MAX, 1 << 40] {
            assert_eq!(ends(wrong), FIRST + 32, "{wrong:x}");
        }
    }

    #[test]
    fn the_top_may_have_grown() {
        let grown = HEAP + 9 * PAGE - (FIRST + 32);
        assert_eq!(ends(grown | BEFORE_IS_USED), HEAP + 2 * PAGE);
    }

    /// Where the walk ends if the second small chunk has this size.
    fn ends(size: u64) -> u64 {
        let mut memory = heap();
        memory.put(FIRST + 32 + 8, size);
        let present = memory.present();
        let mut words = Words::new(&memory, &present);
        let mut found = Vec::new();
        walk(&mut words, HEAP..HEAP + 2 * PAGE, &mut found, 100)
    }

    #[test]
    fn large_chunks_are_mappings() {
        let mut memory = Written::new(HEAP..HEAP + 8 * PAGE);
        memory.put(HEAP + 8, (2 * PAGE) | 2);
        memory.put(HEAP + 2 * PAGE + 8, (3 * PAGE) | 2);
        let present = memory.present();
        let mut words = Words::new(&memory, &present);
        let range = HEAP..HEAP + 8 * PAGE;
        let found: Vec<_> = mapped(&mut words, &range)
            .iter()
            .map(Chunk::block)
            .collect();
        let second = HEAP + 2 * PAGE;
        let expected = [HEAP + 16..second, second + 16..HEAP + 5 * PAGE];
        assert_eq!(found, expected);
    }
}
