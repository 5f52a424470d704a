//! Sites: one call path of a group of processes, with the sums of what it
//! allocated.

use crate::limits::{LIFETIME_BUCKETS, MAX_FRAMES};

/// The 128-bit hash of a group of processes and a stack: the identity of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SiteKey {
    /// First 64 bits.
    pub high: u64,
    /// Second 64 bits, mixed independently.
    pub low: u64,
}

/// The index of no site.
pub const NO_SITE: u32 = u32::MAX;

/// The index of a site for which there is no room: what is allocated there is
/// lost. A call that fails loses nothing.
pub const LOST_SITE: u32 = u32::MAX - 1;

/// Bytes of a thread's name in the kernel, the last of them zero.
pub const THREAD_NAME: usize = 16;

/// In a site's kind: a frame means something in one image only.
pub const LOCAL: u32 = 1 << 31;

/// What the sums of a site are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum SiteKind {
    /// Native memory: blocks and mappings.
    Memory = 0,
    /// Samples of the Java heap: what is freed of it is not known.
    Sample = 1,
    /// Global handles of a JVM's native interface, which have no bytes.
    Handle = 2,
    /// Threads that a JVM starts, which have no bytes either.
    Thread = 3,
    /// Pages that were not in memory when they were touched.
    Page = 4,
}

/// The sums of one site. In a memory-mapped array, so that user space reads
/// it without a system call; only grows while the site's index is in use.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Site {
    /// The process image that made it, 0 while the slot is unused. Written last,
    /// and to be read first: with it, all that tells what the site is is there.
    pub image: u64,
    /// The group of processes that share the site; see
    /// [`crate::thread::Process::group`].
    pub group: u64,
    /// Its identity, by which its index is found.
    pub key: SiteKey,
    /// How many of `frames` are valid.
    pub depth: u32,
    /// Why the stack ends; see [`crate::stack::StackEnd`].
    pub end: u32,
    /// The thread whose path this is; 0 unless they are told apart.
    pub thread: u32,
    /// What is counted; a [`SiteKind`], and [`LOCAL`] if only the image that
    /// made it has this path.
    pub kind: u32,
    /// Blocks allocated.
    pub allocated_count: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Blocks allocated here and freed.
    pub freed_count: u64,
    /// Bytes allocated here and freed.
    pub freed_bytes: u64,
    /// Blocks allocated that could not be entered into the live map.
    pub untracked_count: u64,
    /// Their bytes.
    pub untracked_bytes: u64,
    /// First allocation, nanoseconds of `CLOCK_MONOTONIC`.
    pub first_seen: u64,
    /// Last allocation.
    pub last_seen: u64,
    /// Freed blocks by lifetime; see [`crate::lifetime`].
    pub lifetimes: [u64; LIFETIME_BUCKETS],
    /// The thread's short name (`comm`) when the site was made; zeros unless
    /// threads are told apart.
    pub thread_name: [u8; THREAD_NAME],
    /// Return addresses, the probed function's own frame first.
    pub frames: [u64; MAX_FRAMES],
}

/// What a site is: its beginning, which is written once.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct SiteHead {
    /// See [`Site`].
    pub image: u64,
    /// See [`Site`].
    pub group: u64,
    /// See [`Site`].
    pub key: SiteKey,
    /// See [`Site`].
    pub depth: u32,
    /// See [`Site`].
    pub end: u32,
    /// See [`Site`].
    pub thread: u32,
    /// See [`Site`].
    pub kind: u32,
}

// SAFETY: repr(C), fields fill all 48 bytes, any bit pattern is valid.
unsafe impl crate::Record for SiteHead {}

const _: () = assert!(
    core::mem::offset_of!(Site, key) == core::mem::offset_of!(SiteHead, key)
        && core::mem::offset_of!(Site, kind) == core::mem::offset_of!(SiteHead, kind),
    "a site begins with its head"
);

impl SiteHead {
    /// Whether only the image that made it has this path.
    pub const fn is_local(&self) -> bool {
        self.kind & LOCAL != 0
    }
}

// SAFETY: repr(C), two u64, any bit pattern is valid.
unsafe impl crate::Record for SiteKey {}

// SAFETY: repr(C), u64 fields, four u32 in a row and 16 bytes, no padding, any bits valid.
unsafe impl crate::Record for Site {}

const _: () = assert!(
    core::mem::offset_of!(Site, image) == 0,
    "user space reads the first word of a site before the others"
);

impl Site {
    /// Whether it is of this kind.
    pub const fn is(&self, kind: SiteKind) -> bool {
        self.kind & !LOCAL == kind as u32
    }

    /// Whether only the image that made it has this path.
    pub const fn is_local(&self) -> bool {
        self.kind & LOCAL != 0
    }

    /// Blocks in the live map now.
    pub const fn live_count(&self) -> u64 {
        self.allocated_count
            .saturating_sub(self.freed_count)
            .saturating_sub(self.untracked_count)
    }

    /// Bytes in the live map now.
    pub const fn live_bytes(&self) -> u64 {
        self.allocated_bytes
            .saturating_sub(self.freed_bytes)
            .saturating_sub(self.untracked_bytes)
    }
}
