//! glibc's heaps, jemalloc's structures and glibc's threads as they may be in a hostile process's
//! memory, and a search through what they say.
//!
//! An input is words of that memory: of each 12 bytes, in four of which word it is and in eight
//! what it has. The first 14 words are offsets in glibc's structures, too.

#![no_main]

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use unfreed_fuzz::holders::budget::Budget;
use unfreed_fuzz::holders::glibc::{self, Chunks};
use unfreed_fuzz::holders::mark::Marks;
use unfreed_fuzz::holders::memory::{Memory, Words};
use unfreed_fuzz::holders::nodes::{Node, Nodes, What};
use unfreed_fuzz::holders::young::Young;
use unfreed_fuzz::holders::{Sparse, jemalloc, layout};
use unfreed_fuzz::process::mappings::{Mapping, MappingKind};
use unfreed_fuzz::process::maps::{Device, FileId};
use unfreed_fuzz::process::pagemap::PAGE;

const MIB: u64 = 1 << 20;
/// Where things are, as in the tests of `jemalloc`; glibc's heap is behind that.
const METADATA: Range<u64> = 2 * MIB..8 * MIB;
const FILE: Range<u64> = 8 * MIB..12 * MIB;
const BLOCKS: Range<u64> = 12 * MIB + PAGE..12 * MIB + 65 * PAGE;
const THREAD: Range<u64> = 12 * MIB + 64 * PAGE..12 * MIB + 65 * PAGE;
const HEAP: Range<u64> = 13 * MIB..14 * MIB;
const ALL: Range<u64> = 2 * MIB..14 * MIB;

/// Blocks that are kept.
const MOST: usize = 1 << 16;

fuzz_target!(|input: &[u8]| {
    let mut memory = Sparse::default();
    let mut offsets = [0; 14];
    let (words, _) = input.as_chunks::<12>();
    for (number, bytes) in words.iter().enumerate() {
        let (place, word) = bytes.split_first_chunk::<4>().unwrap();
        let place = u64::from(u32::from_le_bytes(*place));
        let word = u64::from_le_bytes(word.try_into().unwrap());
        if let Some(offset) = offsets.get_mut(number) {
            *offset = word & 0xffff;
        }
        memory.put(ALL.start + place * 8 % (ALL.end - ALL.start), word);
    }
    let present = memory.present();
    let mappings = [
        mapping(METADATA, MappingKind::Anonymous),
        mapping(FILE, MappingKind::File),
        mapping(BLOCKS, MappingKind::Anonymous),
        mapping(HEAP, MappingKind::Heap),
    ];
    let mut words = Words::new(&memory, &present);

    let mut nodes = of_glibc(&mut words);
    let threads = [THREAD];
    let heaps = jemalloc::read(&memory, (&mappings, &present), &threads, MOST);
    assert!(heaps.chunks.len() <= MOST);
    nodes.extend(&heaps.chunks);
    if let Some(layout) = layout(FILE.start, offsets) {
        let known = layout.threads(&mut words);
        assert!(known.len() <= 2 * 4096);
        let modules = layout.modules(&mut words, &mappings);
        assert!(modules.is_sorted_by_key(|module| module.before));
    }

    let traced = vec![Node {
        start: HEAP.start + 64,
        end: HEAP.start + 128,
        what: What::Traced(1),
    }];
    // Every second one came while memory was searched.
    let known = nodes.iter().copied().step_by(2).collect();
    let chunks = nodes;
    let nodes = Nodes::new(traced, known).within(&[BLOCKS, HEAP]);
    let is_apart = |pair: &[Node]| pair[0].end <= pair[1].start;
    assert!(nodes.all().windows(2).all(is_apart));
    let mut budget = Budget::new(Duration::from_millis(500), Arc::default());
    let mut marks = Marks::new(&nodes);
    let seen = (&memory as &dyn Memory, &present);
    marks.spread(&nodes, (&[FILE, THREAD], 1), seen, &mut budget);
    let mut young = Young::new(&nodes, &chunks, seen);
    while marks.look_again(&nodes, &mut young, seen, &mut budget) {}
    let traced = nodes.find(HEAP.start + 64).unwrap();
    let _mark = marks.of(traced);
});

fn of_glibc(words: &mut Words<'_>) -> Vec<Node> {
    let mut found = Vec::new();
    let end = glibc::walk(words, HEAP, &mut found, MOST);
    assert!(end <= HEAP.end && found.len() <= MOST);
    let mut chunks = Chunks::default();
    chunks.add(&found, end == HEAP.end);
    chunks.free_caches(words);
    // The first arena's, as a word of a file's variables would be found.
    for top in [FILE.start + 96, HEAP.start + 96] {
        if chunks.is_arena(words, top) {
            chunks.free_fast(words, top);
        }
    }
    let mut all: Vec<_> = chunks.used().map(|chunk| chunk.block()).collect();
    all.extend(glibc::mapped(words, &BLOCKS).iter().map(|it| it.block()));
    let node = |range: Range<u64>| Node {
        start: range.start,
        end: range.end,
        what: What::Chunk,
    };
    all.into_iter().map(node).collect()
}

fn mapping(range: Range<u64>, kind: MappingKind) -> Mapping {
    Mapping {
        range,
        kind,
        is_writable: true,
        name: String::new(),
        file: FileId::new(Device { major: 0, minor: 0 }, 0),
    }
}
