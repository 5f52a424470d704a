//! jemalloc's blocks, of 5.3, by its own structures: it knows of each page what it is. No
//! symbols are needed: all is known by what must be true of it.
//!
//! The process runs on meanwhile: an extent that contradicts itself is none, and its memory
//! what it would be without jemalloc.

mod caches;
mod extent;
mod tree;

use std::ops::Range;

use self::caches::Caches;
use self::extent::{BYTES, Bin, Entry, Extent, SMALLEST};
use self::tree::{Tree, is_in, piece};
use super::heaps::Heaps;
use super::memory::{MAX_PIECES, Memory, Words};
use super::nodes::{Node, What};
use crate::process::books::jemalloc::{is_block, places};
use crate::process::mappings::{Mapping, MappingKind};
use crate::process::owner::data_of_files;
use crate::process::resident::PageSet;

/// Extents that are looked at, at most: 16 bytes each.
const MAX_EXTENTS: usize = 8 << 20;
/// The five words that a block of metadata begins with, bytes.
const HEADER: usize = 40;

/// What it says of a process's memory; nothing if the process has none. `threads` is where
/// threads have their variables; there is `room` for so many blocks.
pub fn read(
    memory: &dyn Memory,
    (mappings, present): (&[Mapping], &PageSet),
    threads: &[Range<u64>],
    room: usize,
) -> Heaps {
    let metadata = metadata(memory, mappings, present);
    let Some((tree, bins)) = roots((memory, present), mappings, &metadata) else {
        return Heaps::default();
    };
    let mut caches = Caches::default();
    let mut words = Words::new(memory, present);
    let mut of_stacks = Words::new(memory, present);
    for range in threads {
        for run in present.runs(range) {
            let run = run.start.max(range.start)..run.end.min(range.end);
            caches.find(&mut words, &mut of_stacks, &run, bins.len());
        }
    }
    caches.blocks.sort_unstable();
    let mut entries = Vec::new();
    let mut heaps = Heaps {
        known: metadata,
        ..Heaps::default()
    };
    for mapping in private(mappings) {
        heaps.is_full = !tree.entries(
            &mut words,
            present,
            &mapping.range,
            &mut entries,
            MAX_EXTENTS,
        );
        if heaps.is_full {
            break;
        }
    }
    each_extent((memory, present), &entries, &mut |extent| {
        add(&mut heaps, &extent, &bins, &caches, room);
    });
    heaps
}

/// Adds what is in an extent.
fn add(heaps: &mut Heaps, extent: &Extent, bins: &[Bin], caches: &Caches, room: usize) {
    let Some(blocks) = extent.blocks(bins) else {
        return;
    };
    if heaps.chunks.len() + blocks.len() > room {
        heaps.unknown.push(extent.pages.clone());
        heaps.is_full = true;
        return;
    }
    heaps.known.push(extent.pages.clone());
    let is_used = |(block, class): &(Range<u64>, u64)| {
        let key = (block.start, *class);
        let has_stack = |stack: &Range<u64>| stack.start < block.end && block.start < stack.end;
        caches.blocks.binary_search(&key).is_err() && !caches.stacks.iter().any(has_stack)
    };
    let used = blocks.into_iter().filter(is_used);
    heaps.chunks.extend(used.map(|(block, _)| Node {
        start: block.start,
        end: block.end,
        what: What::Chunk,
    }));
}

fn private(mappings: &[Mapping]) -> impl Iterator<Item = &Mapping> {
    let mappings = mappings.iter();
    mappings.filter(|it| it.kind == MappingKind::Anonymous && it.is_writable)
}

