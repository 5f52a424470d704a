//! Events that user space reads one by one: what touches many blocks at once
//! or changes a process. Single heap events never leave the kernel.

use crate::site::NO_SITE;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// `mmap` returned an address, or `brk` moved up: `address`, `length`, `site`;
    /// `flags` are mmap's. Sent without a site for code that is mapped at an
    /// address of the program's choice.
    Map = 1,
    /// `munmap` was entered: `address`, `length`.
    UnmapEnter = 2,
    /// `munmap` returned: `address` is its result. Unless that is 0, what its
    /// entry took away still stands.
    UnmapReturn = 3,
    /// `mremap` was entered: `address`, `length` of the old range.
    RemapEnter = 4,
    /// `mremap` returned: `address` is the new one (or [`MAP_FAILED`]),
    /// `length` the new length, `site` the caller, `flags` mremap's.
    RemapReturn = 5,
    /// `fork`: `image` is the parent's, `other` the child's image.
    Fork = 6,
    /// `exec`: `image` is the old one (of its parent, if a `vfork` child calls
    /// it), `other` the new. `thread` is the caller as it was before: another
    /// than the first takes over the process' id.
    Exec = 7,
    /// Memory is mapped where code of `image` was known to be: `address`,
    /// `length`.
    CodeReplaced = 8,
    /// The process of `image` ends: `flags` is its status as `wait` tells it.
    /// Sent by the last of its threads (`thread`), and by each that ends at the
    /// same moment: what its first thread says holds, and else the last word.
    Exit = 9,
    /// `image` belongs to the group of processes `other`.
    Group = 10,
    /// `mmap` reserved addresses, which is no memory yet: `address`, `length`.
    Reserve = 11,
    /// `mprotect` made a range accessible: `address`, `length`, `site`.
    Commit = 12,
    /// `shmat` attached a segment, of a length that is not told: `address`,
    /// `site`.
    Attach = 13,
    /// `shmdt` was entered: `address`. Its return is an
    /// [`EventKind::UnmapReturn`].
    DetachEnter = 14,
    /// The thread `thread` was born: `address` is the top of its stack, `site`
    /// who started it, and `other` where the kernel writes 0 when it ends, or 0.
    ThreadBorn = 15,
    /// The thread `thread` ends, and its process does not end with it.
    ThreadEnded = 16,
    /// An allocator has mapped memory, within a call of it: `address`, `length`.
    AllocatorMap = 17,
    /// An allocator has unmapped memory, within a call of it: `address`, `length`.
    AllocatorUnmap = 18,
    /// `mremap` is about to move pages: `address`, `length` of the old range, and
    /// `other`, the new address. It may fail yet.
    PagesMove = 19,
}

/// The address that a failed `mmap` or `mremap` returns.
pub const MAP_FAILED: u64 = u64::MAX;
/// mmap's flag for memory without a file.
pub const MAP_ANONYMOUS: u64 = 0x20;
/// mmap's flag for an exact address, replacing what is there.
pub const MAP_FIXED: u64 = 0x10;
/// mmap's flag for memory that the kernel need not be able to give.
pub const MAP_NORESERVE: u64 = 0x4000;
/// mmap's flag for an exact address, failing if something is there.
pub const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
/// mmap's and mprotect's permission to execute.
pub const PROT_EXEC: u64 = 4;
/// mremap's flag to leave the old range mapped (and empty).
pub const MREMAP_DONTUNMAP: u64 = 4;

/// One event of the ring buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// An [`EventKind`].
    pub kind: u32,
    /// Thread id in the initial pid namespace.
    pub thread: u32,
    /// The process image.
    pub image: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// See [`EventKind`].
    pub address: u64,
    /// See [`EventKind`].
    pub length: u64,
    /// See [`EventKind`].
    pub flags: u64,
    /// See [`EventKind`].
    pub other: u64,
    /// Index of the site, or [`crate::site::NO_SITE`].
    pub site: u32,
    /// Always zero.
    pub padding: u32,
}

impl Event {
    /// Of a thread in an image at a time; all that depends on the kind is zero, and
    /// there is no site.
    #[inline(always)]
    #[must_use]
    pub const fn new(kind: EventKind, thread: u32, image: u64, time: u64) -> Self {
        Self {
            kind: kind as u32,
            thread,
            image,
            time,
            address: 0,
            length: 0,
            flags: 0,
            other: 0,
            site: NO_SITE,
            padding: 0,
        }
    }
}

// SAFETY: repr(C), fields fill all 64 bytes, any bit pattern is valid.
unsafe impl crate::Record for Event {}
