//! One run of the tracer: load, attach, follow what happens, detach, report.

pub mod assemble;
pub mod calibrate;
pub mod images;
pub mod launch;
pub mod preflight;
pub mod progress;
pub mod stop;
pub mod target;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tracer_ebpf::event::Event;
use tracer_ebpf::loss::{LossCause, LossCount};
use tracer_ebpf::settings::Settings;
use tracer_ebpf::thread::image_pid;

use self::calibrate::Calibration;
use self::images::{Change, Image, Images};
use self::target::Target;
use crate::allocator::{self, Allocator};
use crate::attach::probes::{Probes, Scope};
use crate::cli::args::TraceArgs;
use crate::kernel::btf;
use crate::kernel::footprint::{Footprint, Sizes};
use crate::kernel::link::Road;
use crate::kernel::object::Object;
use crate::leak::collect::{Cutoff, retire_heaps};
use crate::process::clock::monotonic_ns;
use crate::process::code::CodeMapping;
use crate::process::maps::{FileId, MappingName};
use crate::process::watch::{CodeEvent, CodeWatch};
use crate::report::model::{Probe, ProcessEnd, TimelinePoint, Totals};
use crate::report::names::clean;

/// How often children are freed from probes, at most: the kernel looks into
/// every process that maps the allocator.
const RELEASE: Duration = Duration::from_secs(1);

/// What was asked for, resolved.
#[derive(Debug, Clone)]
pub struct Options {
    /// The command line, for the report.
    pub command: String,
    /// Smallest allocation to trace.
    pub min_size: u64,
    /// Least age of what is reported.
    pub older_than: Duration,
    /// Whether children are traced.
    pub follow: bool,
    /// Sizes of the kernel maps.
    pub sizes: Sizes,
    /// 1: what is probed; 2: the kernel side's log.
    pub verbose: u8,
    /// Whether probes do nothing, for benchmarks.
    pub empty_probes: bool,
}

impl Options {
    /// From the arguments.
    ///
    /// # Errors
    /// Fails if a size is beyond what the kernel's maps can have.
    pub fn new(args: &TraceArgs) -> Result<Self> {
        let sites = u32::try_from(args.max_sites)?;
        if sites > 1 << 20 {
            bail!("--max-sites {sites} is too large: at most 1M");
        }
        Ok(Self {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            min_size: args.min_size,
            older_than: args.older_than.unwrap_or_default(),
            follow: args.follow,
            sizes: Sizes {
                live: u32::try_from(args.max_live)?,
                sites,
            },
            verbose: args.verbose,
            empty_probes: args.empty_probes,
        })
    }
}

impl Options {
    /// The least that loads.
    pub fn smallest() -> Self {
        Self {
            command: String::new(),
            min_size: 0,
            older_than: Duration::ZERO,
            follow: false,
            sizes: Sizes {
                live: 1024,
                sites: 16,
            },
            verbose: 0,
            empty_probes: false,
        }
    }
}

/// Losses that user space notices.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserLosses {
    /// Records of new code that were lost.
    pub code_events: u64,
    /// Allocators that were probed only after they were mapped.
    pub late_allocators: u64,
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
    options: Options,
    targets: Vec<Target>,
    placed: Vec<Placed>,
    losses: UserLosses,
    timeline: Vec<TimelinePoint>,
    nanoseconds_per_hit: f64,
    began: (std::time::SystemTime, u64),
    ended: Option<u64>,
    /// The count of forks whose children were freed from the probes, and when.
    released: (u64, Instant),
}

