//! Which pages of a process are in memory, by its page map
//! (proc_pid_pagemap(5); `Documentation/admin-guide/mm/pagemap.rst`).
//!
//! Reading it stops nobody, touches no page, and needs no frame numbers. From
//! Linux 6.7 on the kernel is asked for runs of pages (`PAGEMAP_SCAN`), which costs
//! nothing where there are none; before, eight bytes are read for each page of the
//! address space.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use super::handle::ProcessHandle;

/// A page, bytes.
pub const PAGE: u64 = 4096;
/// What the map has for each page, bytes.
const ENTRY: usize = 8;
/// Entries that are read at once: the kernel holds the process's mappings for as
/// many, at most.
const AT_ONCE: usize = 4096;
/// Bits of an entry.
const ENTRY_PRESENT: u64 = 1 << 63;
const ENTRY_SWAPPED: u64 = 1 << 62;
/// A page of a file, or of memory that is shared.
const ENTRY_FILE: u64 = 1 << 61;

/// Categories of `PAGEMAP_SCAN` (`linux/fs.h`).
const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
/// The page of zeros, which everybody shares.
const IS_ZERO: u64 = 1 << 5;
/// `_IOWR('f', 16, struct pm_scan_arg)`
const SCAN: libc::c_ulong = 0xc060_6610;
/// Runs that are asked for at once.
const RUNS: usize = 512;
/// Address space that is asked for at once, bytes: the kernel holds the process's
/// mappings meanwhile, some 2 ms if all of it is in memory.
const PIECE: u64 = 64 << 20;

/// How a page is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In memory, and its own: anonymous, or a written copy of a file's page.
    Anonymous,
    /// In memory, and a file's, or of memory that is shared.
    Shared,
    /// In swap space.
    Swapped,
}

/// How much of a range is kept how, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pages {
    /// In memory, of any kind.
    pub resident: u64,
    /// The part of it that is a file's, or shared memory.
    pub shared: u64,
    /// In swap space.
    pub swapped: u64,
}

impl Pages {
    /// Adds `bytes` that are kept so.
    pub fn add(&mut self, kept: Kept, bytes: u64) {
        match kept {
            Kept::Anonymous => self.resident += bytes,
            Kept::Shared => {
                self.resident += bytes;
                self.shared += bytes;
            }
            Kept::Swapped => self.swapped += bytes,
        }
    }
}

/// The page map of a process.
#[derive(Debug)]
pub struct PageMap {
    file: File,
    /// Whether the kernel tells of runs.
    scans: bool,
}

/// `struct pm_scan_arg`
#[repr(C)]
#[derive(Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    runs: u64,
    runs_length: u64,
    max_pages: u64,
    inverted: u64,
    mask: u64,
    any_of: u64,
    told: u64,
}

/// `struct page_region`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Run {
    start: u64,
    end: u64,
    categories: u64,
}

const _: () = assert!(size_of::<ScanArgument>() == 96, "as the kernel has it");

impl PageMap {
    /// Opens that of a living process.
    ///
    /// # Errors
    /// Fails if it is gone, or may not be read.
    pub fn open(process: &ProcessHandle) -> io::Result<Self> {
        let file = process.open_proc("pagemap")?;
        let mut map = PageMap { file, scans: true };
        map.scans = map.scan(&(0..PAGE), &mut |_, _| {}).is_ok();
        Ok(map)
    }

    /// Bytes of the pages in a range that are in memory; what is not mapped does not
    /// count. Pages that were read and never written, which have no memory of their
    /// own, count on kernels before 6.7. The caller bounds the range.
    ///
    /// # Errors
    /// Fails if the map cannot be read.
    pub fn resident(&self, range: &Range<u64>) -> io::Result<u64> {
        Ok(self.pages(range)?.resident)
    }

