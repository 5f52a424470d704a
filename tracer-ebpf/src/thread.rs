//! Processes and threads as the kernel side knows them.

use crate::block::{Block, BlockKey};
use crate::call::{self, Call, Function, is_trampoline};
use crate::hits::{Counter, KINDS, Timing};
use crate::java::WINDOW_WORDS;
use crate::kinship::{Ancestor, MAX_ANCESTORS};
use crate::limits::{MAX_FRAMES, WINDOW_BYTES};
use crate::python;
use crate::site::NO_SITE;
use crate::stack::{Walk, WalkState};
use crate::volatile::Volatile;

/// A traced process, keyed by its id (tgid).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Process {
    /// The process image: unique for each process and each `exec` in it; see
    /// [`image_id`].
    pub image: u64,
    /// The group of processes whose equal call paths are one site; 0 while it
    /// is not known.
    pub group: u64,
    /// 1 if this is a `vfork` child, which shares its parent's heap (and so
    /// its parent's image) until it calls `exec`.
    pub shares_heap: u32,
    /// 1 if it is traced from its `exec` on.
    pub from_start: u32,
    /// When it last forked a child with a heap of its own that is traced,
    /// nanoseconds of `CLOCK_MONOTONIC`; 0 if never.
    pub last_fork: u64,
    /// Whose copy its heap is, the nearest first.
    pub ancestors: [Ancestor; MAX_ANCESTORS],
}

impl Process {
    /// A process whose heap is nobody's copy.
    pub const fn new(image: u64) -> Self {
        let none = Ancestor {
            image: 0,
            forked: 0,
        };
        Self {
            image,
            group: 0,
            shares_heap: 0,
            from_start: 0,
            last_fork: 0,
            ancestors: [none; MAX_ANCESTORS],
        }
    }
}

// SAFETY: repr(C), fields fill all 96 bytes, any bit pattern is valid.
unsafe impl crate::Record for Process {}

/// The id of a process image: the process id above, and the time of its birth
/// in units of 1,024 ns below, which wraps after 73 minutes. A process id is
/// not used again within the same microsecond of that.
pub const fn image_id(pid: u32, birth_ns: u64) -> u64 {
    ((pid as u64) << 32) | ((birth_ns >> 10) & 0xffff_ffff)
}

/// The process id in an image id.
pub const fn image_pid(image: u64) -> u32 {
    (image >> 32) as u32
}

/// What a thread is doing. Only the thread's own probes touch its record, and
/// they never overlap, so it needs no locks; uprobe programs may be preempted,
/// which rules out per-CPU scratch.
#[repr(C)]
pub struct Thread {
    /// The image that the thread allocates in.
    pub image: u64,
    /// How often the map of processes had changed when that was looked up.
    pub as_of: u64,
    /// The outermost allocation call that has not returned yet.
    pub call: Call,
    /// The making of a JVM's handle that has not returned yet.
    pub handle: Making,
    /// The start of a JVM's thread that has not returned yet.
    pub start: Making,
    /// The start of a thread of any kind, until that is born.
    pub clone: Cloning,
    /// Hits of its probes that are in no sum yet, by [`crate::hits::Kind`].
    pub hits: [Counter; KINDS],
    /// The hit that is timed.
    pub timing: Timing,
    /// The call that was left out last, and whose return nobody will tell.
    pub unheard: Unheard,
    /// The call that was given up last, since an exception was made within it.
    pub thrown: Unheard,
    /// Where the heap that `brk` moves ended when `brk` was entered.
    pub brk: u64,
    /// Where the kernel has the registers of the system call that is looked at. Some
    /// verifiers hand no address in the kernel to a function that is verified alone.
    pub caller: u64,
    /// The group of processes that its process belongs to.
    pub group: u64,
    /// See [`Process::last_fork`].
    pub last_fork: u64,
    /// 1 if its image takes samples of its allocations itself, so that calls of its
    /// allocators are nothing to us.
    pub has_sampler: u64,
    /// The list of the code in its image whose calls are followed: see [`crate::origin`].
    pub origins: u64,
    /// The block that it freed last, unless it has allocated since.
    pub freed: Freed,
    /// The pool to which it gave something back last.
    pub pool: PoolFree,
    /// The number of the function that is entered.
    pub entered: Volatile,
    /// The stack of the call that was entered last, the allocator's own frame first.
    pub frames: [u64; MAX_FRAMES],
    /// The walk of that stack.
    pub walk: WalkState,
    /// The address space that it is walked in, a number; 0 if its code is not
    /// known.
    pub space: Volatile,
    /// The JVM whose code cache the walk met last: its number (0 if none),
    /// where its code begins, how long that is, and the same of its
    /// interpreter.
    pub vm: VmCode,
    /// The probed instruction that was met last.
    pub probed: Probed,
    /// What is remembered of its stacks.
    pub recall: Recall,
    /// The mapping of a file that the walk was in last.
    pub mapping: Mapping,
    /// Where the walk is in Python's frames.
    pub python: python::Walk,
    /// What one frame of a script language takes meanwhile: nothing in it lasts.
    pub scratch: [u64; WINDOW_WORDS],
    /// Address of the stack memory that was read last.
    pub window_start: Volatile,
    /// How many bytes of it there are.
    pub window_length: Volatile,
    /// The page from which a whole window could not be read last, a number: the last
    /// of a stack. A read that faults costs a microsecond.
    pub last_page: Volatile,
    /// The stack memory itself.
    pub window: [u64; WINDOW_BYTES / 8],
}

