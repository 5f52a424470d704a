//! One run of the tracer: load, attach, follow what happens, detach, report.

pub mod assemble;
pub mod calibrate;
mod follow;
pub mod hold;
pub mod images;
mod java;
mod java_objects;
mod java_samples;
mod jvm_probes;
mod jvm_report;
pub mod jvms;
pub mod launch;
pub mod names;
mod options;
pub mod paths;
mod perf_maps;
pub mod preflight;
pub mod progress;
pub mod stop;
pub mod target;
mod threads;
mod told_codes;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tracer_ebpf::loss::{LossCause, LossCount};
use tracer_ebpf::settings::Settings;

use self::calibrate::Calibration;
use self::images::{Image, Images};
use self::jvm_probes::Machines;
use self::jvms::Jvms;
use self::names::SiteNames;
pub use self::options::Options;
use self::perf_maps::PerfMaps;
use self::target::Target;
use self::threads::ThreadNames;
use self::told_codes::ToldCodes;
use crate::allocator::{self, Allocator};
use crate::attach::probes::{Probes, Scope};
use crate::jvm::heap_watch::HeapWatch;
use crate::kernel::btf;
use crate::kernel::footprint::Footprint;
use crate::kernel::link::Road;
use crate::kernel::object::Object;
use crate::leak::collect::Cutoff;
use crate::process::clock::monotonic_ns;
use crate::process::maps::FileId;
use crate::process::watch::CodeWatch;
use crate::report::model::{Probe, TimelinePoint, Totals};
use crate::report::names::clean;
use crate::tables::{Builder, Tables};

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
}

