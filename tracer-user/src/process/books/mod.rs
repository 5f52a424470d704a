//! What allocators but glibc keep free, by their own books: structures in their memory
//! that are known by what must be true of them, so no symbols are needed.
//!
//! The process runs on meanwhile, and only pages that are in memory are read. Where a
//! sum does not come out, there are no books.

pub mod jemalloc;
mod tcmalloc;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::mappings::Mapping;
use super::pagemap::PAGE;
use super::resident::PageSet;

/// Memory that is read of one process, bytes: 64 MiB take some 20 ms.
const MAX_READ: usize = 64 << 20;

/// One allocator's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Books {
    /// Whose they are.
    pub allocator: &'static str,
    /// Arenas that it has made; 0 of one that has none.
    pub arenas: u64,
    /// Bytes of whole pages that are free and were not given back to the kernel. Some
    /// may never have been touched, and be no resident memory.
    pub free: u64,
}

/// The memory of a process.
struct Memory<'a> {
    file: &'a File,
    present: &'a PageSet,
    /// Bytes that may be read yet.
    left: usize,
}

/// All books that are found in a process's memory.
pub fn find(file: &File, mappings: &[Mapping], present: &PageSet) -> Vec<Books> {
    let mut memory = Memory {
        file,
        present,
        left: MAX_READ,
    };
    let jemalloc = jemalloc::find(&mut memory, mappings);
    let tcmalloc = tcmalloc::find(&mut memory, mappings);
    jemalloc.into_iter().chain(tcmalloc).collect()
}

impl Memory<'_> {
    /// The bytes of a range; zeros where a page is not in memory. `None` if no more may
    /// be read.
    fn read(&mut self, range: &Range<u64>) -> Option<Vec<u8>> {
        let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let mut bytes = vec![0; Some(length).filter(|length| *length <= self.left)?];
        let pages = range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE);
        for run in self.present.runs(&pages) {
            let (start, end) = (run.start.max(range.start), run.end.min(range.end));
            let at = usize::try_from(start - range.start).ok()?;
            let to = usize::try_from(end - range.start).ok()?;
            self.left = self.left.checked_sub(to - at)?;
            self.file
                .read_exact_at(bytes.get_mut(at..to)?, start)
                .ok()?;
        }
        Some(bytes)
    }
}

/// A word at an offset in bytes.
fn word(bytes: &[u8], offset: usize) -> Option<u64> {
    let word = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_le_bytes(*word))
}

/// Half a word at an offset in bytes.
fn half(bytes: &[u8], offset: usize) -> Option<u32> {
    let half = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*half))
}