/// Its blocks of metadata, which lead to all memory that it has and hold none of it.
fn metadata(memory: &dyn Memory, mappings: &[Mapping], present: &PageSet) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    for mapping in private(mappings) {
        for place in places(&mapping.range).filter(|place| present.has(*place)) {
            let mut header = [0; HEADER];
            let piece = place..place + HEADER as u64;
            let read = memory.read(std::slice::from_ref(&piece), &mut header);
            if read == header.len() && is_block(&header, place) {
                let (words, _) = header.as_chunks();
                let size = words.first().copied().map_or(0, u64::from_le_bytes);
                found.push(place..place.saturating_add(size).min(mapping.range.end));
            }
        }
    }
    found
}

/// Where files have their variables: of one file in one piece, since a table may lie across what
/// comes from the file and what is zero at first.
fn variables(mappings: &[Mapping]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (mapping, _) in data_of_files(mappings) {
        match ranges.last_mut() {
            Some(last) if last.end == mapping.range.start => last.end = mapping.range.end,
            _ => ranges.push(mapping.range.clone()),
        }
    }
    ranges
}

/// Its tree and its classes, which are among the variables of one file.
fn roots(
    (memory, present): (&dyn Memory, &PageSet),
    mappings: &[Mapping],
    metadata: &[Range<u64>],
) -> Option<(Tree, Vec<Bin>)> {
    if metadata.is_empty() {
        return None;
    }
    let mut words = Words::new(memory, present);
    let (mut tree, mut bins) = (None, None);
    for range in variables(mappings) {
        for run in present.runs(&range) {
            for place in run.step_by(8) {
                let Some(word @ 1..) = words.get(place) else {
                    continue;
                };
                if bins.is_none() && word == SMALLEST {
                    bins = Bin::all(&mut words, place);
                } else if tree.is_none() && is_in(metadata, word) {
                    let place = (place, word);
                    tree = Tree::at((memory, present), metadata, &range, place);
                }
            }
            if tree.is_some() && bins.is_some() {
                return tree.zip(bins);
            }
        }
    }
    None
}

