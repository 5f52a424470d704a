//! The kernel maps, and counters in them. The loader sets the sizes of those
//! that the user can choose.

use core::arch::asm;

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{
    Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, Queue, RingBuf, StackTrace,
};
use tracer_ebpf::block::{Block, BlockKey, Caller, MAX_CALLERS, MAX_FREED_UNKNOWN, Object};
use tracer_ebpf::class_name::{ClassName, MAX_NAMES};
use tracer_ebpf::event::Event;
use tracer_ebpf::file::{FileKey, FileTable};
use tracer_ebpf::held;
use tracer_ebpf::hits::{Cost, KINDS};
use tracer_ebpf::java::{self, Freed, MAX_VMS, Vm};
use tracer_ebpf::kinship::FreedSince;
use tracer_ebpf::limits::{
    CODE_RING_BYTES, EVENT_RING_BYTES, MAX_FILES, MAX_PROCESSES, MAX_RANGES, MAX_RESERVERS,
    MAX_RULES, MAX_SPACES, MAX_THREADS, PROBE_RING_BYTES,
};
use tracer_ebpf::loss::{LOSS_CAUSES, LossCause, LossCount};
use tracer_ebpf::memo::{MEMO_THREADS, MEMOS, Memo, UNREAD};
use tracer_ebpf::notes::Notes;
use tracer_ebpf::origin::Origins;
use tracer_ebpf::phase::Phase;
use tracer_ebpf::python::Layout;
use tracer_ebpf::rule::Rule;
use tracer_ebpf::sample::{SampledSite, Sampling};
use tracer_ebpf::settings::{Hijack, Mapped, RETURN_INSTRUCTIONS, SESSIONS, Settings};
use tracer_ebpf::site::{Site, SiteKey};
use tracer_ebpf::stated::{MAX_SAMPLERS, SamplerPlace, StatedSite};
use tracer_ebpf::table::{Code, Range, Replaced, Row, Space, cached};
use tracer_ebpf::thread::{Process, Thread};
use tracer_ebpf::usdt::{MAX_PLACES, Place, PlaceKey};
use tracer_ebpf::v8;

const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// Set by the loader.
#[unsafe(no_mangle)]
static SETTINGS: Global<Settings> = Global::new(Settings {
    min_size: 0,
    hash_seed: 0,
    task_tgid: 0,
    task_mm: 0,
    task_utask: 0,
    follow: 0,
    hijack: Hijack {
        instances: 0,
        stack: 0,
        original: 0,
        next: 0,
    },
    unmapped_length: 0,
    threads: 0,
    task_pid: 0,
    task_signal: 0,
    signal_flags: 0,
    signal_live: 0,
    signal_exit_code: 0,
    task_exit_code: 0,
    task_leader: 0,
    by_program: 0,
    mapped: Mapped {
        start: 0,
        end: 0,
        page_offset: 0,
        file: 0,
        inode: 0,
        mode: 0,
        backing_dentry: 0,
        dentry_inode: 0,
        inode_number: 0,
        inode_sb: 0,
        device: 0,
        program: 0,
    },
    mm_brk: 0,
    sampling: Sampling::OFF,
    task_ptrace: 0,
    task_parent: 0,
    task_blocked: 0,
    task_no_faults: 0,
    task_stack: 0,
    budget: 0,
    task_fs: 0,
    origins: 0,
});

/// Traced processes by tgid. What reads it is [`process`]; what changes it
/// counts that in [`PROCESS_CHANGES`].
#[map]
pub(crate) static PROCESSES: HashMap<u32, Process> =
    HashMap::with_max_entries(MAX_PROCESSES, BPF_F_NO_PREALLOC);

/// How often that has changed, so that what a thread's record says of its
/// process need not be looked up at each call.
#[map]
pub(crate) static PROCESS_CHANGES: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Threads by `tgid << 32 | tid`.
#[map]
pub(crate) static THREADS: HashMap<u64, Thread> =
    HashMap::with_max_entries(MAX_THREADS, BPF_F_NO_PREALLOC);

/// An all-zero record, to make new ones from.
#[map]
pub(crate) static NEW_THREAD: Array<Thread> = Array::with_max_entries(1, 0);