    /// How much of a range is kept how; see [`Self::resident`].
    ///
    /// # Errors
    /// Fails if the map cannot be read.
    pub fn pages(&self, range: &Range<u64>) -> io::Result<Pages> {
        let mut pages = Pages::default();
        self.each(range, None, &mut |run, kept| {
            pages.add(kept, run.end - run.start);
        })?;
        Ok(pages)
    }

    /// Tells the runs of pages of a range that are kept somewhere, in order. Returns
    /// false if it was not through by the `deadline`.
    ///
    /// # Errors
    /// Fails if the map cannot be read.
    pub fn each(
        &self,
        range: &Range<u64>,
        deadline: Option<Instant>,
        tell: &mut dyn FnMut(Range<u64>, Kept),
    ) -> io::Result<bool> {
        let mut at = range.start / PAGE * PAGE;
        let end = range.end.checked_next_multiple_of(PAGE).unwrap_or(at);
        while at < end {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            at = if self.scans {
                let piece = at..end.min(at.saturating_add(PIECE));
                self.scan(&piece, tell)?
            } else {
                self.read(&(at..end), tell)?
            };
        }
        Ok(true)
    }

    /// Asks for runs until the answer is full; returns how far it reaches.
    fn scan(&self, range: &Range<u64>, tell: &mut dyn FnMut(Range<u64>, Kept)) -> io::Result<u64> {
        let mut runs = [Run::default(); RUNS];
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            start: range.start,
            end: range.end,
            runs: runs.as_mut_ptr() as u64,
            runs_length: RUNS as u64,
            any_of: IS_PRESENT | IS_SWAPPED,
            told: IS_PRESENT | IS_SWAPPED | IS_FILE | IS_ZERO,
            ..ScanArgument::default()
        };
        // SAFETY: the kernel writes to the argument, and to as many runs as it says.
        let told = unsafe { libc::ioctl(self.file.as_raw_fd(), SCAN, &raw mut argument) };
        let told = usize::try_from(told).map_err(|_| io::Error::last_os_error())?;
        for run in runs.iter().take(told) {
            if let Some(kept) = kept_of(run.categories) {
                tell(run.start..run.end, kept);
            }
        }
        // It goes on, whatever the kernel says.
        Ok(argument.walk_end.clamp(range.start + PAGE, range.end))
    }

    /// Reads some entries; returns how far they reach.
    fn read(&self, range: &Range<u64>, tell: &mut dyn FnMut(Range<u64>, Kept)) -> io::Result<u64> {
        let pages = (range.end - range.start) / PAGE;
        let wanted = usize::try_from(pages).unwrap_or(AT_ONCE).min(AT_ONCE);
        let mut buffer = [0; AT_ONCE * ENTRY];
        let entries = buffer.get_mut(..wanted * ENTRY).unwrap_or_default();
        let place = range.start / PAGE * ENTRY as u64;
        self.file.read_exact_at(entries, place)?;
        let (words, _) = entries.as_chunks();
        let mut address = range.start;
        let mut run: Option<(Range<u64>, Kept)> = None;
        for word in words.iter().copied().map(u64::from_le_bytes) {
            let next = address + PAGE;
            match (&mut run, kept_of_entry(word)) {
                (Some((run, kept)), Some(same)) if *kept == same => run.end = next,
                (run, kept) => {
                    if let Some((whole, kept)) = run.take() {
                        tell(whole, kept);
                    }
                    *run = kept.map(|kept| (address..next, kept));
                }
            }
            address = next;
        }
        if let Some((whole, kept)) = run {
            tell(whole, kept);
        }
        Ok(address)
    }
}

fn kept_of(categories: u64) -> Option<Kept> {
    match () {
        () if categories & IS_ZERO != 0 => None,
        () if categories & IS_SWAPPED != 0 => Some(Kept::Swapped),
        () if categories & IS_PRESENT == 0 => None,
        () if categories & IS_FILE != 0 => Some(Kept::Shared),
        () => Some(Kept::Anonymous),
    }
}

