//! One run of the tracer: load, attach, follow what happens, detach, report.

pub mod assemble;
pub mod attach;
mod balance;
mod budget;
mod children;
mod copied;
mod counted;
mod curves;
mod describe;
mod endings;
mod family;
mod faults;
mod follow;
pub mod giving_up;
mod growth;
mod guard;
mod handle_holders;
mod held;
pub mod hold;
mod holder_names;
pub mod holders;
mod image_paths;
mod inherited;
mod internal_frees;
mod java;
mod java_holders;
mod java_native;
mod java_objects;
pub mod java_samples;
mod jvm_probes;
mod jvm_report;
pub mod jvms;
mod large_blocks;
pub mod launch;
mod left_alone;
mod mappings;
pub mod names;
mod origins;
mod orphans;
mod overhead;
mod own_samples;
mod part;
mod perf_maps;
pub mod preload;
pub mod progress;
mod recycle;
pub mod returns;
mod samplers;
mod script_names;
pub mod seccomp;
pub mod shadow_stack;
pub mod snapshot;
pub mod split;
pub mod stop;
mod sums;
pub mod target;
mod threads;
mod timeline;
mod told_codes;
mod unseen_blocks;
mod usage;
mod watch;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use self::balance::BalanceState;
pub use self::balance::MAX_PROCESSES;
use self::budget::BudgetState;
use self::children::ChildrenState;
use self::counted::Counted;
use self::faults::FaultsState;
use self::growth::GrowthState;
use self::guard::Guard;
use self::held::Held;
use self::holders::HoldersState;
use self::java_native::NativeViews;
use self::jvm_probes::Machines;
use self::jvms::Jvms;
use self::left_alone::Notice;
use self::mappings::Looks;
use self::names::SiteNames;
use self::origins::OriginsState;
use self::perf_maps::PerfMaps;
use self::returns::ReturnsState;
use self::samplers::Samplers;
use self::script_names::ScriptNames;
use self::target::Target;
use self::threads::ThreadNames;
use self::timeline::Timeline;
use self::told_codes::ToldCodes;
use self::unseen_blocks::UnseenBlocks;
use self::usage::Usage;
use crate::engine::{Engine, Options};
use crate::javascript::JavaScriptNames;
use crate::jvm::flight::Flight;
use crate::jvm::heap_watch::HeapWatch;
use crate::kernel::footprint::Footprint;
use crate::kernel::link::Road;
use crate::kernel::object::SystemCalls;
use crate::model::{LeftAlone, Searched, Untraced};
use crate::process::clock::monotonic_ns;
use crate::python::PythonNames;
use crate::tables::Builder;
use crate::targets::images::Images;
use crate::window::curves::Curves;
use crate::window::retired::Retired;
use anyhow::Result;

/// Unwind tables that are not built by then come later.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A run in progress.
pub struct Session {
    /// What there is once on this host. Dropped first: with it the probes go.
    engine: Engine,
    images: Images,
    java: Java,
    threads: ThreadNames,
    options: Options,
    targets: Vec<Target>,
    returns: ReturnsState,
    /// Targets that lost probes with their main thread.
    orphans: HashSet<u32>,
    timeline: Timeline,
    /// Processes whose code the kernel side has not been told of.
    unpublished: Vec<u32>,
    began: (std::time::SystemTime, u64),
    ended: Option<u64>,
    guard: Guard,
    leaving: Leaving,
    /// Call paths whose places in the kernel were given to others.
    retired: Retired,
    /// When room for call paths was looked for, and little was found.
    room_at: Option<Instant>,
    held: Held,
    left_alone: Vec<LeftAlone>,
    noted_copies: copied::Noted,
    /// Processes that could not be traced, or had to be given up.
    untraced: Vec<Untraced>,
    children: ChildrenState,
    balance: BalanceState,
    growth: GrowthState,
    /// If what following allocations costs is bounded.
    budget: Option<BudgetState>,
    /// If what following page faults costs is.
    faults: Option<FaultsState>,
    usage: Usage,
    /// What others took of the targets' processor time, which the budget is charged with,
    /// seconds.
    charged: f64,
    /// Processor time of threads that took probes away.
    helpers: Duration,
    /// Frees that allocators made for themselves in images that are forgotten.
    internal_frees: u64,
    unseen_blocks: UnseenBlocks,
    /// How many ends of children were said.
    ends_said: u64,
    /// What was not said yet on standard error.
    notices: Vec<Notice>,
    /// When mappings were looked at.
    looks: Looks,
    samplers: Samplers,
    origins: OriginsState,
    curves: Curves,
    holders: HoldersState,
    /// What was counted before holders were looked for.
    counted: Option<Counted>,
    /// What that search cost.
    searched: Option<Searched>,
}

/// What is known of Java virtual machines, and of other interpreters' functions.
struct Java {
    jvms: Jvms,
    names: SiteNames,
    pythons: ScriptNames<PythonNames>,
    javascripts: ScriptNames<JavaScriptNames>,
    codes: ToldCodes,
    perf_maps: PerfMaps,
    machines: Machines,
    heaps: Vec<HeapWatch>,
    /// Whether who holds what grows is searched for.
    searches_holders: bool,
    /// The JVMs' own recordings (`--jfr`).
    flights: Vec<Flight>,
    native: NativeViews,
}