/// Live blocks.
#[map]
pub(crate) static LIVE: HashMap<BlockKey, Block> = HashMap::with_max_entries(1 << 20, 0);

/// Live objects of arenas. The loader sets the size of this and the next, if pools are
/// looked into.
#[map]
pub(crate) static OBJECTS: HashMap<BlockKey, Object> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// The object that each arena has handed out last, by the arena's address.
#[map]
pub(crate) static ARENAS: HashMap<BlockKey, u64> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Indices of sites.
#[map]
pub(crate) static SITE_INDEX: HashMap<SiteKey, u32> = HashMap::with_max_entries(1 << 14, 0);

/// The sites themselves.
#[map]
pub(crate) static SITES: Array<Site> = Array::with_max_entries(1 << 14, BPF_F_MMAPABLE);

/// What the chosen blocks of each site stand for. The loader sets the size, if
/// allocations are sampled.
#[map]
pub(crate) static SAMPLED: Array<SampledSite> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// How many live blocks there may be of each [`tracer_ebpf::sample::filter_slot`]: as
/// many as there are in [`LIVE`], or more. The loader sets the size, if allocations are
/// sampled.
#[map]
pub(crate) static FILTER: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What is followed now, if a budget decides that during the run; written by user space.
#[map]
pub(crate) static PHASE: Array<Phase> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Deaths that a budget's estimates are made of. The loader sets the size, if there is
/// one.
#[map]
pub(crate) static DEATHS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Lists of code whose calls are followed, by number; 0 is none. The loader sets the
/// size, if not all calls are.
#[map]
pub(crate) static ORIGINS: Array<Origins> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The list of an image. What changes it counts that in [`PROCESS_CHANGES`].
#[map]
pub(crate) static ORIGINS_OF: HashMap<u64, u64> =
    HashMap::with_max_entries(MAX_PROCESSES, BPF_F_NO_PREALLOC);

/// Calls from elsewhere, of each CPU.
#[map]
pub(crate) static ELSEWHERE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Indices not yet in use. Filled by the loader: a queue gives each index out
/// once without the fetching atomics that kernels before 5.12 lack.
#[map]
pub(crate) static FREE_SITES: Queue<u32> = Queue::with_max_entries(1 << 14, 0);

/// Rows of all unwind tables. This and the maps below are filled by user space
/// and only read here, but for the cache.
#[map]
pub(crate) static ROWS: Array<Row> = Array::with_max_entries(1 << 20, BPF_F_MMAPABLE);

/// Unwind rules by number.
#[map]
pub(crate) static RULES: Array<Rule> = Array::with_max_entries(MAX_RULES, BPF_F_MMAPABLE);

/// Executable ranges of all address spaces.
#[map]
pub(crate) static RANGES: Array<Range> = Array::with_max_entries(MAX_RANGES, BPF_F_MMAPABLE);

/// Address spaces by number, 0 is none.
#[map]
pub(crate) static SPACES: Array<Space> = Array::with_max_entries(MAX_SPACES, BPF_F_MMAPABLE);

/// The code of images. Numbers of address spaces are never used anew while
/// they can be found here, or a program may still be at work with them.
#[map]
pub(crate) static CODE_OF: HashMap<u64, Code> =
    HashMap::with_max_entries(MAX_PROCESSES, BPF_F_NO_PREALLOC);

/// What was replaced of images' code since user space looked at it.
#[map]
pub(crate) static REPLACED: HashMap<u64, Replaced> =
    HashMap::with_max_entries(MAX_PROCESSES, BPF_F_NO_PREALLOC);

/// Not 0 if [`REPLACED`] has anything in it, which is rare.
#[map]
pub(crate) static ANY_REPLACED: Array<u64> = Array::with_max_entries(1, 0);

/// Numbers of files by their inodes.
#[map]
pub(crate) static FILES: HashMap<FileKey, u32> =
    HashMap::with_max_entries(MAX_FILES, BPF_F_NO_PREALLOC);

/// Tables of files by their numbers, 0 is none.
#[map]
pub(crate) static FILE_TABLES: Array<FileTable> =
    Array::with_max_entries(MAX_FILES, BPF_F_MMAPABLE);

/// Interpreters of Python by their files' numbers; all zero if a file is none.
#[map]
pub(crate) static PYTHONS: Array<Layout> = Array::with_max_entries(MAX_FILES, BPF_F_MMAPABLE);

