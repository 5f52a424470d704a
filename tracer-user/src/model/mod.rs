//! The report: everything one run found, and the schema of the JSON export.
//!
//! Every exporter reads this and nothing else, so a report that was saved as
//! JSON renders exactly as it did when it was made. Times are seconds since
//! the run began unless a field says otherwise; sizes are bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub mod balance;
pub mod budget;
pub mod descriptors;
pub mod ending;
pub mod finding;
mod growth;
pub mod holders;
pub mod java_heap;
pub mod java_memory;
pub mod java_native;
pub mod jvm;
pub mod left_alone;
pub mod life_table;
pub mod mapping;
pub mod name;
mod originals;
pub mod pages;
pub mod reading;
mod row_number;
pub mod sampling;
mod site_sum;
pub mod untraced;

use self::name::Name;
use self::reading::frames;
pub use balance::{Balance, CgroupBalance};
pub use budget::{BudgetReport, FaultsReport, RegimeTime, Survival};
pub use ending::{Outcome, PlacedProbe, Suspicion};
pub use finding::{
    CurvePoint, Finding, FindingKind, Forecast, Judgement, Level, MemoryLimit, Verdict,
};
pub use growth::Growth;
pub use holders::{Chain, Holders, Link, LinkKind, Lost, Searched};
pub use java_heap::{
    AllocationPath, ClassGrowth, FlightRecording, GrowthVerdict, HeapSample, HeapSampling, JavaHeap,
};
pub use java_memory::{JavaMemory, JvmAccount, MemoryCategory, NativeMemory, Tracking};
pub use java_native::JavaNative;
pub use jvm::Jvm;
pub use left_alone::{LeftAlone, LeftAloneCause};
pub use mapping::{MappedFile, Mappings, StackOwners};
pub use originals::{By, Originals};
pub use pages::TouchedPages;
pub use row_number::RowNumber;
pub use sampling::{Errors, Sampler, Sampling};
pub use untraced::{Children, Untraced};

/// The schema name that this version writes. Fields are only ever added
/// within a schema; a change of meaning gets a new name.
pub const SCHEMA: &str = "unfreed/1";

/// One run of the tracer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The version of `unfreed` that wrote this.
    pub version: String,
    /// The kernel's release and version, as `uname` tells them.
    #[serde(default)]
    pub kernel: String,
    /// When the run began, RFC 3339 in UTC.
    pub started: String,
    /// How long was traced, seconds.
    pub duration: f64,
    /// The last search for holders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searched: Option<Searched>,
    /// What was asked for.
    pub settings: Settings,
    /// The processes that were traced. A process that called `exec` is two.
    pub processes: Vec<Process>,
    /// Processes that were to be traced and are not, or no longer, each with its
    /// reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untraced: Vec<Untraced>,
    /// Functions that are not probed, or no longer, because a probe in them
    /// would harm a process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_alone: Vec<LeftAlone>,
    /// Files whose code appears in a stack.
    pub modules: Vec<Module>,
    /// One entry for each process, call path and kind, most live bytes first.
    pub sites: Vec<Site>,
    /// Totals over all sites of memory.
    pub totals: Totals,
    /// How many stacks are whole.
    #[serde(default)]
    pub stacks: Stacks,
    /// What Java virtual machines among the processes told of themselves.
    #[serde(default)]
    pub jvm: Vec<Jvm>,
    /// How the numbers of blocks were estimated (`--sample`); absent if every
    /// allocation was counted. Mappings, handles and threads are exact in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// What a budget did to the run (`--overhead`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetReport>,
    /// Where memory was first touched, in a run within a budget that follows allocations
    /// too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// Totals at each `--interval`, oldest first.
    pub timeline: Vec<TimelinePoint>,
    /// How many blocks from before the run had been freed, at the moments of sites' curves, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older_frees: Vec<OlderFrees>,
    /// What is new since the report before, in reports of `--interval` while a run
    /// goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Every cause of loss, including those that did not occur (count 0).
    pub losses: Vec<Loss>,
    /// What of its names there was no room for.
    #[serde(default, skip_serializing_if = "Shortened::is_nothing")]
    pub shortened: Shortened,
    /// What tracing cost.
    pub overhead: Overhead,
    /// How the heaps of JVMs grew (`--java-heap`), one entry for each JVM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub java_heap: Vec<JavaHeap>,
    /// What JVMs say of their native memory (`--java-heap`), one entry for each
    /// JVM that answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub java_memory: Vec<JavaMemory>,
    /// Buffers, class loaders and stacks of JVMs, as their memory tells them, one entry for
    /// each JVM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub java_native: Vec<JavaNative>,
    /// How the resident sets of processes that run grew, and what explains it, one
    /// entry for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub balance: Vec<Balance>,
    /// The accounts of the control groups that these processes are in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<CgroupBalance>,
    /// The answers, most important first.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// What came, went or changed of the findings since the report before, a sentence each,
    /// in reports of `--interval` while a run goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// What memory there is at most, and how much of it is used.
    #[serde(default)]
    pub limits: Vec<MemoryLimit>,
}