fn kept_of_entry(entry: u64) -> Option<Kept> {
    match () {
        () if entry & ENTRY_SWAPPED != 0 => Some(Kept::Swapped),
        () if entry & ENTRY_PRESENT == 0 => None,
        () if entry & ENTRY_FILE != 0 => Some(Kept::Shared),
        () => Some(Kept::Anonymous),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: usize = AT_ONCE + 10;
    const SIZE: usize = 4096;

    /// New memory of `PAGES`, of which four are touched.
    fn some_touched(flags: i32) -> Range<u64> {
        let length = PAGES * SIZE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: new memory at a place that the kernel chooses.
        let start = unsafe {
            let flags = flags | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: it is ours; huge pages would be touched whole.
        unsafe { libc::madvise(start, length, libc::MADV_NOHUGEPAGE) };
        for page in [0, 7, AT_ONCE, PAGES - 1] {
            // SAFETY: within the mapping.
            unsafe { start.cast::<u8>().add(page * SIZE).write(1) };
        }
        start as u64..start as u64 + length as u64
    }

    fn unmap(range: &Range<u64>) {
        let length = usize::try_from(range.end - range.start).unwrap();
        // SAFETY: mapped above, and not used any more.
        unsafe { libc::munmap(range.start as *mut libc::c_void, length) };
    }

    /// The page map as the kernel tells it, and as old ones do.
    fn both() -> [PageMap; 2] {
        let process = ProcessHandle::open(std::process::id()).unwrap();
        let open = || PageMap::open(&process).unwrap();
        let old = PageMap {
            scans: false,
            ..open()
        };
        [open(), old]
    }

    #[test]
    fn pages_are_resident_once_they_are_touched() {
        for map in both() {
            let range = some_touched(libc::MAP_PRIVATE);
            let pages = map.pages(&range).unwrap();
            assert_eq!((pages.resident, pages.shared), (4 * PAGE, 0));
            let last = range.end - PAGE..range.end;
            assert_eq!(map.resident(&last).unwrap(), PAGE);
            unmap(&range);
            assert_eq!(map.resident(&range).unwrap(), 0);
        }
    }

    #[test]
    fn shared_pages_are_told_apart() {
        for map in both() {
            let range = some_touched(libc::MAP_SHARED);
            let pages = map.pages(&range).unwrap();
            assert_eq!((pages.resident, pages.shared), (4 * PAGE, 4 * PAGE));
            unmap(&range);
        }
    }

    #[test]
    fn runs_come_in_order_and_a_deadline_ends_them() {
        for map in both() {
            let range = some_touched(libc::MAP_PRIVATE);
            let mut runs = Vec::new();
            let mut tell = |run: Range<u64>, _| runs.push(run.start - range.start);
            assert!(map.each(&range, None, &mut tell).unwrap());
            let expected = [0, 7, AT_ONCE, PAGES - 1].map(|page| (page * SIZE) as u64);
            assert_eq!(runs, expected);
            let over = Some(Instant::now());
            assert!(!map.each(&range, over, &mut |_, _| {}).unwrap());
            unmap(&range);
        }
    }

    #[test]
    fn a_page_of_zeros_is_nobodys() {
        let [map, _] = both();
        let range = some_touched(libc::MAP_PRIVATE);
        let untouched = range.start + 100 * PAGE;
        // SAFETY: within the mapping, which is there still.
        let read = unsafe { (untouched as *const u8).read_volatile() };
        assert_eq!(read, 0);
        if map.scans {
            assert_eq!(map.resident(&range).unwrap(), 4 * PAGE);
        }
        unmap(&range);
    }

    #[test]
    fn an_immense_range_costs_little() {
        let process = ProcessHandle::open(std::process::id()).unwrap();
        let map = PageMap::open(&process).unwrap();
        if map.scans {
            let all = PAGE..1 << 40;
            assert_eq!(map.resident(&all).unwrap() % PAGE, 0);
        }
    }
}
