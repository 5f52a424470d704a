//! One run of the tracer: load, attach, follow what happens, detach, report.

pub mod assemble;
mod attach;
pub mod calibrate;
mod children;
mod describe;
mod endings;
mod family;
mod follow;
pub mod giving_up;
mod guard;
mod held;
pub mod hold;
mod inherited;
mod internal_frees;
mod java;
mod java_native;
mod java_objects;
pub mod java_samples;
mod jvm_probes;
mod jvm_report;
pub mod jvms;
pub mod launch;
mod left_alone;
pub mod names;
mod options;
mod orphans;
pub mod paths;
mod perf_maps;
pub mod preflight;
pub mod progress;
mod recycle;
pub mod returns;
pub mod seccomp;
pub mod shadow_stack;
pub mod snapshot;
pub mod stop;
mod sums;
pub mod target;
mod threads;
mod timeline;
mod told_codes;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tracer_ebpf::settings::Settings;

use self::calibrate::Calibration;
use self::children::ChildrenState;
use self::guard::Guard;
use self::held::Held;
use self::java_native::NativeViews;
use self::jvm_probes::Machines;
use self::jvms::Jvms;
use self::left_alone::Notice;
use self::names::SiteNames;
pub use self::options::Options;
use self::perf_maps::PerfMaps;
use self::returns::ReturnsState;
use self::target::Target;
use self::threads::ThreadNames;
use self::timeline::Timeline;
use self::told_codes::ToldCodes;
use crate::attach::probes::{Described, Probes};
use crate::jvm::heap_watch::HeapWatch;
use crate::kernel::btf;
use crate::kernel::footprint::Footprint;
use crate::kernel::link::Road;
use crate::kernel::object::Object;
use crate::model::{LeftAlone, Untraced};
use crate::process::clock::monotonic_ns;
use crate::process::maps::FileId;
use crate::process::watch::CodeWatch;
use crate::tables::{Builder, Tables};
use crate::targets::images::Images;
use crate::window::retired::Retired;

/// Unwind tables that are not built by then come later.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Losses that user space notices.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserLosses {
    /// Records of new code that were lost.
    pub code_events: u64,
    /// Allocators that were probed only after they were mapped.
    pub late_allocators: u64,
    /// How often there was no room for what code a process has.
    pub unpublished: u64,
    /// Functions that were not probed, because that would harm a process.
    pub left_alone: u64,
    /// Files whose probes were taken away, because their code was changed.
    pub withdrawn: u64,
}

/// A run in progress.
pub struct Session {
    // Dropped in this order: first the probes, then what they use.
    probes: Probes,
    object: Object,
    watch: CodeWatch,
    images: Images,
    tables: Tables,
    jvms: Jvms,
    names: SiteNames,
    codes: ToldCodes,
    perf_maps: PerfMaps,
    threads: ThreadNames,
    options: Options,
    targets: Vec<Target>,
    placed: Vec<Described>,
    returns: ReturnsState,
    losses: UserLosses,
    /// Targets that lost probes with their main thread.
    orphans: HashSet<u32>,
    machines: Machines,
    timeline: Timeline,
    java_heaps: Vec<HeapWatch>,
    native: NativeViews,
    /// Processes whose code the kernel side has not been told of.
    unpublished: Vec<u32>,
    nanoseconds_per_hit: f64,
    began: (std::time::SystemTime, u64),
    ended: Option<u64>,
    /// The count of forks whose children were freed from the probes, and when.
    released: (u64, Instant),
    guard: Guard,
    /// Images that ended and have not left their blocks yet, and when others did
    /// last.
    leaving: Vec<usize>,
    left_at: Instant,
    /// Images that left and were kept for call paths that are theirs alone.
    left_behind: HashSet<usize>,
    retired: Retired,
    /// When room for call paths was looked for, and little was found.
    room_at: Instant,
    held: Held,
    left_alone: Vec<LeftAlone>,
    /// Processes that could not be traced, or had to be given up.
    untraced: Vec<Untraced>,
    children: ChildrenState,
    /// Files without an allocator: of a program's own, and as a library.
    without_allocator: HashSet<(FileId, bool)>,
    /// Frees that allocators made for themselves in images that are forgotten.
    internal_frees: u64,
    /// How many ends of children were said.
    ends_said: u64,
    /// What was not said yet on standard error.
    notices: Vec<Notice>,
}

