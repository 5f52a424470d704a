//! What there is once on a host, whoever is traced: the loaded programs and their
//! maps, the probes, the watch for new code, and the unwind tables of files.
//!
//! It knows nothing of JVMs and of reports.

pub mod calibrate;
pub mod cost;
mod faults;
mod options;
pub mod preflight;
pub mod traps;

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Context, Result};
use tracer_ebpf::sample::Sampling;
use tracer_ebpf::settings::Settings;

use self::calibrate::Calibration;
use self::cost::Prices;
pub use self::options::Options;
use crate::attach::probes::{Described, Probes};
use crate::kernel::btf::{self, Offsets};
use crate::kernel::footprint::Footprint;
use crate::kernel::link::{Road, cookies};
use crate::kernel::memory;
use crate::kernel::object::{FaultLinks, Object, SystemCalls};
use crate::kernel::program::Programs;
use crate::process::maps::FileId;
use crate::process::watch::CodeWatch;
use crate::tables::{Builder, Tables};

/// Losses that user space notices.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserLosses {
    /// Records of new code that were lost.
    pub code_events: u64,
    /// Allocators that were probed only after they were mapped.
    pub late_allocators: u64,
    /// Files whose code was asked for, and was known only after it was mapped.
    pub late_code: u64,
    /// How often there was no room for what code a process has.
    pub unpublished: u64,
    /// Functions that were not probed, because that would harm a process.
    pub left_alone: u64,
    /// Files whose probes were taken away, because their code was changed.
    pub withdrawn: u64,
    /// Blocks that were live when a sampler was found in their process.
    pub taken_over: u64,
    /// 1 if the kernel cannot trace its system calls, so that mappings are seen at
    /// libc's functions alone.
    pub system_calls: u64,
}

/// The tracer on this host.
pub struct Engine {
    // Dropped in this order: first the probes, then what they use.
    /// The probes, by file and process.
    pub probes: Probes,
    /// The programs that are told of page faults, while they are in place.
    pub faults: Option<FaultLinks>,
    /// The programs and their maps.
    pub object: Object,
    /// New code of all processes.
    pub watch: CodeWatch,
    /// Unwind tables.
    pub tables: Tables,
    /// What was probed, for people.
    pub placed: Vec<Described>,
    /// What was lost in user space.
    pub losses: UserLosses,
    /// What a probe hit costs here, nanoseconds; an estimate.
    pub nanoseconds_per_hit: f64,
    /// What hits of each kind cost here.
    pub prices: Prices,
    /// The count of forks whose children were freed from the probes, and when.
    pub released: (u64, Instant),
    /// Files without an allocator: of a program's own, and as a library.
    pub without_allocator: HashMap<(FileId, bool), Option<&'static str>>,
}

impl Engine {
    /// Loads the kernel side. Nothing is traced yet. `builder` goes on building
    /// unwind tables meanwhile.
    ///
    /// # Errors
    /// Says what the kernel or our privileges lack.
    pub fn load(options: &Options, builder: Builder) -> Result<Self> {
        preflight::check()?;
        // Before any mappings are read, so that nothing falls in between.
        let watch = CodeWatch::open().context("cannot watch for new code")?;
        watch.also_of(builder.news())?;
        let (forced, calls) = (Road::forced()?, SystemCalls::forced()?);
        // Of pages the kernel tells by itself; few probes are placed, if any. Kernels
        // without cookies have no links either.
        let road = match options.growth || !cookies() {
            true => Road::PerfEvents,
            false => Road::Multi,
        };
        let mut object = Object::load(
            &settings(options, &btf::offsets()?),
            options.sizes,
            options.verbose > 1,
            (
                forced.unwrap_or(road),
                forced.is_none() && wants_sessions(options)?,
            ),
        )?;
        let mut losses = UserLosses::default();
        // Before anything is measured: a return probe may be a system call.
        // Where it takes the tracepoints of all system calls, every call of every process
        // would cost more than a budget may allow.
        let attached = match options.growth {
            true => Ok(()),
            false => object.attach_system_calls(calls, options.budget.is_none()),
        };
        losses.system_calls = u64::from(attached.is_err());
        let (calibration, faults) =
            measure(&mut object, options, forced).context("cannot calibrate")?;
        let Calibration {
            nanoseconds_per_hit,
            prices,
            links,
        } = calibration;
        let mut probes = Probes::default();
        probes.keep(links);
        let tables = Tables::new(object.table_maps()?, builder);
        object.attach_lifecycle()?;
        object.replace_programs(options.programs);
        Ok(Self {
            probes,
            faults,
            object,
            watch,
            tables,
            placed: Vec::new(),
            losses,
            nanoseconds_per_hit,
            prices,
            released: (0, Instant::now()),
            without_allocator: HashMap::new(),
        })
    }

    /// Kernel memory of the maps, of which `maps` is said, and of the buffers.
    pub fn footprint(&self, maps: Footprint) -> Footprint {
        let buffers = self.watch.kernel_bytes() as u64;
        Footprint {
            fixed: maps.fixed + buffers,
            bound: maps.bound + buffers,
            ..maps
        }
    }
}

/// The first kernel with session links.
const SESSIONS: (u32, u32) = (6, 13);

/// Whether session links are worth it: where each call is followed, its return is, too,
/// and they cost what other links do.
fn wants_sessions(options: &Options) -> Result<bool> {
    let leaves_out = options.min_size > 0
        || options.sample > 0
        || options.budget.is_some()
        || options.sizes.has_origins;
    let counts = options.programs == Programs::Counting;
    Ok(leaves_out && counts && memory::release()? >= SESSIONS)
}

/// What hits cost here, and the programs that are told of page faults, if these are
/// followed.
fn measure(
    object: &mut Object,
    options: &Options,
    forced: Option<Road>,
) -> Result<(Calibration, Option<FaultLinks>)> {
    if !options.follows_pages() {
        let calibration = calibrate::calibrate(object, &plan(options, forced))?;
        return Ok((calibration, None));
    }
    let faults = faults::calibrate(object)?;
    if options.growth {
        return Ok((faults.alone(object)?, Some(faults.links)));
    }
    // Ours are no calls.
    object.follow_faults(false);
    let mut calibration = calibrate::calibrate(object, &plan(options, forced))?;
    object.follow_faults(true);
    calibration.prices = calibration.prices.with_faults(&faults.traps);
    Ok((calibration, Some(faults.links)))
}

/// How the run will trace allocations.
fn plan(options: &Options, forced: Option<Road>) -> calibrate::Plan {
    calibrate::Plan {
        min_size: options.min_size,
        everyone: options.follow,
        forced,
    }
}

/// What the programs are told before they are verified.
fn settings(options: &Options, offsets: &Offsets) -> Settings {
    Settings {
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
        by_program: u32::from(options.by_program()),
        mapped: offsets.mapped,
        task_ptrace: offsets.ptrace,
        task_parent: offsets.parent,
        task_blocked: offsets.blocked,
        mm_brk: offsets.brk,
        sampling: Sampling::every(options.sample),
        task_no_faults: offsets.no_faults,
        task_stack: offsets.stack,
        budget: u32::from(options.budget.is_some()),
        task_fs: offsets.fs,
        origins: u64::from(options.sizes.has_origins),
    }
}

/// An unpredictable number: the hash of nothing under std's random keys.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