/// What was asked for on the command line, as far as it changes the numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The command line, joined by spaces.
    pub command: String,
    /// Allocations below this many bytes were not traced.
    pub min_size: u64,
    /// Files: only allocations that their code asked for were traced, or that `only` did.
    /// If both are empty, all were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// Functions: see `modules`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Those of both that meant no code in any process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmet: Vec<String>,
    /// Live numbers count only blocks at least this old, seconds.
    pub older_than: f64,
    /// Live numbers of Java virtual machines count only blocks that survived
    /// this many garbage collections.
    #[serde(default)]
    pub survived: u32,
    /// The interval at which allocations were sampled, bytes; 0 if all were counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sample: u64,
    /// Whether pages were followed, and no allocations (`--growth`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub growth: bool,
    /// Whether that is since no process has an allocator that can be probed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub growth_instead: bool,
    /// Whether children were followed.
    pub follow: bool,
    /// Why results were taken at return instructions; empty if they were taken
    /// by return probes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub return_instructions: String,
    /// How many live blocks the kernel map holds.
    pub max_live: u64,
    /// How many sites the kernel map holds.
    pub max_sites: u64,
}

impl Settings {
    /// Whether only those allocations were traced that some code asked for.
    pub fn is_by_caller(&self) -> bool {
        !(self.modules.is_empty() && self.only.is_empty())
    }
}

/// One traced process image: the time between two `exec` calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the tracer's pid namespace.
    pub pid: u32,
    /// The short name (`comm`).
    pub name: String,
    /// Path of the executable as the process sees it.
    pub executable: String,
    /// How the image ended, or that it did not.
    pub end: ProcessEnd,
    /// What `wait` tells of it, if the process exited and the kernel told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Present if the tracer may be to blame for its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspicion: Option<Suspicion>,
    /// When tracing of this image began.
    pub began: f64,
    /// How long its process had run then, seconds; 0 if it began during the run.
    #[serde(default)]
    pub age: f64,
    /// When it ended (the end of the run if it did not).
    pub ended: f64,
    /// The probes placed in it.
    pub probes: Vec<Probe>,
    /// Present if it takes samples of its allocations itself, and its allocators are not
    /// probed because of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// Functions of its allocators that are not probed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<UnseenFunction>,
    /// Present if its children, which are not traced, hold much more memory than
    /// it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<Children>,
    /// How many processes this stands for: with `--follow` all that ran the same
    /// program. The fields above then are of the first, but for `end`, which says
    /// whether any runs.
    #[serde(default = "one")]
    pub processes: u64,
    /// How many of them ran at the end.
    #[serde(default)]
    pub running: u64,
    /// How many mappings it has, if that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mappings: Option<Mappings>,
}

const fn one() -> u64 {
    1
}

/// How a process image ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessEnd {
    /// It still runs.
    Running,
    /// The process exited.
    Exited,
    /// The process replaced itself by `exec`.
    Exec,
}

/// One probe: where an allocator's function is watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The function, `malloc` for example.
    pub function: String,
    /// The file that defines it, as the process sees it.
    pub module: String,
    /// File offset of the probed instruction.
    pub file_offset: u64,
    /// Bytes from the function's first instruction.
    pub displacement: u64,
    /// Why there: the instruction and whether the kernel emulates it.
    pub placement: String,
    /// Where its result is taken; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub result: String,
}

/// A function of an allocator that is not probed: return addresses were to be
/// left alone, and it is not certain where its calls end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnseenFunction {
    /// The function.
    pub function: String,
    /// The file that defines it, as the process sees it.
    pub module: String,
    /// Why it is not certain.
    pub reason: String,
    /// Whether it only hands its calls on to a function that is probed.
    pub seen_elsewhere: bool,
    /// Whether it was said on standard error.
    #[serde(skip)]
    pub was_told: bool,
}