impl Session {
    /// Loads the kernel side. Nothing is traced yet. `builder` goes on
    /// building unwind tables meanwhile.
    ///
    /// # Errors
    /// Says what the kernel or our privileges lack.
    pub fn load(options: Options, builder: Builder) -> Result<Self> {
        preflight::check()?;
        // Before any mappings are read, so that nothing falls in between.
        let watch = CodeWatch::open().context("cannot watch for new code")?;
        watch.also_of(builder.news())?;
        let offsets = btf::offsets()?;
        let by_program = options.by_program();
        let retired = Retired::new(options.sizes.sites as usize);
        let settings = Settings {
            min_size: options.min_size,
            hash_seed: seed(),
            task_tgid: offsets.tgid,
            task_mm: offsets.mm,
            task_utask: offsets.utask,
            follow: u32::from(options.follow),
            hijack: offsets.hijack,
            unmapped_length: offsets.unmapped_length,
            threads: u32::from(options.threads),
            task_pid: offsets.pid,
            task_signal: offsets.signal,
            signal_flags: offsets.signal_flags,
            signal_live: offsets.signal_live,
            signal_exit_code: offsets.signal_exit_code,
            task_exit_code: offsets.exit_code,
            task_leader: offsets.leader,
            by_program: u32::from(by_program),
            mapped: offsets.mapped,
            task_ptrace: offsets.ptrace,
            task_parent: offsets.parent,
            task_blocked: offsets.blocked,
            padding: 0,
        };
        let forced = Road::forced()?;
        let mut object = Object::load(
            &settings,
            options.sizes,
            options.verbose > 1,
            forced.unwrap_or(Road::Multi),
        )?;
        let plan = calibrate::Plan {
            min_size: options.min_size,
            everyone: options.follow,
            forced,
        };
        let Calibration {
            nanoseconds_per_hit,
            links,
        } = calibrate::calibrate(&mut object, &plan).context("cannot calibrate")?;
        let mut probes = Probes::default();
        probes.keep(links);
        let tables = Tables::new(object.table_maps()?, builder);
        let jvms = Jvms::new(object.vm_maps()?);
        object.attach_lifecycle()?;
        object.replace_programs(options.programs);
        let mut session = Self {
            probes,
            object,
            watch,
            images: Images::new(by_program),
            tables,
            jvms,
            names: SiteNames::default(),
            codes: ToldCodes::default(),
            perf_maps: PerfMaps::default(),
            threads: ThreadNames::default(),
            options,
            targets: Vec::new(),
            placed: Vec::new(),
            returns: ReturnsState::default(),
            losses: UserLosses::default(),
            orphans: HashSet::new(),
            machines: Machines::default(),
            timeline: Timeline::default(),
            java_heaps: Vec::new(),
            native: NativeViews::default(),
            unpublished: Vec::new(),
            nanoseconds_per_hit,
            began: (std::time::SystemTime::now(), monotonic_ns()),
            ended: None,
            released: (0, Instant::now()),
            guard: Guard::default(),
            leaving: Vec::new(),
            left_at: Instant::now(),
            left_behind: HashSet::new(),
            retired,
            room_at: Instant::now(),
            held: Held::default(),
            left_alone: Vec::new(),
            untraced: Vec::new(),
            children: ChildrenState::default(),
            without_allocator: HashSet::new(),
            internal_frees: 0,
            ends_said: 0,
            notices: Vec::new(),
        };
        session.begin_returns()?;
        Ok(session)
    }

    /// Lets events count from now on: all probes are in place.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn start(&mut self) -> Result<()> {
        self.settle_code(PATIENCE)?;
        self.began = (std::time::SystemTime::now(), monotonic_ns());
        self.object.set_active(true)?;
        self.begin_children();
        self.native.begin(&self.jvms);
        self.take_perf_maps();
        Ok(())
    }

    /// A descriptor that is readable when code was mapped, somewhere.
    ///
    /// # Errors
    /// Fails if there are no descriptors left.
    pub fn news(&self) -> Result<OwnedFd> {
        self.watch.news()
    }

    /// Whether all targets have ended.
    pub fn is_over(&self) -> bool {
        self.images.running().next().is_none()
    }

    /// What a probe hit costs here, nanoseconds; an estimate.
    pub fn nanoseconds_per_hit(&self) -> f64 {
        self.nanoseconds_per_hit
    }

    /// How the probes are attached.
    pub fn road(&self) -> Road {
        self.object.road()
    }

    /// Kernel memory of the maps and buffers.
    pub fn footprint(&self) -> Footprint {
        let mut footprint = self.options.sizes.footprint(self.options.follow);
        let buffers = self.watch.kernel_bytes() as u64;
        footprint.fixed += buffers;
        footprint.bound += buffers;
        footprint
    }

    /// Ends the run: nothing counts any more, and the probes go. What is still
    /// on its way is read.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn detach(&mut self) -> Result<()> {
        self.take_perf_maps();
        self.object.set_active(false)?;
        self.ended = Some(monotonic_ns());
        self.end_children();
        self.native.look(&self.jvms);
        self.stop_java_heaps();
        self.poll()?;
        self.probes.detach();
        self.poll()?;
        self.images.finish_ledgers();
        self.settle_ended(true)?;
        // An exec whose code was noticed only in between.
        self.drain_code()
    }

    /// The end of the run, or now; nanoseconds of `CLOCK_MONOTONIC`.
    fn now(&self) -> u64 {
        self.ended.unwrap_or_else(monotonic_ns)
    }

    /// Seconds of tracing.
    fn elapsed(&self) -> f64 {
        self.now().saturating_sub(self.began.1) as f64 / 1e9
    }
}

/// An unpredictable number: the hash of nothing under std's random keys.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
