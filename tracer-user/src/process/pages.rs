//! How much of a process's memory is resident, by its page map
//! (proc_pid_pagemap(5)).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::handle::ProcessHandle;

/// A page, bytes.
const PAGE: u64 = 4096;
/// What the map has for each page, bytes.
const ENTRY: usize = 8;
/// Entries that are read at once.
const AT_ONCE: usize = 4096;
/// The bit of a page that is in memory.
const PRESENT: u64 = 1 << 63;

/// The page map of a process.
#[derive(Debug)]
pub struct PageMap(File);

impl PageMap {
    /// Opens that of a living process.
    ///
    /// # Errors
    /// Fails if it is gone, or may not be read.
    pub fn open(process: &ProcessHandle) -> io::Result<Self> {
        process.open_proc("pagemap").map(PageMap)
    }

    /// Bytes of the pages in a range that are in memory. Pages that were read
    /// and never written, which have no memory of their own, count; what is
    /// not mapped does not. The caller bounds the range.
    ///
    /// # Errors
    /// Fails if the map cannot be read.
    pub fn resident(&self, range: &Range<u64>) -> io::Result<u64> {
        let mut buffer = vec![0; AT_ONCE * ENTRY];
        let mut page = range.start / PAGE;
        let end = range.end.div_ceil(PAGE);
        let mut present = 0;
        while page < end {
            let wanted = usize::try_from(end - page).unwrap_or(AT_ONCE).min(AT_ONCE);
            let entries = buffer.get_mut(..wanted * ENTRY).unwrap_or_default();
            self.0.read_exact_at(entries, page * ENTRY as u64)?;
            let (words, _) = entries.as_chunks();
            let words = words.iter().copied().map(u64::from_le_bytes);
            present += words.filter(|word| word & PRESENT != 0).count() as u64;
            page += wanted as u64;
        }
        Ok(present * PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_resident_once_they_are_touched() {
        const PAGES: usize = AT_ONCE + 10;
        const SIZE: usize = 4096;
        let process = ProcessHandle::open(std::process::id()).unwrap();
        let map = PageMap::open(&process).unwrap();
        let length = PAGES * SIZE;
        // SAFETY: new memory at a place that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: it is ours; huge pages would be touched whole.
        unsafe { libc::madvise(start, length, libc::MADV_NOHUGEPAGE) };
        let range = start as u64..start as u64 + length as u64;
        assert_eq!(map.resident(&range).unwrap(), 0);
        for page in [0, 7, AT_ONCE, PAGES - 1] {
            // SAFETY: within the mapping.
            unsafe { start.cast::<u8>().add(page * SIZE).write(1) };
        }
        assert_eq!(map.resident(&range).unwrap(), 4 * PAGE);
        let last = range.end - PAGE..range.end;
        assert_eq!(map.resident(&last).unwrap(), PAGE);
        // SAFETY: mapped above, and not used any more.
        unsafe { libc::munmap(start, length) };
        assert_eq!(map.resident(&range).unwrap(), 0);
    }
}