/// A file whose code appears in a stack, at one place in one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Index into [`Report::processes`].
    pub process: usize,
    /// Path as the process sees it, or a pseudo name such as `[vdso]`.
    pub path: String,
    /// First address of the mapping.
    pub start: u64,
    /// First address after the mapping.
    pub end: u64,
    /// File offset of `start`.
    pub file_offset: u64,
    /// GNU build id in hexadecimal, if the file has one.
    pub build_id: Option<String>,
}

/// What kind of memory a site allocates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryKind {
    /// Blocks from malloc and its relatives.
    Heap,
    /// Anonymous mappings made by the program itself, and what it grew by `brk`.
    Mapping,
    /// Mappings of files and of shared memory. Code that a loader maps is none.
    FileMapping,
    /// Stacks of threads, by who started the thread that has or had it last.
    ThreadStack,
    /// Mappings in which a JVM keeps its Java heap.
    JavaHeap,
    /// No memory by itself: global handles of a JVM's native interface, which
    /// keep a Java object or its class (weak ones: a slot) until they are
    /// deleted. They have no bytes and are in no total.
    JniHandle,
    /// No memory that is counted here either: Java threads, from their start
    /// to their end. One that ends with its process counts as alive.
    Thread,
    /// Pages that came into memory (`--growth`): "allocated" is touched for the first
    /// time, "live" is in memory at the end, "freed" is given back. A block is a page of
    /// 4 KiB.
    Page,
}

impl MemoryKind {
    /// Whether it has bytes, and so is part of the totals.
    pub const fn is_memory(self) -> bool {
        !matches!(self, Self::JniHandle | Self::Thread)
    }
}

/// One process and call path, with everything of one kind that it allocated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Number of the site within this report.
    pub id: u64,
    /// Index into [`Report::processes`].
    pub process: usize,
    /// What kind of memory.
    pub kind: MemoryKind,
    /// Bytes allocated during the run and not freed.
    pub live_bytes: u64,
    /// Blocks allocated during the run and not freed.
    pub live_count: u64,
    /// Bytes ever allocated during the run.
    pub allocated_bytes: u64,
    /// Blocks ever allocated during the run.
    pub allocated_count: u64,
    /// Bytes allocated during the run and freed.
    pub freed_bytes: u64,
    /// Blocks allocated during the run and freed.
    pub freed_count: u64,
    /// Age of the oldest live block at the end, seconds.
    pub oldest_age: Option<f64>,
    /// Garbage collections that block survived, in a Java virtual machine
    /// whose probes were watched.
    #[serde(default)]
    pub oldest_survived: Option<u32>,
    /// When the site first allocated.
    pub first_seen: f64,
    /// When the site last allocated.
    pub last_seen: f64,
    /// Lifetimes of freed blocks; empty buckets are left out.
    pub lifetimes: Vec<LifetimeBucket>,
    /// Live blocks by their age at the end (of their process, if it has ended); empty
    /// buckets are left out. With `--older-than` young blocks are not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ages: Vec<LifetimeBucket>,
    /// What was live over time, a site that holds much; at most 64 points.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<CurvePoint>,
    /// What these numbers say of it; absent if they say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The probability that this is right; see [`Judgement`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// The part of a mapping's `live_bytes` that was in memory when it was looked at
    /// last; absent if nobody has looked. Of an allocator's blocks, that part of those of 1 MiB and
    /// more, if there are few; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// The most of it that any look found. Between two looks it may have been more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_peak: Option<u64>,
    /// How many looks found some of it in memory, a second or more apart; of several processes, of
    /// the one that has most.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resident_looks: u32,
    /// How many of them found more than any look before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resident_rises: u32,
    /// The files that it maps, at most 4, those with most bytes first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<MappedFile>,
    /// Its pages, if it is of pages (`--growth`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<TouchedPages>,
    /// Whose its stacks are, if it is of threads' stacks.
    #[serde(default, skip_serializing_if = "StackOwners::is_empty")]
    pub stacks: StackOwners,
    /// Present if the numbers are estimates from a sample (`--sample`): the whole
    /// numbers nearest to them, and their standard errors. Lifetimes are estimated
    /// alike, each bucket for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Errors>,
    /// What became of its blocks that were followed in bursts (`--overhead`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survival: Option<Survival>,
    /// Who holds its live blocks (`--holders`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<Holders>,
    /// The numbers that it had in the kernel: links of holders have these until sites have
    /// ids.
    #[serde(skip)]
    pub indices: Vec<u32>,
    /// Some event of this site was lost: `allocated` numbers are lower bounds
    /// and `live` numbers estimates.
    pub lower_bound: bool,
    /// How many processes hold live blocks of it, or held some when they ended.
    #[serde(default)]
    pub processes: u64,
    /// The part of `live_bytes` that processes held when they ended.
    #[serde(default)]
    pub left_bytes: u64,
    /// What they hold, largest first: each process that runs, and of those that have
    /// ended the largest 64 (`live_bytes` less their sum is what the others left);
    /// empty if there are not several.
    #[serde(default, skip_serializing_if = "is_single")]
    pub shares: Vec<Share>,
    /// What is new of it in the report's window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<SiteWindow>,
    /// The thread that allocated, if they are told apart (`--threads`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<Thread>,
    /// Why the stack ends where it does.
    pub stack_end: StackEnd,
    /// The call path, root first; the allocator's function is last.
    #[serde(deserialize_with = "frames")]
    pub frames: Vec<Frame>,
}