/// What is known of V8 by the numbers of files that have it; all zero if a file has not.
#[map]
pub(crate) static V8S: Array<v8::Layout> = Array::with_max_entries(MAX_FILES, BPF_F_MMAPABLE);

/// Which of V8's maps are those that a walk looks for: see [`v8::types_key`].
#[map]
pub(crate) static V8_TYPES: Array<u64> = Array::with_max_entries(v8::MAX_TYPES, BPF_F_MMAPABLE);

/// The functions of JavaScript that were on a stack of late, by process image and word: where
/// each was last. The loader sets the size.
#[map]
pub(crate) static SCRIPTS: LruHashMap<v8::Key, v8::Function> =
    LruHashMap::with_max_entries(v8::MAX_FUNCTIONS, 0);

/// Rules and ranges by address; see [`cached`].
#[map]
pub(crate) static CACHE: Array<cached::Entry> =
    Array::with_max_entries(cached::ENTRIES, BPF_F_MMAPABLE);

/// JVMs by number, 0 is none.
#[map]
pub(crate) static VMS: Array<Vm> = Array::with_max_entries(MAX_VMS, BPF_F_MMAPABLE);

/// How often each has freed code, by number. Only written here.
#[map]
pub(crate) static FREED: Array<Freed> = Array::with_max_entries(MAX_VMS, BPF_F_MMAPABLE);

/// The number of an image's JVM.
#[map]
pub(crate) static VM_OF: HashMap<u64, u32> = HashMap::with_max_entries(MAX_VMS, BPF_F_NO_PREALLOC);

/// Code in code caches by address; see [`java::cached`].
#[map]
pub(crate) static JAVA_CACHE: Array<u64> =
    Array::with_max_entries(java::cached::ENTRIES, BPF_F_MMAPABLE);

/// What threads remember of their stacks: so many ([`MEMOS`]) of each set, one after the other.
/// Only the thread that has a set touches it.
#[map]
pub(crate) static MEMO: Array<Memo> = Array::with_max_entries(MEMO_THREADS * MEMOS, 0);

/// What the walks of threads go by, by the number of their sets; and of threads that have
/// none, whose notes nobody reads.
#[map]
pub(crate) static NOTES: Array<Notes> = Array::with_max_entries(MEMO_THREADS + UNREAD, 0);

/// Sets of memos that no thread has. Filled by the loader.
#[map]
pub(crate) static FREE_MEMOS: Queue<u32> = Queue::with_max_entries(MEMO_THREADS, 0);

/// How often what is known of code has changed; each change is counted after it was
/// made. See [`epoch`].
#[map]
pub(crate) static CODE_CHANGES: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// How often sites were hidden; counted after that.
#[map]
pub(crate) static SITE_CHANGES: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// One counter for each cause of loss.
#[map]
pub(crate) static LOSSES: Array<LossCount> =
    Array::with_max_entries(LOSS_CAUSES as u32, BPF_F_MMAPABLE);

/// What processes have freed since they forked: their children have it yet. The
/// loader sets the size, if children are followed.
#[map]
pub(crate) static FREED_SINCE: HashMap<BlockKey, FreedSince> =
    HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Frees of blocks that a process has as a copy of an ancestor's; and how many
/// of those could not be remembered that an ancestor has freed.
#[map]
pub(crate) static INHERITED_FREES: Array<u64> = Array::with_max_entries(2, BPF_F_MMAPABLE);

/// Frees of blocks that are neither in [`LIVE`] nor an ancestor's.
#[map]
pub(crate) static UNTRACED_FREES: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Those of calls of `free`, by who called it: the allocator itself gives up
/// memory in this way that it was never asked for. Callers that there is no room
/// for are in the sum alone.
#[map]
pub(crate) static FREED_BY: HashMap<Caller, u64> = HashMap::with_max_entries(MAX_CALLERS, 0);

/// Where unknown blocks were freed of late, and by which probed instruction. Only if
/// something was allocated there since, unseen, can it be freed once more.
#[map]
pub(crate) static FREED_UNKNOWN: LruHashMap<BlockKey, u64> =
    LruHashMap::with_max_entries(MAX_FREED_UNKNOWN, 0);