impl Java {
    fn new(jvms: Jvms) -> Self {
        Self {
            jvms,
            names: SiteNames::default(),
            pythons: ScriptNames::default(),
            javascripts: ScriptNames::default(),
            codes: ToldCodes::default(),
            perf_maps: PerfMaps::default(),
            machines: Machines::default(),
            heaps: Vec::new(),
            searches_holders: false,
            flights: Vec::new(),
            native: NativeViews::default(),
        }
    }
}

/// Images that have ended.
struct Leaving {
    /// Those that have not left their blocks yet.
    next: Vec<usize>,
    /// When others did last, and how long nobody does from then on.
    at: Instant,
    rest: Duration,
    /// Those that left and are kept: for call paths that are theirs alone, or
    /// for descendants.
    kept: HashSet<usize>,
}

impl Session {
    /// Loads the kernel side. Nothing is traced yet. `builder` goes on
    /// building unwind tables meanwhile.
    ///
    /// # Errors
    /// Says what the kernel or our privileges lack.
    pub fn load(options: Options, builder: Builder) -> Result<Self> {
        let by_program = options.by_program();
        let mut engine = Engine::load(&options, builder)?;
        let jvms = Jvms::new(engine.object.vm_maps()?);
        let mut session = Self {
            engine,
            images: Images::new(by_program),
            java: Java::new(jvms),
            threads: ThreadNames::default(),
            targets: Vec::new(),
            returns: ReturnsState::default(),
            orphans: HashSet::new(),
            timeline: Timeline::default(),
            unpublished: Vec::new(),
            began: (std::time::SystemTime::now(), monotonic_ns()),
            ended: None,
            guard: Guard::default(),
            leaving: Leaving {
                next: Vec::new(),
                at: Instant::now(),
                rest: Duration::ZERO,
                kept: HashSet::new(),
            },
            retired: Retired::new(options.sizes.sites as usize),
            room_at: None,
            held: Held::default(),
            left_alone: Vec::new(),
            noted_copies: copied::Noted::default(),
            untraced: Vec::new(),
            children: ChildrenState::default(),
            balance: BalanceState::default(),
            growth: GrowthState::default(),
            budget: options
                .budget
                .filter(|_| options.has_phases())
                .map(|asked| BudgetState::new(asked, options.sizes.sites)),
            faults: FaultsState::new(&options),
            usage: Usage::default(),
            charged: 0.0,
            helpers: Duration::ZERO,
            internal_frees: 0,
            unseen_blocks: UnseenBlocks::default(),
            ends_said: 0,
            notices: Vec::new(),
            looks: Looks::default(),
            samplers: Samplers::default(),
            origins: OriginsState::new(&options.modules, &options.only),
            curves: Curves::default(),
            holders: HoldersState::default(),
            counted: None,
            searched: None,
            options,
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
        self.check_origins()?;
        // What was lost until now nobody needs: mappings were read since.
        self.engine.losses.code_events = 0;
        self.begin_balance();
        self.began = (std::time::SystemTime::now(), monotonic_ns());
        self.engine.object.set_active(true)?;
        self.begin_budget()?;
        self.begin_faults()?;
        self.begin_children();
        self.java.native.begin(&self.java.jvms);
        self.take_perf_maps();
        Ok(())
    }

    /// A descriptor that is readable when code was mapped, somewhere.
    ///
    /// # Errors
    /// Fails if there are no descriptors left.
    pub fn news(&self) -> Result<OwnedFd> {
        self.engine.watch.news()
    }

    /// Whether all targets have ended.
    pub fn is_over(&self) -> bool {
        self.images.running().next().is_none()
    }

    /// What a probe hit costs here, nanoseconds; an estimate.
    pub fn nanoseconds_per_hit(&self) -> f64 {
        self.engine.nanoseconds_per_hit
    }

    /// Whether the kernel itself tells of mappings, whoever makes them.
    pub fn sees_mappings(&self) -> bool {
        self.engine.object.system_calls() != SystemCalls::None
    }

    /// Where the kernel tells of mappings.
    pub fn system_calls(&self) -> SystemCalls {
        self.engine.object.system_calls()
    }

    /// How the probes are attached.
    pub fn road(&self) -> Road {
        self.engine.object.road()
    }

    /// Kernel memory of the maps and buffers.
    pub fn footprint(&self) -> Footprint {
        self.engine
            .footprint(self.options.sizes.footprint(self.options.follow))
    }

    /// Ends the run: nothing counts any more, and the probes go. What is still
    /// on its way is read.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn detach(&mut self) -> Result<()> {
        self.take_perf_maps();
        self.curves.hasten();
        self.take_curves();
        self.end_budget()?;
        self.end_faults()?;
        self.engine.object.set_active(false)?;
        self.ended = Some(monotonic_ns());
        // Children that were born a moment ago have memory, too.
        self.poll_code()?;
        if self.counted.is_none() {
            self.end_balance();
            self.end_children();
        }
        self.java.native.look(&self.java.jvms);
        self.stop_java_heaps();
        self.poll()?;
        self.wait_for_probes();
        self.engine.probes.detach();
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
    pub fn elapsed(&self) -> f64 {
        self.now().saturating_sub(self.began.1) as f64 / 1e9
    }
}