/// Whether a site's process says it all.
fn is_single(shares: &[Share]) -> bool {
    shares.len() < 2
}

/// The time between two reports of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// When it began.
    pub began: f64,
    /// When it ended.
    pub ended: f64,
    /// What is new at all sites of memory together.
    pub sums: SiteWindow,
    /// Bytes in memory of all processes together when it began: a process that
    /// was not there then counts 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resident_start: u64,
    /// The same when it ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resident_end: u64,
}

/// What is new of a site, or of several, in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteWindow {
    /// By how many bytes what is live has grown, or shrunk.
    pub live_bytes: i64,
    /// By how many blocks.
    pub live_count: i64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Blocks allocated.
    pub allocated_count: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Blocks freed.
    pub freed_count: u64,
}

impl SiteWindow {
    /// Adds that of another site.
    pub fn add(&mut self, other: &Self) {
        self.live_bytes += other.live_bytes;
        self.live_count += other.live_count;
        self.allocated_bytes += other.allocated_bytes;
        self.allocated_count += other.allocated_count;
        self.freed_bytes += other.freed_bytes;
        self.freed_count += other.freed_count;
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How many processes that have ended are kept one by one for a call path, the largest.
pub const MAX_ENDED_SHARES: usize = 64;

/// What one process holds of a call path that several have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Process id in the tracer's pid namespace.
    pub pid: u32,
    /// Bytes that it has not freed.
    pub live_bytes: u64,
    /// Blocks that it has not freed.
    pub live_count: u64,
    /// Whether it had ended: then this is what it left.
    pub ended: bool,
}

impl Site {
    /// Bytes of memory that it holds: of what is mapped what is in memory, if that is known, and
    /// else all that is live.
    pub fn held_bytes(&self) -> u64 {
        match self.kind {
            MemoryKind::Heap => self.live_bytes,
            _ => self.resident_bytes.unwrap_or(self.live_bytes),
        }
    }

    /// Whether it is hardly more than one block: a table may be made larger again and again.
    pub const fn may_be_table(&self) -> bool {
        self.live_count < 3 && self.kind.is_memory()
    }

    /// What brings sites into order: those that hold most come first.
    pub fn order(&self) -> impl Ord + use<> {
        let live = (
            self.rank(),
            self.held_bytes(),
            self.live_count,
            self.allocated_bytes,
        );
        std::cmp::Reverse(live)
    }

    /// Adds what processes hold of another site with the same path. One that
    /// has both is one.
    pub fn merge_shares(&mut self, other: &Self) {
        self.left_bytes += other.left_bytes;
        let mut shares = BTreeMap::new();
        for share in self.shares.drain(..).chain(other.shares.iter().copied()) {
            let known = shares.entry((share.ended, share.pid)).or_insert(Share {
                live_bytes: 0,
                live_count: 0,
                ..share
            });
            known.live_bytes += share.live_bytes;
            known.live_count += share.live_count;
        }
        let all = shares.len() as u64;
        self.processes = self.processes.max(other.processes).max(all);
        self.shares = shares.into_values().collect();
        self.shares
            .sort_by_key(|share| std::cmp::Reverse(share.live_bytes));
        let mut ended = 0;
        self.shares.retain(|share| {
            ended += usize::from(share.ended);
            !share.ended || ended <= MAX_ENDED_SHARES
        });
    }
}

/// A thread of a traced process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Thread id in the tracer's pid namespace.
    pub id: u32,
    /// Its name when it was last looked at; empty if it was never known.
    pub name: String,
}