/// Frees of blocks that were allocated during the run, and not seen, by who called.
#[map]
pub(crate) static FREED_UNSEEN: HashMap<Caller, u64> = HashMap::with_max_entries(MAX_CALLERS, 0);

/// What hits of probes cost, by [`tracer_ebpf::hits::Kind`].
#[map]
pub(crate) static COSTS: Array<Cost> = Array::with_max_entries(KINDS as u32, BPF_F_MMAPABLE);

/// Hits that ended before anybody asked whose they were, by the same, of each CPU.
#[map]
pub(crate) static IN_PASSING: PerCpuArray<u64> = PerCpuArray::with_max_entries(KINDS as u32, 0);

/// Forks whose children are not traced.
#[map]
pub(crate) static FORKS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The process that holds programs by ptrace, as long as it does; or 0.
#[map]
pub(crate) static HOLDER: Array<u32> = Array::with_max_entries(1, 0);

/// Threads that were sent a signal of ours, which user space takes away at once;
/// see [`held::told`].
#[map]
pub(crate) static HELD: Array<u64> = Array::with_max_entries(held::PLACES, BPF_F_MMAPABLE);

/// Not 0 while events count: `RETURN_PROBES`, `RETURN_INSTRUCTIONS` or `SESSIONS`. Probes come and go one by one, over some tenths of a
/// second; this makes all of them begin, and end, at one moment.
#[map]
pub(crate) static ACTIVE: Array<u64> = Array::with_max_entries(1, 0);

/// The program that finds a call's site, for programs that do not do it
/// themselves: those for one function each, which would all have to be
/// verified with the whole walk in them.
#[map]
pub(crate) static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The programs that find the sites of system calls, for those at the kernel's own
/// functions: at the entry and at the return, for functions of two types.
#[map]
pub(crate) static ENTERED: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub(crate) static ENTERED_2: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub(crate) static RETURNED: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub(crate) static RETURNED_2: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The same for those at the tracepoints that every system call passes.
#[map]
pub(crate) static PASSED: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// The same for those at tracepoints of one system call each.
#[cfg(feature = "find_vma")]
#[map]
pub(crate) static PASSED_ONE: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Always empty: its programs never make the tail call that keeps them on the
/// stack of the task that runs them.
#[map]
pub(crate) static TASK_STACK: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The same for programs of `uprobe_multi` links, in its place: from 6.18 on
/// all users of such a map attach in the same way.
#[map]
static TASK_STACK_MULTI: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The same for those of session links.
#[map]
static TASK_STACK_PAIR: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The kernel's own stacks, for benchmarks; otherwise it has one element.
#[map]
pub(crate) static KERNEL_STACKS: StackTrace = StackTrace::with_max_entries(1024, 0);

/// What user space must see one by one.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_RING_BYTES, 0);

/// The places of USDT probes.
#[map]
pub(crate) static PLACES: HashMap<PlaceKey, Place> = HashMap::with_max_entries(MAX_PLACES, 0);

/// The places of the probes by which processes tell of samples that they take
/// themselves.
#[map]
pub(crate) static SAMPLERS: Array<SamplerPlace> =
    Array::with_max_entries(MAX_SAMPLERS, BPF_F_MMAPABLE);

/// The images that have such probes. What changes it counts that in
/// [`PROCESS_CHANGES`].
#[map]
pub(crate) static HAS_SAMPLER: HashMap<u64, u64> =
    HashMap::with_max_entries(MAX_PROCESSES, BPF_F_NO_PREALLOC);

/// What their samples stand for, by the index of the site.
#[map]
pub(crate) static STATED: HashMap<u32, StatedSite> =
    HashMap::with_max_entries(1 << 14, BPF_F_NO_PREALLOC);

/// All zero, to make new ones from.
#[map]
pub(crate) static NEW_STATED: Array<StatedSite> = Array::with_max_entries(1, 0);

/// Names of classes by their words.
#[map]
pub(crate) static CLASS_NAMES: HashMap<u64, ClassName> =
    HashMap::with_max_entries(MAX_NAMES, BPF_F_NO_PREALLOC);

/// What USDT probes tell: a ring of its own, so that it never takes the place
/// of mapping events.
#[map]
pub(crate) static TOLD: RingBuf = RingBuf::with_byte_size(PROBE_RING_BYTES, 0);