/// The part of a [`Thread`] that user space reads.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct InFlight {
    /// The image that the thread allocates in.
    pub image: u64,
    /// See [`Thread`].
    pub as_of: u64,
    /// The outermost allocation call that has not returned yet.
    pub call: Call,
    /// The making of a JVM's handle that has not returned yet.
    pub handle: Making,
    /// The start of a JVM's thread that has not returned yet.
    pub start: Making,
    /// The start of a thread of any kind, until that is born.
    pub clone: Cloning,
    /// Hits of its probes that are in no sum yet, by [`crate::hits::Kind`].
    pub hits: [Counter; KINDS],
    rest: [u8; size_of::<Thread>()
        - 16
        - size_of::<Call>()
        - 2 * size_of::<Making>()
        - size_of::<Cloning>()
        - KINDS * size_of::<Counter>()],
}

// SAFETY: repr(C), u64, a Call, two Makings, a Cloning, Counters and bytes, no padding,
// any bits valid.
unsafe impl crate::Record for InFlight {}

const _: () = assert!(
    size_of::<InFlight>() == size_of::<Thread>()
        && core::mem::offset_of!(InFlight, call) == core::mem::offset_of!(Thread, call)
        && core::mem::offset_of!(InFlight, start) == core::mem::offset_of!(Thread, start)
        && core::mem::offset_of!(InFlight, clone) == core::mem::offset_of!(Thread, clone)
        && core::mem::offset_of!(InFlight, hits) == core::mem::offset_of!(Thread, hits),
    "user space reads the beginning of a record"
);

impl InFlight {
    /// The block that a realloc which has not returned was given, if it is
    /// followed: it is live, and not in the map of live blocks.
    pub fn old_block(&self) -> Option<(BlockKey, Block)> {
        let call = &self.call;
        let is_there = call.function != 0 && call.old_address != 0 && call.old.site != NO_SITE;
        let key = BlockKey {
            address: call.old_address,
            image: self.image,
        };
        is_there.then_some((key, call.old))
    }

    /// The sites that a call which has not returned may yet count at.
    pub fn sites(&self) -> impl Iterator<Item = u32> {
        let call = &self.call;
        let calls = [
            (call.function != 0).then_some(call.site),
            (call.function != 0 && call.old_address != 0).then_some(call.old.site),
            (self.handle.slot != 0).then_some(self.handle.site),
            (self.start.slot != 0).then_some(self.start.site),
            (self.clone.stack != 0).then_some(self.clone.site),
        ];
        calls.into_iter().flatten().filter(|site| *site != NO_SITE)
    }
}

/// A call that is too small to be followed, so that nobody tells of its return.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Unheard {
    /// Address of the return-address slot; 0 if there is none.
    pub slot: u64,
    /// The return address.
    pub back: u64,
    /// The number of the function.
    pub function: u32,
    /// Always zero.
    pub padding: u32,
}

impl Unheard {
    /// Whether it goes on as a call of this function that returns to `back`, which stands
    /// at `slot`.
    #[inline(always)]
    pub const fn goes_on_as(&self, function: Function, slot: u64, back: u64) -> bool {
        self.slot == slot
            && self.back == back
            && self.function != function as u32
            && call::tail_call(self.function, function)
    }

    /// Whether it may still run, at the stack pointer `stack`. `saved` reads the word
    /// at its slot, which stays there after the return until something is written over
    /// it: so this is no proof.
    #[inline(always)]
    pub fn may_run(&self, stack: u64, saved: impl FnOnce() -> Option<u64>) -> bool {
        self.slot != 0
            && stack <= self.slot
            && saved().is_some_and(|word| word == self.back || is_trampoline(word))
    }
}