/// How many freed blocks lived for less than `below` and not less than the
/// bucket before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LifetimeBucket {
    /// Upper bound of the lifetime, seconds; `null` for the last, open bucket.
    pub below: Option<f64>,
    /// How many blocks.
    pub count: u64,
}

/// Why a stack ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StackEnd {
    /// The start of the thread: the stack is whole.
    Start,
    /// The unwind table has no row for the last address: code without call
    /// frame information in a file that has some.
    NoRow,
    /// What should be the next return address is none.
    BadReturn,
    /// The limit of 127 frames.
    TooDeep,
    /// The stack memory could not be read.
    Unreadable,
    /// Nothing that can be executed was mapped at the last address.
    NoMapping,
    /// The unwind table of the last address was not loaded yet, or there was
    /// no room for it.
    NoRowYet,
    /// Just-in-time or other code without a table, and no frame pointer to go
    /// by.
    NoFramePointer,
    /// A return probe replaced the next return address, and the kernel did
    /// not give it back.
    Hijacked,
    /// The code's call frame information uses what is not supported.
    Unsupported,
    /// The start of the thread, through just-in-time or other code without a
    /// table by frame pointers: frames in it that have none are missing.
    StartByFramePointers,
    /// An address in a JVM's code cache where no code is known.
    JavaCode,
    /// The rest of a virtual thread's stack is in the Java heap.
    Continuation,
    /// A JVM whose layout is not known.
    JavaLayout,
    /// No path: the sum of those that there was no room to keep apart, and that
    /// had nothing live in processes that ran.
    NotKept,
}

impl StackEnd {
    /// What it means, for people; nothing to say of a whole stack.
    pub fn meaning(self) -> Option<&'static str> {
        match self {
            Self::Start => None,
            Self::NoRow => Some("the code above has no unwind information"),
            Self::BadReturn => Some("the next return address is none"),
            Self::TooDeep => Some("deeper than 127 frames: the root is missing"),
            Self::Unreadable => Some("the stack could not be read further"),
            Self::NoMapping => Some("nothing executable was mapped at this address"),
            Self::NoRowYet => Some("the unwind table of this code was not loaded yet"),
            Self::NoFramePointer => {
                Some("code without unwind information and without frame pointers")
            }
            Self::Hijacked => Some("a return probe hides the next return address"),
            Self::Unsupported => Some("unwind information of a form that is not supported"),
            Self::StartByFramePointers => {
                Some("code without unwind information may hide frames of this stack")
            }
            Self::JavaCode => Some("no code is known at this address of the JVM's code cache"),
            Self::Continuation => {
                Some("the rest of this virtual thread's stack is in the Java heap")
            }
            Self::JavaLayout => Some("the layout of this JVM is not known"),
            Self::NotKept => Some("paths that there was no room to keep apart"),
        }
    }
}

/// One frame of a call path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Demangled function name; `null` if there is none (see `reason`). A generated name
    /// is written without what differs from one to the next (see `originals`).
    pub function: Option<Name>,
    /// Present if `function` is a name that stands for others: what it was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originals: Option<Arc<Originals>>,
    /// Source file.
    pub file: Option<Name>,
    /// Source line.
    pub line: Option<u32>,
    /// Path of the file that the code belongs to, or a pseudo name.
    pub module: Option<Name>,
    /// Offset of the address in that file.
    pub module_offset: Option<u64>,
    /// Absolute address: a return address, or the probed instruction for the
    /// last frame.
    pub address: u64,
    /// Inlined into the frame before it; shares its address.
    pub inlined: bool,
    /// Where the code comes from, for colours.
    pub origin: Origin,
    /// Why there is no name, or no more than a name.
    pub reason: Option<Name>,
}