/// What JVMs tell of compiled code, which comes in bursts.
#[map]
pub(crate) static COMPILED: RingBuf = RingBuf::with_byte_size(CODE_RING_BYTES, 0);

/// Images that have reserved addresses without memory, which `mprotect` may make
/// accessible.
#[map]
pub(crate) static RESERVERS: HashMap<u64, u64> = HashMap::with_max_entries(MAX_RESERVERS, 0);

/// Whether events count now.
#[inline(always)]
pub(crate) fn is_active() -> bool {
    active() != 0
}

/// Whether calls end at return instructions now.
#[inline(always)]
pub(crate) fn returns_are_left_alone() -> bool {
    active() == RETURN_INSTRUCTIONS
}

/// Whether session links tell of entries and returns now.
#[inline(always)]
pub(crate) fn sessions_tell() -> bool {
    active() == SESSIONS
}

#[inline(always)]
fn active() -> u64 {
    ACTIVE.get(0).map_or(0, |active| *active)
}

/// How often [`PROCESSES`] has changed; read before it is looked into, since
/// each change is counted after it was made.
#[inline(always)]
pub(crate) fn process_changes() -> u64 {
    changes(&PROCESS_CHANGES)
}

/// A number that is another one, and never 0, once anything has changed by which a stack
/// that was walked before would be found to be another one, or to have another site. It is
/// read before a walk begins. Neither of both counts ever falls, so while the sum is the
/// same, both are.
#[inline(always)]
pub(crate) fn epoch() -> u64 {
    changes(&CODE_CHANGES)
        .wrapping_add(changes(&SITE_CHANGES))
        .wrapping_add(1)
}

#[inline(always)]
fn changes(of: &Array<u64>) -> u64 {
    match of.get_ptr(0) {
        // SAFETY: a live map value; a program must not use what it read once
        // for two looks.
        Some(changes) => unsafe { changes.read_volatile() },
        None => 0,
    }
}

/// A process, if it is traced.
#[inline(always)]
pub(crate) fn process(pid: u32) -> Option<Process> {
    let process = PROCESSES.get_ptr(pid)?;
    // SAFETY: a live map value.
    let process = unsafe { *process };
    (process.image != 0).then_some(process)
}

/// Where the loader's settings are; see [`setting`].
#[inline(always)]
pub(crate) fn settings() -> *const Settings {
    (&raw const SETTINGS).cast()
}

/// One of the loader's settings. Reading all of them takes 48 loads.
macro_rules! setting {
    ($($field:ident).+) => {
        // SAFETY: the program's read-only data, which the loader has set. A
        // volatile read, or the compiler would take the zeros in the object.
        unsafe { (&raw const (*$crate::maps::settings()).$($field).+).read_volatile() }
    };
}
pub(crate) use setting;

/// Adds to a counter in a map, atomically. Written as the instruction itself:
/// the target's `core` has no atomic addition, and one that does not fetch is
/// all that kernels before 5.12 know.
///
/// # Safety
/// `counter` points into a map value and is aligned to 8 bytes.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, amount: u64) {
    // SAFETY: the caller's pointer is valid and aligned; the instruction
    // touches nothing else.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {amount}", counter = in(reg) counter, amount = in(reg) amount);
    }
}

/// Counts lost events.
#[inline(always)]
pub(crate) fn lose(cause: LossCause, events: u64, bytes: u64) {
    if let Some(count) = LOSSES.get_ptr_mut(cause as u32) {
        // SAFETY: a pointer to a field of a live map value.
        unsafe { add(&raw mut (*count).events, events) };
        // SAFETY: as above.
        unsafe { add(&raw mut (*count).bytes, bytes) };
    }
}

/// Counts one in a map of one counter.
#[inline(always)]
pub(crate) fn count(counter: &Array<u64>) {
    if let Some(count) = counter.get_ptr_mut(0) {
        // SAFETY: a live map value.
        unsafe { add(count, 1) };
    }
}

/// Hands an event to user space, or counts that it could not.
#[inline(always)]
pub(crate) fn send(event: &Event) {
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(*event);
            entry.submit(0);
        }
        None => lose(LossCause::RingFull, 1, event.length),
    }
}
