//! All heaps of glibc's in a process: their chunks, and what of memory they are.

use std::fs::File;
use std::ops::Range;

use super::glibc::{self, Chunks};
use super::memory::{Memory, Words};
use super::nodes::{Node, What};
use crate::process::arenas::Heap;
use crate::process::mappings::{Mapping, MappingKind};
use crate::process::owner::data_of_files;
use crate::process::resident::PageSet;

/// Chunks that are kept, of all allocators together: 24 bytes each.
pub const MAX_CHUNKS: usize = 8 << 20;
/// How often a heap is read that changes meanwhile.
const TRIES: usize = 3;
/// An arena's state, bytes (`malloc_state`), and where in it the chunk at the top is; behind
/// it, at a multiple of 16, the first chunk follows.
const STATE: u64 = 2200;
const TOP: u64 = 96;
/// A heap's header (`heap_info`): where its arena's state or its first chunk may begin.
const HEADERS: [u64; 2] = [0x20, 0x30];

/// What is known of heaps of one allocator.
#[derive(Debug, Default)]
pub struct Heaps {
    /// Chunks in use.
    pub chunks: Vec<Node>,
    /// What heaps were gone through, chunks outside of them, and the states of arenas: what is
    /// there and in no chunk holds nothing.
    pub known: Vec<Range<u64>>,
    /// What of them could not be gone through.
    pub unknown: Vec<Range<u64>>,
    /// Whether there are more chunks than are kept.
    pub is_full: bool,
}

/// A heap that was gone through.
struct Walked {
    chunks: Vec<glibc::Chunk>,
    range: Range<u64>,
    known: u64,
}

impl Heaps {
    /// Goes through them. `file` is the same memory as `memory`, as a file. So many chunks are kept
    /// as there is `room` for.
    pub fn read(
        memory: &dyn Memory,
        file: &File,
        (mappings, present): (&[Mapping], &PageSet),
        mut room: usize,
    ) -> Self {
        let mut words = Words::new(memory, present);
        let mut tops = Vec::new();
        let mut walked: Vec<Walked> = Vec::new();
        for mapping in mappings {
            if mapping.kind == MappingKind::Heap {
                let found = walk(&mut words, mapping.range.clone(), &mut room);
                tops.extend(first_arena(&mut words, mappings, present, &found));
                walked.push(found);
            }
        }
        for heap in Heap::all(file, mappings, present) {
            if heap.arena / PLACES == heap.start / PLACES {
                tops.push(heap.arena + TOP);
            }
            walked.extend(of_arena(&mut words, heap, &mut room));
        }
        walked.retain(|found| !found.chunks.is_empty());
        walked.sort_by_key(|found| found.range.start);
        let mut chunks = Chunks::default();
        for found in &walked {
            chunks.add(&found.chunks, found.known == found.range.end);
        }
        chunks.free_caches(&mut words);
        for top in &tops {
            chunks.free_fast(&mut words, *top);
        }
        // Their words lead to the ends of blocks, too.
        let states = tops.iter().map(|top| top - TOP..top - TOP + STATE);
        let states: Vec<_> = states.collect();
        let mut nodes: Vec<Node> = chunks.used().map(|chunk| node(chunk.block())).collect();
        let large: Vec<_> = large(&mut words, mappings).collect();
        nodes.extend(large.iter().cloned().map(node));
        Self {
            chunks: nodes,
            known: walked
                .iter()
                .map(|found| found.range.start..found.known)
                .chain(states)
                .chain(large)
                .collect(),
            unknown: walked
                .iter()
                .map(|found| found.known..found.range.end)
                .filter(|range| !range.is_empty())
                .collect(),
            is_full: room == 0,
        }
    }

    /// Adds another allocator's.
    pub fn add(&mut self, other: Self) {
        self.chunks.extend(other.chunks);
        self.known.extend(other.known);
        self.unknown.extend(other.unknown);
        self.is_full |= other.is_full;
    }
}

/// A heap of an arena has its address at a multiple of this, bytes.
const PLACES: u64 = 64 << 20;

const fn node(range: Range<u64>) -> Node {
    Node {
        start: range.start,
        end: range.end,
        what: What::Chunk,
    }
}

/// Goes through a heap until that succeeds; what was gone through last counts.
fn walk(words: &mut Words<'_>, range: Range<u64>, room: &mut usize) -> Walked {
    let mut walked = Walked {
        chunks: Vec::new(),
        known: range.start,
        range,
    };
    for _ in 0..TRIES {
        walked.chunks.clear();
        let range = walked.range.clone();
        walked.known = glibc::walk(words, range, &mut walked.chunks, *room);
        if walked.known == walked.range.end {
            break;
        }
        words.forget();
    }
    *room -= walked.chunks.len().min(*room);
    walked
}

/// The chunks of a heap of an arena. An arena's first heap has its state before them.
fn of_arena(words: &mut Words<'_>, heap: Heap, room: &mut usize) -> Option<Walked> {
    let end = heap.start.checked_add(heap.size)?;
    let starts = match heap.arena / PLACES == heap.start / PLACES {
        true => vec![(heap.arena + STATE).next_multiple_of(16)],
        false => HEADERS.map(|header| heap.start + header).to_vec(),
    };
    let all = starts.into_iter().map(|start| {
        let mut found = walk(words, start..end, room);
        // The header, and the state, are the allocator's.
        found.range.start = start;
        found
    });
    all.max_by_key(|found| found.known)
}

/// Where the first arena has the address of the chunk at the top of its heap: in libc's
/// variables.
fn first_arena(
    words: &mut Words<'_>,
    mappings: &[Mapping],
    present: &PageSet,
    heap: &Walked,
) -> Option<u64> {
    let top = heap.chunks.last()?.start;
    let mut known = Chunks::default();
    known.add(&heap.chunks, true);
    let of_libc = |file: &Mapping| {
        let name = file.name.rsplit('/').next().unwrap_or_default();
        name.starts_with("libc.") || name.starts_with("libc-")
    };
    let all: Vec<_> = data_of_files(mappings).collect();
    let has_libc = all.iter().any(|(_, file)| of_libc(file));
    // A static program has it in itself.
    let data = all.iter().filter(|(_, file)| !has_libc || of_libc(file));
    for (mapping, _) in data {
        for run in present.runs(&mapping.range) {
            for place in run.step_by(8) {
                if words.get(place) == Some(top) && known.is_arena(words, place) {
                    return Some(place);
                }
            }
        }
    }
    None
}

/// The blocks of chunks that are mappings of their own.
fn large(words: &mut Words<'_>, mappings: &[Mapping]) -> impl Iterator<Item = Range<u64>> {
    let private = mappings
        .iter()
        .filter(|mapping| mapping.kind == MappingKind::Anonymous && mapping.is_writable);
    let chunks = private.flat_map(|mapping| glibc::mapped(words, &mapping.range));
    let chunks: Vec<_> = chunks.map(|chunk| chunk.block()).collect();
    chunks.into_iter()
}