impl Session {
    /// Loads the kernel side. Nothing is traced yet.
    ///
    /// # Errors
    /// Says what the kernel or our privileges lack.
    pub fn load(options: Options) -> Result<Self> {
        preflight::check()?;
        // Before any mappings are read, so that nothing falls in between.
        let watch = CodeWatch::open().context("cannot watch for new code")?;
        let offsets = btf::task_offsets()?;
        let settings = Settings {
            min_size: options.min_size,
            hash_seed: seed(),
            task_pid: offsets.pid,
            task_tgid: offsets.tgid,
            task_mm: offsets.mm,
            task_utask: offsets.utask,
            follow: u32::from(options.follow),
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
        object.attach_lifecycle()?;
        if options.empty_probes {
            object.use_empty_programs();
        }
        Ok(Self {
            probes,
            object,
            watch,
            images: Images::default(),
            options,
            targets: Vec::new(),
            placed: Vec::new(),
            losses: UserLosses::default(),
            timeline: Vec::new(),
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
        self.began = (std::time::SystemTime::now(), monotonic_ns());
        self.object.set_active(true)
    }

    /// Begins to trace a live process.
    ///
    /// # Errors
    /// Says why it cannot be traced; for one without an allocator, what was
    /// looked for and where.
    pub fn attach(&mut self, target: Target) -> Result<()> {
        let pid = target.pid;
        self.admit(target)?;
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

    /// Reads what happened since the last call.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn poll(&mut self) -> Result<()> {
        self.object.flush_log();
        self.release_children();
        self.drain_code()?;
        self.drain_events()?;
        let gone: Vec<_> = self
            .images
            .running()
            .filter(|index| !self.is_alive(*index))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        // Their last events, which may say that an image was replaced.
        self.drain_code()?;
        self.drain_events()?;
        self.note_exits(&gone)
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
        footprint.fixed += self.watch.kernel_bytes() as u64;
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
        self.object.set_active(false)?;
        self.ended = Some(monotonic_ns());
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

    /// Frees children that were forked since the last time from the probes.
    fn release_children(&mut self) {
        let forks = self.object.forks.get(0).unwrap_or(0);
        let (known, at) = self.released;
        if self.object.road() == Road::Multi && forks != known && at.elapsed() >= RELEASE {
            self.probes.release_children(&mut self.object);
            self.released = (forks, Instant::now());
        }
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

    fn drain_code(&mut self) -> Result<()> {
        let mut changes = Vec::new();
        let (images, follow, losses) = (&mut self.images, self.options.follow, &mut self.losses);
        self.watch.drain(&mut |event| {
            if let CodeEvent::Lost { count, .. } = event {
                losses.code_events += count;
            }
            changes.push(images.apply_code(event, follow));
        });
        let mut pids: Vec<u32> = changes
            .into_iter()
            .filter_map(|change| {
                if let Change::NewCode(pid) = change {
                    Some(pid)
                } else {
                    None
                }
            })
            .collect();
        pids.sort_unstable();
        pids.dedup();
        for pid in pids {
            self.probe_new_code(pid)?;
        }
        Ok(())
    }

    /// Probes allocators that a process mapped after it was attached.
    fn probe_new_code(&mut self, pid: u32) -> Result<()> {
        let scope = self.scope(pid);
        let Some(code) = self.images.current_code(pid) else {
            return Ok(());
        };
        let unknown = |mapping: &&CodeMapping| {
            mapping
                .file
                .as_ref()
                .is_ok_and(|file| !self.probes.cover(scope, file.mapped))
        };
        let found: Vec<Allocator> = code
            .current()
            .filter(unknown)
            .filter_map(|mapping| {
                let file = mapping.file.as_ref().ok()?;
                allocator::in_file(file, &mapping.display_name(), code.is_program(mapping)).ok()?
            })
            .collect();
        for allocator in found {
            if self.probes.cover(scope, allocator.file.mapped) {
                continue;
            }
            match self.probe(pid, &allocator) {
                Ok(()) => self.losses.late_allocators += 1,
                // The process may be gone by now.
                Err(error) if self.targets.iter().any(|t| t.pid == pid && t.is_alive()) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn drain_events(&mut self) -> Result<()> {
        let mut replaced = Vec::new();
        let mut orphaned = Vec::new();
        while let Some(item) = self.object.events.next() {
            let Some(event) = tracer_ebpf::read_record::<Event>(&item) else {
                continue;
            };
            if let Change::Replaced { index, by_thread } = self.images.apply(&event) {
                replaced.push(index);
                if by_thread {
                    orphaned.push(image_pid(event.other));
                }
            }
        }
        for pid in orphaned {
            self.probe_again(pid)?;
        }
        if replaced.is_empty() {
            Ok(())
        } else {
            self.retire(&replaced)
        }
    }

    /// Probes a process whose probes went with its first thread. What it
    /// allocated meanwhile is lost.
    fn probe_again(&mut self, pid: u32) -> Result<()> {
        let scope = self.scope(pid);
        if scope == Scope::Everyone {
            return Ok(());
        }
        self.losses.late_allocators += 1;
        self.probes.uncover(scope);
        self.probe_new_code(pid)
    }

    fn is_alive(&self, index: usize) -> bool {
        let Some(image) = self.images.iter().nth(index) else {
            return false;
        };
        match self.targets.iter().find(|target| target.pid == image.pid) {
            Some(target) => target.is_alive(),
            None => Target::find(image.pid).is_ok(),
        }
    }

    fn note_exits(&mut self, gone: &[usize]) -> Result<()> {
        let running: Vec<_> = self
            .images
            .running()
            .filter(|index| gone.contains(index))
            .collect();
        for index in &running {
            let time = self.images.exit_time(*index).unwrap_or_else(|| self.now());
            self.images.end(*index, time, ProcessEnd::Exited);
            if let Some(image) = self.images.iter().nth(*index) {
                self.object.dismiss(image.pid, image.id);
            }
        }
        self.retire(&running)
    }

    /// Remembers the ages of what was live when images ended, and frees their
    /// places in the kernel's map.
    fn retire(&mut self, ended: &[usize]) -> Result<()> {
        let unseen = ended
            .iter()
            .filter(|index| self.may_have_hidden_allocator(**index))
            .count();
        self.losses.late_allocators += unseen as u64;
        let with_heap: HashSet<u64> = self
            .object
            .used_sites()
            .filter(|(_, site)| site.live_count() > 0)
            .map(|(_, site)| site.image)
            .collect();
        let ended: HashMap<u64, Cutoff> = ended
            .iter()
            .filter_map(|index| self.images.iter().nth(*index))
            .filter(|image| with_heap.contains(&image.id))
            .filter_map(|image| Some((image.id, self.cutoff(image.ended?.0))))
            .collect();
        if ended.is_empty() {
            return Ok(());
        }
        for (id, ages) in retire_heaps(&self.object, &ended)? {
            if let Some(image) = self
                .images
                .index_of(id)
                .and_then(|at| self.images.get_mut(at))
            {
                image.last_live = Some(ages);
            }
        }
        Ok(())
    }

    /// Whether an image ended before its files could be looked at, and none of
    /// those that could is probed.
    fn may_have_hidden_allocator(&self, index: usize) -> bool {
        let Some(image) = self.images.iter().nth(index) else {
            return false;
        };
        let Some(code) = self.images.code(image) else {
            return false;
        };
        let scope = self.scope(image.pid);
        let is_probed = |file| self.probes.cover(scope, file);
        let is_file = |name: &MappingName| matches!(name, MappingName::File(_));
        !code.current().any(|mapping| is_probed(mapping.range.file))
            && code
                .current()
                .any(|mapping| is_file(&mapping.range.name) && mapping.file.is_err())
    }

    fn cutoff(&self, end: u64) -> Cutoff {
        let age = u64::try_from(self.options.older_than.as_nanos()).unwrap_or(u64::MAX);
        Cutoff {
            born_by: end.saturating_sub(age),
            asked: age > 0,
        }
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