/// The probes of one file.
struct Placed {
    scope: Scope,
    file: FileId,
    probes: Vec<Probe>,
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
    placed: Vec<Placed>,
    losses: UserLosses,
    machines: Machines,
    timeline: Vec<TimelinePoint>,
    java_heaps: Vec<HeapWatch>,
    /// Processes whose code the kernel side has not been told of.
    unpublished: Vec<u32>,
    nanoseconds_per_hit: f64,
    began: (std::time::SystemTime, u64),
    ended: Option<u64>,
    /// The count of forks whose children were freed from the probes, and when.
    released: (u64, Instant),
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
        let offsets = btf::offsets()?;
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
        object.use_programs(options.programs);
        Ok(Self {
            probes,
            object,
            watch,
            images: Images::default(),
            tables,
            jvms,
            names: SiteNames::default(),
            codes: ToldCodes::default(),
            perf_maps: PerfMaps::default(),
            threads: ThreadNames::default(),
            options,
            targets: Vec::new(),
            placed: Vec::new(),
            losses: UserLosses::default(),
            machines: Machines::default(),
            timeline: Vec::new(),
            java_heaps: Vec::new(),
            unpublished: Vec::new(),
            nanoseconds_per_hit,
            began: (std::time::SystemTime::now(), monotonic_ns()),
            ended: None,
            released: (0, Instant::now()),
        })
    }

    /// Lets events count from now on: all probes are in place.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn start(&mut self) -> Result<()> {
        self.settle_code(PATIENCE)?;
        self.began = (std::time::SystemTime::now(), monotonic_ns());
        self.object.set_active(true)?;
        self.take_perf_maps();
        Ok(())
    }

    /// Begins to trace a live process.
    ///
    /// # Errors
    /// Says why it cannot be traced; for one without an allocator, what was
    /// looked for and where.
    pub fn attach(&mut self, target: Target) -> Result<()> {
        let pid = target.pid;
        self.admit(target)?;
        self.unpublished.push(pid);
        let code = self
            .images
            .current_code(pid)
            .context("the process is gone")?;
        let (allocators, searched) = allocator::find(code);
        if allocators.is_empty() {
            let files: Vec<_> = searched
                .iter()
                .map(|file| match &file.problem {
                    Some(problem) => format!("  {}: {problem}", file.path),
                    None => format!("  {}", file.path),
                })
                .collect();
            bail!(
                "process {pid} has no allocator to probe: looked for {} among its files:\n{}\na program that is linked statically needs its symbol table (do not strip it)",
                allocator::LOOKED_FOR,
                files.join("\n")
            );
        }
        for allocator in allocators {
            self.probe(pid, &allocator)?;
        }
        self.machines.look_at(&[pid]);
        self.probe_machines();
        if self.options.survived > 0 {
            self.check_survived(pid)?;
        }
        Ok(())
    }

    /// Begins to trace a process of our own that waits to call `exec`:
    /// `allocators` are those that its program will map.
    ///
    /// # Errors
    /// Fails if a probe cannot be placed.
    pub fn attach_waiting(
        &mut self,
        target: Target,
        name: String,
        allocators: &[Allocator],
    ) -> Result<()> {
        let pid = target.pid;
        self.admit(target)?;
        self.images.rename(pid, name);
        for allocator in allocators {
            self.probe(pid, allocator)?;
        }
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

    /// One line for each target: who, and where it is probed.
    pub fn describe(&self) -> Vec<String> {
        let describe = |image: &Image| {
            let probes = self.probes_of(image.pid, |_| true);
            let mut modules: Vec<_> = probes.iter().map(|probe| probe.module.as_str()).collect();
            modules.dedup();
            let name = clean(self.images.name(image));
            if probes.is_empty() {
                return format!(
                    "{} ({name}): its allocator is probed when it is mapped",
                    image.pid
                );
            }
            let modules = modules.join(", ");
            format!(
                "{} ({name}): {} functions in {}",
                image.pid,
                probes.len(),
                clean(&modules)
            )
        };
        self.images.iter().map(describe).collect()
    }

    /// Each probe, for `-v`.
    pub fn describe_probes(&self) -> Vec<String> {
        let describe = |probe: &Probe| {
            let module = clean(&probe.module);
            format!(
                "{:>16} at {module}+{:#x}, {}",
                probe.function, probe.file_offset, probe.placement
            )
        };
        self.placed
            .iter()
            .flat_map(|placed| &placed.probes)
            .map(describe)
            .collect()
    }

    /// Each unwind table, for `-v`.
    pub fn describe_tables(&self) -> Vec<String> {
        self.tables.describe()
    }

    /// The probes that fire in a process, in files that `is_mapped`.
    fn probes_of(&self, pid: u32, is_mapped: impl Fn(FileId) -> bool) -> Vec<Probe> {
        self.placed
            .iter()
            .filter(|placed| placed.scope == self.scope(pid) && is_mapped(placed.file))
            .flat_map(|placed| placed.probes.clone())
            .collect()
    }

    /// Kernel memory of the maps and buffers.
    pub fn footprint(&self) -> Footprint {
        let mut footprint = self.options.sizes.footprint();
        let buffers = self.watch.kernel_bytes() as u64;
        footprint.fixed += buffers;
        footprint.bound += buffers;
        footprint
    }

    /// Sums over all sites now.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            untraced_frees: self.object.untraced_frees.get(0).unwrap_or(0),
            ..Totals::default()
        };
        for (_, site) in self.object.used_sites() {
            if self.images.index_of(site.image).is_none() {
                continue;
            }
            totals.live_bytes += site.live_bytes();
            totals.live_count += site.live_count();
            totals.allocated_bytes += site.allocated_bytes;
            totals.allocated_count += site.allocated_count;
            totals.freed_bytes += site.freed_bytes;
            totals.freed_count += site.freed_count;
        }
        for (_, sums) in self.images.iter().flat_map(|image| image.ledger.sums()) {
            totals.live_bytes += sums.allocated_bytes - sums.freed_bytes;
            totals.live_count += sums.allocated_count - sums.freed_count;
            totals.allocated_bytes += sums.allocated_bytes;
            totals.allocated_count += sums.allocated_count;
            totals.freed_bytes += sums.freed_bytes;
            totals.freed_count += sums.freed_count;
        }
        totals
    }

    /// How many call paths there are, and how many events were lost.
    pub fn sites_and_losses(&self) -> (usize, u64) {
        let lost: u64 = self
            .object
            .losses
            .iter()
            .map(|(_, count)| count.events)
            .sum();
        (
            self.object.used_sites().count(),
            lost + self.losses.code_events,
        )
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
        self.stop_java_heaps();
        self.poll()?;
        self.probes.detach();
        self.poll()?;
        self.images.finish_ledgers();
        // An exec whose code was noticed only in between.
        self.drain_code()
    }

    /// Remembers the totals of this moment.
    pub fn mark(&mut self) {
        let point = TimelinePoint {
            at: self.elapsed(),
            totals: self.totals(),
        };
        self.timeline.push(point);
    }

    /// The end of the run, or now; nanoseconds of `CLOCK_MONOTONIC`.
    fn now(&self) -> u64 {
        self.ended.unwrap_or_else(monotonic_ns)
    }

    /// Seconds of tracing.
    fn elapsed(&self) -> f64 {
        self.now().saturating_sub(self.began.1) as f64 / 1e9
    }

    fn scope(&self, pid: u32) -> Scope {
        if self.options.follow {
            Scope::Everyone
        } else {
            Scope::Process(pid)
        }
    }

    fn admit(&mut self, target: Target) -> Result<()> {
        let time = monotonic_ns();
        let image = self.object.admit(target.pid, time)?;
        self.images.attach(target.pid, image, time)?;
        if !target.is_alive() {
            bail!("process {} ended while it was being attached", target.pid);
        }
        self.targets.push(target);
        Ok(())
    }

    fn probe(&mut self, pid: u32, allocator: &Allocator) -> Result<()> {
        let scope = self.scope(pid);
        if self.probes.cover(scope, allocator.file.mapped) {
            return Ok(());
        }
        let probes = self.probes.attach(&mut self.object, allocator, scope)?;
        self.placed.push(Placed {
            scope,
            file: allocator.file.mapped,
            probes,
        });
        Ok(())
    }

    /// Which blocks count at an image's end. `--survived` is about virtual
    /// machines; of other processes it leaves nothing out.
    fn cutoff(&self, image: u64, end: u64) -> Cutoff {
        let age = u64::try_from(self.options.older_than.as_nanos()).unwrap_or(u64::MAX);
        let mut cutoff = Cutoff {
            born_by: end.saturating_sub(age),
            asked: age > 0,
        };
        if self.options.survived > 0
            && let Some(machine) = self.machines.get(image)
        {
            let collections = &machine.events.collections;
            let born_by = collections.born_by(self.options.survived, end);
            cutoff.born_by = cutoff.born_by.min(born_by);
            cutoff.asked = true;
        }
        cutoff
    }

    /// Lost events by cause.
    fn kernel_losses(&self) -> impl Iterator<Item = (LossCause, LossCount)> + '_ {
        LossCause::ALL.into_iter().map(|cause| {
            (
                cause,
                self.object.losses.get(cause as u32).unwrap_or_default(),
            )
        })
    }
}

/// An unpredictable number: the hash of nothing under std's random keys.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