/// A call of `free`. glibc 2.43's goes on with itself when it makes a thread's
/// cache: one call, but the probe is hit twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Freed {
    /// The block.
    pub address: u64,
    /// The stack pointer at its entry.
    pub stack: u64,
}

/// A call by which objects are given back to a pool. What the pool gives back below
/// meanwhile is its own, and in no number: neither were the pieces that it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PoolFree {
    /// Address of the return-address slot; 0 if there was no such call.
    pub slot: u64,
    /// The word that stood there.
    pub back: u64,
    /// Of a chain of objects the first that was not looked at yet, or 0.
    pub next: u64,
    /// Where in each object the address of the next one is, bytes. Of an arena: when it
    /// ends, nanoseconds of `CLOCK_MONOTONIC`.
    pub link: u64,
}

impl PoolFree {
    /// Whether a call whose return address is at `stack` is made within this one,
    /// while `word` stands at its slot.
    #[inline(always)]
    pub fn has_within(&self, stack: u64, word: impl FnOnce() -> Option<u64>) -> bool {
        stack < self.slot && word() == Some(self.back)
    }
}

/// A call that makes a handle or a thread, from its entry to its return. It is
/// no [`Call`]: the memory that a JVM allocates meanwhile counts as its own.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Making {
    /// Address of the return-address slot; 0 while no call is in flight.
    pub slot: u64,
    /// Time of the entry, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Index of the site, [`crate::site::NO_SITE`] if it is not counted, or
    /// [`crate::site::LOST_SITE`].
    pub site: u32,
    /// Always zero.
    pub padding: u32,
}

impl Making {
    /// Whether a return at stack pointer `stack` (one word above its slot)
    /// ends it.
    #[inline(always)]
    pub const fn ends(&self, stack: u64) -> bool {
        self.slot != 0 && self.slot.wrapping_add(8) == stack
    }
}

/// A thread that is about to be made.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Cloning {
    /// Top of the stack that it gets; 0 if none is made.
    pub stack: u64,
    /// Where the kernel will write 0 when it ends (`CLONE_CHILD_CLEARTID`), or 0.
    pub cleared: u64,
    /// Index of the site, [`crate::site::NO_SITE`] if it is not known, or
    /// [`crate::site::LOST_SITE`].
    pub site: u32,
    /// Always zero.
    pub padding: u32,
}

/// A probed instruction and its word. An address space that has a number does not
/// change.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Probed {
    /// The address space.
    pub space: Volatile,
    /// The address in it.
    pub address: Volatile,
    /// The word.
    pub word: Volatile,
}

/// Where a thread's memos are, and the one that is at work; see [`crate::memo`].
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Recall {
    /// The number of its set of memos and 1; 0 if it has none.
    pub set: u64,
    /// The number of the memo that the walk is for and 1; 0 if for none.
    pub at: Volatile,
    /// The number of the notes that the walk takes.
    pub notes: Volatile,
    /// The epoch at which the walk began.
    pub epoch: Volatile,
    /// The registers at the entry that is looked at: rip, as before the function's first
    /// instruction.
    pub ip: Volatile,
    /// rsp.
    pub sp: Volatile,
    /// rbp.
    pub bp: Volatile,
    /// rbx.
    pub bx: Volatile,
    /// How many bytes of the stack walks went by at most that are remembered.
    pub reach: Volatile,
    /// How many words of a memo were compared.
    pub compared: Volatile,
    /// The stack that was walked last.
    pub walk: Walk,
}

/// A mapping of a file, as the kernel told during a walk: it may be gone right
/// after.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Mapping {
    /// First address.
    pub start: Volatile,
    /// Bytes of it; 0 if there is none.
    pub length: Volatile,
    /// Where the file's first byte would be.
    pub origin: Volatile,
    /// The file's number.
    pub file: Volatile,
}

/// Where a JVM's code is.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct VmCode {
    /// Its number; 0 if none.
    pub number: Volatile,
    /// First address of its code cache.
    pub start: Volatile,
    /// Bytes of it.
    pub length: Volatile,
    /// First address of its interpreter.
    pub interpreter_start: Volatile,
    /// Bytes of it.
    pub interpreter_length: Volatile,
    /// Bytes from an interpreted frame's rbp down to its bytecode pointer.
    pub bytecode_below: Volatile,
    /// How often it has freed code, if what is cached may be believed;
    /// otherwise all ones.
    pub freed: Volatile,
}

/// The kernel's allocator for hash maps has no caches beyond 4 KiB, and an element has
/// a header of 48 bytes, its key of 8, and a list's word of 8 before it.
const _: () = assert!(
    size_of::<Thread>() + 64 <= 4096,
    "a thread record fits the kernel's 4 KiB caches"
);