/// What of names (of functions, files and modules) there was no room for in a
/// report: they are the target's, and may be many and as long as it likes. No
/// number depends on names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortened {
    /// Names that were cut, each counted once.
    pub names: u64,
    /// The length at which all long names were cut, bytes; 0 if only some were,
    /// because there were so many.
    pub length: u64,
    /// Places in the code whose inlined functions were left out.
    pub inlined: u64,
}

impl Shortened {
    /// Whether all names are whole.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a frame's code comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The program's own executable.
    Program,
    /// A shared library.
    Library,
    /// Code compiled at run time (named by a perf map, or by what a JVM told of
    /// code that was freed).
    Jit,
    /// A Java method that the JVM interprets.
    Interpreted,
    /// A Java method that the JVM's first compiler made: quick code, to be
    /// replaced when the method is hot.
    C1,
    /// A Java method that the JVM's optimizing compiler made.
    C2,
    /// A function of Python, which CPython interprets: its line is its first one.
    Python,
    /// A function of JavaScript, which V8 runs: its line is where it begins.
    #[serde(rename = "javascript")]
    JavaScript,
    /// Code that the JVM made for itself, between Java and native code.
    Stub,
    /// Unknown.
    #[default]
    Unknown,
}

impl Origin {
    /// Whether the frame is of a Java method.
    pub const fn is_java(self) -> bool {
        matches!(self, Self::Interpreted | Self::C1 | Self::C2)
    }

    /// Whether the frame is of a function of a script language.
    pub const fn is_script(self) -> bool {
        matches!(self, Self::Python | Self::JavaScript)
    }
}

/// Sums over all sites of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// See [`Site::live_bytes`].
    pub live_bytes: u64,
    /// See [`Site::live_count`].
    pub live_count: u64,
    /// See [`Site::allocated_bytes`].
    pub allocated_bytes: u64,
    /// See [`Site::allocated_count`].
    pub allocated_count: u64,
    /// See [`Site::freed_bytes`].
    pub freed_bytes: u64,
    /// See [`Site::freed_count`].
    pub freed_count: u64,
    /// Frees of blocks that were not traced: allocated before the run, or
    /// below `--min-size`. Normal, not an error. Not counted with `--sample`, `--module`
    /// and `--only`: most would be of blocks that were not chosen.
    pub untraced_frees: u64,
    /// Frees, by a child that is followed, of its copies of blocks that an
    /// ancestor had allocated during the run and still had at the fork. They
    /// are in no site: the ancestor's block is another one.
    #[serde(default)]
    pub inherited_frees: u64,
    /// Blocks that could not be remembered for children, since there was no
    /// room: a child's free of one is among the untraced frees. If this is not
    /// 0, `inherited_frees` is a lower bound.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inherited_forgotten: u64,
    /// Calls of allocators' functions that code made which `--module` and `--only` do not
    /// mean, so that they were not followed; calls that allocators make of themselves are
    /// among them. With `--sample`, of those that were chosen.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub calls_from_elsewhere: u64,
}

impl Totals {
    /// Adds what was allocated, freed and is live somewhere, each as blocks and their
    /// bytes.
    pub fn count(&mut self, allocated: (u64, u64), freed: (u64, u64), live: (u64, u64)) {
        self.allocated_count += allocated.0;
        self.allocated_bytes += allocated.1;
        self.freed_count += freed.0;
        self.freed_bytes += freed.1;
        self.live_count += live.0;
        self.live_bytes += live.1;
    }
}

/// How stacks end, over all allocations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stacks {
    /// Allocations (or mappings) that have a stack.
    pub allocations: u64,
    /// Those whose stack reaches the thread's start.
    pub whole: u64,
    /// How the others end, the most frequent way first.
    pub cut: Vec<CutStacks>,
}

/// Allocations whose stacks end early for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutStacks {
    /// The reason.
    pub end: StackEnd,
    /// How many allocations.
    pub allocations: u64,
}

impl Stacks {
    /// Counts the stacks of sites of memory.
    pub fn of(sites: &[Site]) -> Self {
        Self::count(
            sites
                .iter()
                .filter(|site| site.kind.is_memory())
                .map(|site| (site.stack_end, site.allocated_count)),
        )
    }

