//! The search for holders: readers of structures in another process's memory, which say anything.

#[path = "../../../tracer-user/src/holders/budget.rs"]
pub mod budget;
#[path = "../../../tracer-user/src/holders/ends.rs"]
mod ends;
#[path = "../../../tracer-user/src/holders/glibc.rs"]
pub mod glibc;
#[path = "../../../tracer-user/src/holders/heaps.rs"]
pub mod heaps;
#[path = "../../../tracer-user/src/holders/jemalloc/mod.rs"]
pub mod jemalloc;
#[path = "../../../tracer-user/src/holders/mark.rs"]
pub mod mark;
#[path = "../../../tracer-user/src/holders/members.rs"]
pub mod members;
#[path = "../../../tracer-user/src/holders/memory.rs"]
pub mod memory;
#[path = "../../../tracer-user/src/holders/nodes.rs"]
pub mod nodes;
#[path = "../../../tracer-user/src/holders/nptl.rs"]
pub mod nptl;
#[path = "../../../tracer-user/src/holders/places.rs"]
mod places;
#[path = "../../../tracer-user/src/holders/reader.rs"]
mod reader;
#[path = "../../../tracer-user/src/holders/segments.rs"]
mod segments;
#[path = "../../../tracer-user/src/holders/variables.rs"]
mod variables;
#[path = "../../../tracer-user/src/holders/young.rs"]
pub mod young;

use std::collections::BTreeMap;
use std::ops::Range;

use self::memory::{Memory, length};
use crate::process::pagemap::PAGE;
use crate::process::resident::PageSet;

/// Memory of which some words are not zero. What has none is not there.
#[derive(Default)]
pub struct Sparse(BTreeMap<u64, Vec<u8>>);

impl Sparse {
    /// Writes a word, at an address that is a multiple of 8.
    pub fn put(&mut self, at: u64, word: u64) {
        let page = self.0.entry(at / PAGE * PAGE);
        let page = page.or_insert_with(|| vec![0; PAGE as usize]);
        let into = (at % PAGE) as usize;
        page[into..into + 8].copy_from_slice(&word.to_le_bytes());
    }

    /// The pages that are there.
    pub fn present(&self) -> PageSet {
        let mut present = PageSet::default();
        for page in self.0.keys() {
            assert!(present.insert(&(*page..page + PAGE)));
        }
        present
    }
}

impl Memory for Sparse {
    fn read(&self, pieces: &[Range<u64>], buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        for piece in pieces {
            let mut at = piece.start;
            while at < piece.end {
                let page = at / PAGE * PAGE;
                let Some(bytes) = self.0.get(&page) else {
                    return filled;
                };
                let part = at..piece.end.min(page + PAGE);
                let into = (at - page) as usize;
                let bytes = &bytes[into..into + length(&part)];
                let Some(room) = buffer.get_mut(filled..filled + bytes.len()) else {
                    return filled;
                };
                room.copy_from_slice(bytes);
                filled += bytes.len();
                at = part.end;
            }
        }
        filled
    }
}

/// A layout of glibc's threads with any offsets.
pub fn layout(global: u64, offsets: [u64; 14]) -> Option<nptl::Layout> {
    let [fields @ .., descriptor, slot] = offsets;
    nptl::Layout::of_fields(global, fields, [descriptor, slot])
}