/// Reads what entries lead to.
fn each_extent(
    (memory, present): (&dyn Memory, &PageSet),
    entries: &[(u64, Entry)],
    take: &mut dyn FnMut(Extent),
) {
    let there = entries.iter();
    let there = there.filter_map(|(page, entry)| Some((*page, *entry, piece(present, *entry)?)));
    let there: Vec<(u64, Entry, Range<u64>)> = there.collect();
    let mut buffer = vec![0; MAX_PIECES * BYTES];
    let mut rest = &there[..];
    while !rest.is_empty() {
        let (now, _) = rest.split_at(rest.len().min(MAX_PIECES));
        let pieces: Vec<_> = now.iter().map(|(_, _, piece)| piece.clone()).collect();
        let read = memory.read(&pieces, &mut buffer) / BYTES;
        let described = buffer.chunks_exact(BYTES).take(read);
        for ((page, entry, _), bytes) in now.iter().zip(described) {
            if let Some(extent) = Extent::parse(bytes, *entry, *page) {
                take(extent);
            }
        }
        // One that cannot be read is left out.
        let done = if read < now.len() { read + 1 } else { read };
        rest = rest.get(done..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::areas::tests::mapping;
    use super::super::memory::tests::Written;
    use super::caches::tests::put_stacks;
    use super::extent::tests::{put_bins, put_extent};
    use super::*;
    use crate::process::pagemap::PAGE;

    const MIB: u64 = 1 << 20;
    /// A block of metadata, with a leaf in it; a file's variables, with the root; the heap, and a
    /// thread's variables.
    const METADATA: u64 = 2 * MIB;
    const SIZE: u64 = 6 * MIB;
    const LEAF: u64 = METADATA + 2 * MIB + 64;
    const FILE: u64 = METADATA + SIZE;
    const ROOT: u64 = FILE + PAGE + 8;
    const BINS: u64 = FILE + 3 * MIB;
    const HEAP: u64 = FILE + 4 * MIB;
    const THREAD: u64 = HEAP + 64 * PAGE;
    const STACKS: u64 = HEAP + 33 * PAGE;
    const END: u64 = THREAD + PAGE;

    fn mappings() -> [Mapping; 3] {
        [
            mapping(METADATA..FILE, MappingKind::Anonymous),
            mapping(FILE..HEAP, MappingKind::File),
            mapping(HEAP + PAGE..END, MappingKind::Anonymous),
        ]
    }

    /// A slab of 48 bytes with four blocks, of which a thread has one in its cache; a large
    /// block, one with the stack of that cache, and free pages.
    fn memory() -> Written {
        let mut memory = Written::new(METADATA..END);
        for (at, word) in (0..).zip([SIZE, 0, 0, METADATA + 5 * MIB, MIB]) {
            memory.put(METADATA + at * 8, word);
        }
        memory.put(ROOT, LEAF);
        put_bins(&mut memory, BINS);
        let slab = HEAP + 4 * PAGE;
        for (number, start, count, kind) in [
            (0, slab, 3, (3, true, 0)),
            (1, HEAP + 16 * PAGE, 8, (40, false, 0)),
            (2, HEAP + 32 * PAGE, 8, (41, false, 0)),
            (3, HEAP + 48 * PAGE, 4, (235, false, 1)),
        ] {
            let place = METADATA + PAGE + number * BYTES as u64;
            let entry = put_extent(&mut memory, place, (start, count * PAGE), kind);
            for page in 0..count {
                let is_edge = page == 0 || page + 1 == count;
                if kind.1 || is_edge {
                    memory.put(LEAF + (start / PAGE + page) * 8, entry.0);
                }
            }
            for word in 0..4 {
                memory.put(place + 64 + word * 8, if word == 0 { !0b1111 } else { !0 });
            }
        }
        put_stacks(&mut memory, THREAD + 40, (STACKS, 36), 0);
        // The fourth class has the third block.
        let (bin, head) = (THREAD + 40 + 3 * 24, STACKS + 3 * 16 + 8);
        memory.put(bin, head);
        memory.put(head, slab + 2 * 48);
        memory
    }

    fn starts(memory: &Written, room: usize) -> (Vec<u64>, Heaps) {
        let present = memory.present();
        let (mappings, threads) = (mappings(), THREAD..END);
        let threads = std::slice::from_ref(&threads);
        let heaps = read(memory, (&mappings, &present), threads, room);
        (heaps.chunks.iter().map(|node| node.start).collect(), heaps)
    }

    #[test]
    fn blocks_in_use_are_found_and_all_else_holds_nothing() {
        let (found, heaps) = starts(&memory(), 100);
        let slab = HEAP + 4 * PAGE;
        let expected = [slab, slab + 48, slab + 3 * 48, HEAP + 16 * PAGE];
        assert_eq!(found, expected);
        let known = [
            METADATA..FILE,
            slab..slab + 3 * PAGE,
            HEAP + 16 * PAGE..HEAP + 24 * PAGE,
            HEAP + 32 * PAGE..HEAP + 40 * PAGE,
            HEAP + 48 * PAGE..HEAP + 52 * PAGE,
        ];
        assert_eq!(heaps.known, known);
        assert!(heaps.unknown.is_empty());
    }

    #[test]
    fn what_there_is_no_room_for_is_unknown() {
        let (found, heaps) = starts(&memory(), 3);
        assert_eq!(found, [HEAP + 16 * PAGE]);
        let slab = HEAP + 4 * PAGE;
        let expected = slab..slab + 3 * PAGE;
        assert_eq!((heaps.unknown.len(), &heaps.unknown[0]), (1, &expected));
    }

    #[test]
    fn without_one_of_its_structures_nothing_is_said() {
        for place in [METADATA, ROOT, BINS] {
            let mut memory = memory();
            memory.put(place, 7);
            let (found, heaps) = starts(&memory, 100);
            assert!(found.is_empty() && heaps.known.is_empty(), "{place:#x}");
        }
    }
}