    /// Counts stacks: how they end, and for how many allocations.
    pub fn count(ends: impl Iterator<Item = (StackEnd, u64)>) -> Self {
        let mut stacks = Self::default();
        for (end, allocations) in ends {
            stacks.allocations += allocations;
            if end == StackEnd::Start {
                stacks.whole += allocations;
                continue;
            }
            match stacks.cut.iter_mut().find(|cut| cut.end == end) {
                Some(cut) => cut.allocations += allocations,
                None => stacks.cut.push(CutStacks { end, allocations }),
            }
        }
        stacks
            .cut
            .sort_by_key(|cut| std::cmp::Reverse(cut.allocations));
        stacks
    }
}

/// Totals at one moment of the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimelinePoint {
    /// When.
    pub at: f64,
    /// The sums at that moment.
    pub totals: Totals,
}

/// Blocks from before the run that had been freed at one moment of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OlderFrees {
    /// When, seconds from the run's start.
    pub at: f64,
    /// How many, with those below `--min-size`.
    pub count: u64,
}

/// One cause of lost events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Stable name of the cause.
    pub cause: String,
    /// How many events.
    pub count: u64,
    /// What it means and what to do about it.
    pub meaning: String,
}

impl Loss {
    /// The cause of blocks that were freed, and allocated during the run unseen.
    pub const UNSEEN_ALLOCATION: &str = "unseen_allocation";
}

/// Probe hits of one kind, and what one cost the thread that ran into it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HitCost {
    /// `entry`, `free`, `return_probe`, `return_instruction` (which the kernel
    /// single-steps) or `ending_jump`; `stepped_entry` and `stepped_free` are those at
    /// instructions that the kernel single-steps.
    pub kind: String,
    /// How many there were.
    pub count: u64,
    /// How many of them were timed.
    pub timed: u64,
    /// What the kernel takes for one, nanoseconds, calibrated on this machine when the
    /// run began.
    pub trap_nanoseconds: f64,
    /// What the tracer's program takes in it, nanoseconds: the mean of those that were
    /// timed.
    pub program_nanoseconds: f64,
}

/// What tracing cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overhead {
    /// Times a probe ran in a traced process. All of the allocators' are counted; of
    /// JVMs' probes those whose events were.
    pub probe_hits: u64,
    /// Time of a probe hit that is none of `return_hits`, nanoseconds: the mean of the
    /// kinds in `hits`.
    pub nanoseconds_per_hit: f64,
    /// Times a probe at a return instruction ran, which are among
    /// `probe_hits`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub return_hits: u64,
    /// Time per probe hit at a return instruction, nanoseconds.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub nanoseconds_per_return: f64,
    /// The hits by kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hits: Vec<HitCost>,
    /// Whether every system call of every process of the machine had to be looked at,
    /// since the kernel takes no programs at its own functions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_system_calls: bool,
    /// Whether mappings were seen at trace events of single system calls: all others of
    /// every process took longer too, but were not looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub system_call_events: bool,
    /// Hits times nanoseconds, of all kinds, as seconds of the targets'
    /// threads' time; an estimate.
    pub target_seconds: f64,
    /// What that is at least: less by how much calibration varied, and by two standard
    /// errors of the timed hits.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub target_seconds_low: f64,
    /// And at most: more by the same, and by what a target may lose because tracing
    /// takes its place in the processor's caches.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub target_seconds_high: f64,
    /// Kernel memory of the tracer's maps, bytes (computed).
    pub kernel_bytes: u64,
    /// CPU time of the tracer itself, seconds.
    pub tracer_seconds: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_nothing(number: &f64) -> bool {
    *number == 0.0
}

impl Report {
    /// The sites that the totals are of.
    pub fn memory(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(|site| site.kind.is_memory())
    }

    /// Bytes of memory that are held in all: of mappings what is in memory, if that
    /// is known, and else all that is live.
    pub fn held_bytes(&self) -> u64 {
        let empty = |site: &Site| site.live_bytes.saturating_sub(site.held_bytes());
        let empty = self.memory().map(empty);
        self.totals
            .live_bytes
            .saturating_sub(empty.fold(0, u64::saturating_add))
    }

    /// When a process, by its index, or the run ended: seconds from the run's start.
    pub fn ended(&self, process: usize) -> f64 {
        let process = self.processes.get(process);
        process.map_or(self.duration, |it| it.ended.min(self.duration))
    }

    /// The loss causes that occurred.
    pub fn occurred_losses(&self) -> impl Iterator<Item = &Loss> {
        self.losses.iter().filter(|loss| loss.count > 0)
    }
}
