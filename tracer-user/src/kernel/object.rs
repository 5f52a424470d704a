//! The loaded BPF object: its programs, and typed access to its maps.

mod arenas;
mod attach;
mod call_events;
mod costs;
mod faults;
mod misses;
mod pages;
mod phase;
mod sites;
mod system_calls;

use self::arenas::ArenaMaps;
pub use self::faults::FaultLinks;
use self::phase::PhaseMaps;
pub use self::system_calls::SystemCalls;

use std::borrow::Cow;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use anyhow::{Context, Result, anyhow};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, Queue, RingBuf};
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use tracer_ebpf::as_bytes;
use tracer_ebpf::block::{Block, BlockKey, Caller, OTHERS};
use tracer_ebpf::held;
use tracer_ebpf::hits::{Cost, KINDS};
use tracer_ebpf::java;
use tracer_ebpf::limits::{MAX_FILES, MAX_PROCESSES, MAX_RANGES, MAX_RULES, MAX_SPACES};
use tracer_ebpf::loss::{LOSS_CAUSES, LossCount};
use tracer_ebpf::memo::MEMO_THREADS;
use tracer_ebpf::origin::Origin;
use tracer_ebpf::sample::{SampledSite, Sampling, filter_slot};
use tracer_ebpf::settings::{RETURN_INSTRUCTIONS, RETURN_PROBES, SESSIONS, Settings};
use tracer_ebpf::site::{NO_SITE, Site, SiteKind};
use tracer_ebpf::stated::MAX_SAMPLERS;
use tracer_ebpf::table::cached;
use tracer_ebpf::thread::{InFlight, Process, image_id};

use super::batch;
use super::btf;
use super::footprint::Sizes;
use super::freed_since::FreedSinceMap;
use super::link::Road;
use super::mapped::MappedArray;
use super::memory::{ON_DEMAND, preallocate};
use super::multi::{Links, MultiPrograms};
use super::origins::{OriginMaps, lists};
use super::program::Programs;
use super::samplers::SamplerMaps;
use super::tables::TableMaps;
use super::tracepoints::Tracepoints;
use super::usdt::UsdtMaps;
use super::vms::VmMaps;

/// Only if the key is not there yet (`linux/bpf.h`).
const BPF_NOEXIST: u64 = 1;

/// The compiled programs, aligned as the ELF reader wants them: those for all
/// kernels.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("UNFREED_BPF_OBJECT"));

/// The same for kernels that have `bpf_find_vma`.
static OBJECT_FIND_VMA: &[u8] = aya::include_bytes_aligned!(env!("UNFREED_BPF_OBJECT_FIND_VMA"));

/// What the running kernel can take.
fn compiled() -> Result<&'static [u8]> {
    Ok(if btf::has_find_vma()? {
        OBJECT_FIND_VMA
    } else {
        OBJECT
    })
}

/// The loaded object. Dropping it removes everything from the kernel.
pub struct Object {
    /// The programs, and the log.
    pub ebpf: Ebpf,
    /// The sites.
    pub sites: MappedArray<Site>,
    /// Which allocations are chosen, if not all.
    pub sampling: Sampling,
    /// What the chosen blocks of each site stand for, if they are.
    pub sampled: Option<MappedArray<SampledSite>>,
    /// The filter that frees go through.
    filter: MappedArray<u64>,
    /// Lost events by cause.
    pub losses: MappedArray<LossCount>,
    /// Frees of blocks that were not traced.
    pub untraced_frees: MappedArray<u64>,
    /// Frees of blocks that were inherited by a fork, and how many could not be
    /// remembered.
    pub inherited_frees: MappedArray<u64>,
    /// What processes have freed since they forked.
    pub freed_since: FreedSinceMap,
    /// What hits of probes cost.
    costs: MappedArray<Cost>,
    /// See [`Object::in_passing`].
    in_passing: PerCpuArray<MapData, u64>,
    /// Forks whose children are not traced.
    pub forks: MappedArray<u64>,
    /// Mapping and lifecycle events.
    pub events: RingBuf<MapData>,
    /// USDT probes.
    pub usdt: UsdtMaps,
    /// Samplers in processes.
    pub samplers: SamplerMaps,
    /// Where calls have to be made from.
    pub origins: OriginMaps,
    /// The programs' log, if it was asked for.
    log: Option<EbpfLogger<StderrLog>>,
    active: Array<MapData, u64>,
    holder: Array<MapData, u32>,
    /// Whether events count now, and what makes them do so.
    is_active: bool,
    counting: u64,
    programs: Programs,
    rows: u32,
    live: MapData,
    arenas: ArenaMaps,
    phase: PhaseMaps,
    /// Indices of sites by their keys.
    index: MapData,
    /// How often sites were hidden from programs.
    site_changes: MappedArray<u64>,
    /// Indices that no site has.
    free_sites: Queue<MapData, u32>,
    /// Whether places of sites were used again.
    pub has_recycled: bool,
    freed_by: MapData,
    freed_unseen: MapData,
    threads: MapData,
    processes: HashMap<MapData, u32, [u64; PROCESS_WORDS]>,
    process_changes: MappedArray<u64>,
    /// Programs for `uprobe_multi` links, if that road is taken.
    multi: Option<MultiPrograms>,
    /// The program for session links, where they are used.
    sessions: Option<MultiPrograms>,
    system_calls: SystemCalls,
    /// What the programs at single system calls hang on, where they are at trace events.
    call_events: Option<Tracepoints>,
}

impl Object {
    /// Loads the object; nothing is attached yet. Programs are loaded when
    /// they are first attached.
    ///
    /// # Errors
    /// Fails when the kernel refuses a map.
    pub fn load(
        settings: &Settings,
        sizes: Sizes,
        log: bool,
        (road, sessions): (Road, bool),
    ) -> Result<Self> {
        let level: u8 = if log { 4 } else { 0 };
        let threads = sizes.threads;
        let object = if threads.in_advance {
            Cow::Owned(preallocate(compiled()?, &ON_DEMAND)?)
        } else {
            Cow::Borrowed(compiled()?)
        };
        let processes = MAX_PROCESSES.min(threads.most);
        let [sampled, slots] = sizes.sampled();
        let [objects, arenas] = sizes.arenas();
        let [told, compiled_code] = sizes.told();
        let mut ebpf = EbpfLoader::new()
            .override_global("SETTINGS", as_bytes(settings), true)
            .override_global("AYA_LOG_LEVEL", &level, false)
            .map_max_entries("LIVE", sizes.live)
            .map_max_entries("OBJECTS", objects)
            .map_max_entries("ARENAS", arenas)
            .map_max_entries("SITE_INDEX", sizes.sites)
            .map_max_entries("SITES", sizes.sites)
            .map_max_entries("FREE_SITES", sizes.sites)
            .map_max_entries("SAMPLED", sampled)
            .map_max_entries("FILTER", slots)
            .map_max_entries("ORIGINS", lists(sizes.has_origins))
            .map_max_entries("ORIGINS_OF", processes)
            .map_max_entries("DEATHS", sizes.deaths())
            .map_max_entries("TOLD", told)
            .map_max_entries("COMPILED", compiled_code)
            .map_max_entries("CLASS_NAMES", sizes.class_names())
            .map_max_entries("FREED_UNKNOWN", sizes.unknown_frees())
            .map_max_entries("ROWS", sizes.rows)
            .map_max_entries("THREADS", threads.most)
            .map_max_entries("PROCESSES", processes)
            .map_max_entries("FREED_SINCE", sizes.freed_since(settings.follow != 0))
            .map_max_entries("HAS_SAMPLER", processes)
            .map_max_entries("STATED", sizes.stated())
            .map_max_entries("CODE_OF", processes)
            .map_max_entries("REPLACED", processes)
            .map_max_entries("KERNEL_STACKS", sizes.kernel_stacks)
            .map_max_entries("SCRIPTS", sizes.scripts)
            .load(&object)
            .context("the kernel refused the BPF maps")?;
        let programs_for = |links: Links, wanted: bool| {
            let programs =
                || MultiPrograms::new(links, &object, |name| ebpf.map(name).and_then(descriptor));
            wanted.then(programs).transpose()
        };
        let multi = programs_for(Links::Multi, road == Road::Multi)?;
        let sessions = programs_for(Links::Session, road == Road::Multi && sessions)?;
        fill(&mut ebpf, "FREE_SITES", sizes.sites)?;
        fill(&mut ebpf, "FREE_MEMOS", MEMO_THREADS)?;
        let log = if log {
            Some(EbpfLogger::init_with_logger(&mut ebpf, StderrLog)?)
        } else {
            None
        };
        Ok(Self {
            log,
            sites: writable(&mut ebpf, "SITES", sizes.sites)?,
            sampling: settings.sampling,
            sampled: match sizes.is_sampled {
                true => Some(writable(&mut ebpf, "SAMPLED", sampled)?),
                false => None,
            },
            filter: writable(&mut ebpf, "FILTER", slots)?,
            losses: mapped(&mut ebpf, "LOSSES", u32::try_from(LOSS_CAUSES)?)?,
            untraced_frees: mapped(&mut ebpf, "UNTRACED_FREES", 1)?,
            inherited_frees: mapped(&mut ebpf, "INHERITED_FREES", 2)?,
            freed_since: FreedSinceMap::new(take(&mut ebpf, "FREED_SINCE")?)?,
            costs: writable(&mut ebpf, "COSTS", u32::try_from(KINDS)?)?,
            in_passing: take(&mut ebpf, "IN_PASSING")?.try_into()?,
            forks: mapped(&mut ebpf, "FORKS", 1)?,
            events: take(&mut ebpf, "EVENTS")?.try_into()?,
            usdt: UsdtMaps {
                places: take(&mut ebpf, "PLACES")?.try_into()?,
                told: take(&mut ebpf, "TOLD")?.try_into()?,
                names: take(&mut ebpf, "CLASS_NAMES")?.try_into()?,
                compiled: take(&mut ebpf, "COMPILED")?.try_into()?,
            },
            samplers: SamplerMaps {
                places: writable(&mut ebpf, "SAMPLERS", MAX_SAMPLERS)?,
                images: take(&mut ebpf, "HAS_SAMPLER")?.try_into()?,
                stated: map_data(take(&mut ebpf, "STATED")?)?,
                used: 0,
            },
            origins: OriginMaps::new(
                writable(&mut ebpf, "ORIGINS", lists(sizes.has_origins))?,
                take(&mut ebpf, "ORIGINS_OF")?.try_into()?,
                take(&mut ebpf, "ELSEWHERE")?.try_into()?,
            )?,
            active: take(&mut ebpf, "ACTIVE")?.try_into()?,
            holder: take(&mut ebpf, "HOLDER")?.try_into()?,
            is_active: false,
            counting: RETURN_PROBES,
            live: map_data(take(&mut ebpf, "LIVE")?)?,
            arenas: ArenaMaps::new(&mut ebpf)?,
            phase: PhaseMaps::new(&mut ebpf)?,
            index: map_data(take(&mut ebpf, "SITE_INDEX")?)?,
            site_changes: writable(&mut ebpf, "SITE_CHANGES", 1)?,
            free_sites: take(&mut ebpf, "FREE_SITES")?.try_into()?,
            has_recycled: false,
            freed_by: map_data(take(&mut ebpf, "FREED_BY")?)?,
            freed_unseen: map_data(take(&mut ebpf, "FREED_UNSEEN")?)?,
            threads: map_data(take(&mut ebpf, "THREADS")?)?,
            processes: take(&mut ebpf, "PROCESSES")?.try_into()?,
            process_changes: writable(&mut ebpf, "PROCESS_CHANGES", 1)?,
            multi,
            sessions,
            system_calls: SystemCalls::None,
            call_events: None,
            programs: Programs::Counting,
            rows: sizes.rows,
            ebpf,
        })
    }

    /// The maps that stacks are unwound by, once.
    ///
    /// # Errors
    /// Fails if the kernel refuses to map them into our memory.
    pub fn table_maps(&mut self) -> Result<TableMaps> {
        let ebpf = &mut self.ebpf;
        Ok(TableMaps {
            rows: writable(ebpf, "ROWS", self.rows)?,
            rules: writable(ebpf, "RULES", MAX_RULES)?,
            ranges: writable(ebpf, "RANGES", MAX_RANGES)?,
            spaces: writable(ebpf, "SPACES", MAX_SPACES)?,
            cache: writable(ebpf, "CACHE", cached::ENTRIES)?,
            code_of: take(ebpf, "CODE_OF")?.try_into()?,
            code_changes: writable(ebpf, "CODE_CHANGES", 1)?,
            replaced: take(ebpf, "REPLACED")?.try_into()?,
            files: take(ebpf, "FILES")?.try_into()?,
            file_tables: writable(ebpf, "FILE_TABLES", MAX_FILES)?,
            pythons: writable(ebpf, "PYTHONS", MAX_FILES)?,
            v8s: writable(ebpf, "V8S", MAX_FILES)?,
            scripts: take(ebpf, "SCRIPTS")?.try_into()?,
        })
    }

    /// The maps that Java frames are walked by, once.
    ///
    /// # Errors
    /// Fails if the kernel refuses to map them into our memory.
    pub fn vm_maps(&mut self) -> Result<VmMaps> {
        let ebpf = &mut self.ebpf;
        Ok(VmMaps {
            vms: writable(ebpf, "VMS", java::MAX_VMS)?,
            freed: mapped(ebpf, "FREED", java::MAX_VMS)?,
            cache: writable(ebpf, "JAVA_CACHE", java::cached::ENTRIES)?,
            vm_of: take(ebpf, "VM_OF")?.try_into()?,
        })
    }

    /// Has threads that we hold by ptrace stop when their loader has mapped
    /// libraries, or not any more.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn set_holder(&mut self, holds: bool) -> Result<()> {
        let holder = if holds { std::process::id() } else { 0 };
        self.holder
            .set(0, holder, 0)
            .context("cannot switch the programs")
    }

    /// The threads that were told to stop so, once; see [`held`].
    ///
    /// # Errors
    /// Fails if the kernel refuses to map them into our memory.
    pub fn held_threads(&mut self) -> Result<MappedArray<u64>> {
        writable(&mut self.ebpf, "HELD", held::PLACES)
    }

    /// How probes are attached.
    pub fn road(&self) -> Road {
        match self.multi {
            Some(_) => Road::Multi,
            None => Road::PerfEvents,
        }
    }

    /// Attaches these programs from now on; returns those before.
    pub fn replace_programs(&mut self, programs: Programs) -> Programs {
        std::mem::replace(&mut self.programs, programs)
    }

    /// Attaches probes by perf events from now on.
    pub fn leave_multi(&mut self) {
        self.multi = None;
        self.leave_sessions();
    }

    /// Whether session links tell of entries and returns.
    pub fn has_sessions(&self) -> bool {
        self.sessions.is_some() && self.counting == SESSIONS
    }

    /// Has session links tell of entries and returns from now on, if there are to be
    /// any. To be called while nothing counts.
    pub fn begin_sessions(&mut self) {
        if self.sessions.is_some() {
            self.counting = SESSIONS;
        }
    }

    /// Goes back to links for entries and others for returns. To be called while nothing
    /// counts.
    pub fn leave_sessions(&mut self) {
        self.sessions = None;
        self.counting = RETURN_PROBES;
    }

    /// Prints what the programs logged.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Lets events count, or not.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn set_active(&mut self, active: bool) -> Result<()> {
        self.is_active = active;
        let word = if active { self.counting } else { 0 };
        self.active
            .set(0, word, 0)
            .context("cannot switch the programs")
    }

    /// Whether events count now.
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// Has calls that begin from now on believed by the return address itself.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn leave_returns_alone(&mut self) -> Result<()> {
        self.counting = RETURN_INSTRUCTIONS;
        self.set_active(self.is_active)
    }

    /// Begins to trace a process: returns its image.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn admit(&mut self, pid: u32, time_ns: u64) -> Result<u64> {
        let (image, words) = record_of(pid, time_ns);
        self.processes
            .insert(pid, words, 0)
            .context("cannot register the process")?;
        // Our own calls calibrate.
        if self.origins.is_used() && pid == std::process::id() {
            self.origins.follow_all(image)?;
        }
        self.process_changes.count(0);
        Ok(image)
    }

    /// The same for a process that may be traced already, since its parent is;
    /// `None` if it is.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn adopt(&mut self, pid: u32, time_ns: u64) -> Result<Option<u64>> {
        let (image, words) = record_of(pid, time_ns);
        match self.processes.insert(pid, words, BPF_NOEXIST) {
            Ok(()) => {
                self.process_changes.count(0);
                Ok(Some(image))
            }
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::EEXIST) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).context("cannot register the process"),
        }
    }

    /// Has those calls of an image followed that are made from these ranges, which are
    /// sorted by address; `is_noted` is for [`tracer_ebpf::origin::IS_NOTED`].
    ///
    /// # Errors
    /// Fails if there is no room.
    pub fn follow_from(&mut self, image: u64, ranges: &[Origin], is_noted: bool) -> Result<()> {
        if self.origins.put(image, ranges, is_noted)? {
            self.process_changes.count(0);
        }
        Ok(())
    }

    /// Whether calls are left out whose blocks are freed all the same.
    pub fn leaves_out(&self) -> bool {
        self.sampling.is_on() || self.origins.is_used()
    }

    /// Notes that an image takes samples of its allocations itself: from now on what it
    /// calls of its allocators is nothing to us.
    ///
    /// # Errors
    /// Fails if there is no room.
    pub fn note_sampler(&mut self, image: u64) -> Result<()> {
        self.samplers.note(image)?;
        self.process_changes.count(0);
        Ok(())
    }

    /// Follows blocks no longer, which then count as such.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn lose_track(&self, blocks: &[(BlockKey, Block)]) -> Result<()> {
        let keys: Vec<_> = blocks.iter().map(|(key, _)| *key).collect();
        self.delete_live(&keys)?;
        for (_, block) in blocks {
            let add = |field, amount| self.sites.add(block.site, field, amount);
            add(std::mem::offset_of!(Site, untracked_count), 1);
            add(std::mem::offset_of!(Site, untracked_bytes), block.size);
        }
        Ok(())
    }

    /// Stops tracing a process that has ended, if its image is still `image`.
    pub fn dismiss(&mut self, pid: u32, image: u64) {
        if self
            .processes
            .get(&pid, 0)
            .is_ok_and(|words| words[0] == image)
        {
            // Gone already is fine.
            let _ = self.processes.remove(&pid);
            self.process_changes.count(0);
        }
        self.origins.forget(image);
    }

    /// The sites of native memory in use: of allocations, or of pages.
    pub fn used_sites(&self) -> impl Iterator<Item = (u32, Site)> + '_ {
        self.sites_of(SiteKind::Memory).chain(self.pages())
    }

    /// The sites of samples of the Java heap.
    pub fn samples(&self) -> impl Iterator<Item = (u32, Site)> + '_ {
        self.sites_of(SiteKind::Sample)
    }

    /// The sites of JVMs' handles.
    pub fn handles(&self) -> impl Iterator<Item = (u32, Site)> + '_ {
        self.sites_of(SiteKind::Handle)
    }

    /// The sites of JVMs' threads.
    pub fn threads(&self) -> impl Iterator<Item = (u32, Site)> + '_ {
        self.sites_of(SiteKind::Thread)
    }

    /// The sites of pages.
    pub fn pages(&self) -> impl Iterator<Item = (u32, Site)> + '_ {
        self.sites_of(SiteKind::Page)
    }

    /// The sites of all that is followed until it is freed: all but samples.
    pub fn followed_sites(&self) -> impl Iterator<Item = (u32, Site)> + '_ {
        let sites = self.sites_from(0);
        sites.filter(|(_, site)| !site.is(SiteKind::Sample))
    }

    fn sites_of(&self, kind: SiteKind) -> impl Iterator<Item = (u32, Site)> + '_ {
        self.sites_from(0).filter(move |(_, site)| site.is(kind))
    }

    /// The sites in use, of all kinds, from an index on. Their indices are
    /// given out in order, so a long gap ends the search until they are used again.
    pub fn sites_from(&self, first: u32) -> impl Iterator<Item = (u32, Site)> + '_ {
        const GAP: u32 = 1024;
        let mut last_used = first;
        (first..self.sites.len())
            .map_while(move |index| {
                let is_used = self.sites.first_word(index)? != 0;
                if is_used {
                    last_used = index;
                }
                (self.has_recycled || index - last_used < GAP).then_some((index, is_used))
            })
            .filter(|(_, is_used)| *is_used)
            .filter_map(|(index, _)| Some((index, self.sites.get(index)?)))
    }

    /// Calls `each` with every live block, objects of arenas too.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn for_each_live(&self, mut each: impl FnMut(BlockKey, Block)) -> Result<()> {
        self.for_each_block(&mut each)?;
        self.arenas.for_each_object(each)
    }

    /// The same of blocks that are freed one by one.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn for_each_block(&self, mut each: impl FnMut(BlockKey, Block)) -> Result<()> {
        batch::for_each(self.live.fd().as_fd(), |key, block: Block| {
            // What the kernel refused to remove has no site.
            if block.site != NO_SITE {
                each(key, block);
            }
        })
    }

    /// Calls `each` with every block that a realloc in flight was given: it is
    /// live until the call has returned.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn for_each_in_flight(&self, mut each: impl FnMut(BlockKey, Block)) -> Result<()> {
        batch::for_each(self.threads.fd().as_fd(), |_: u64, thread: InFlight| {
            if let Some((key, block)) = thread.old_block() {
                each(key, block);
            }
        })
    }

    /// Calls `each` with every caller that freed unknown blocks, and how many.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn for_each_unknown_free(&self, each: impl FnMut(Caller, u64)) -> Result<()> {
        batch::for_each(self.freed_by.fd().as_fd(), each)
    }

    /// Forgets callers.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn forget_callers(&self, callers: &[Caller]) -> Result<()> {
        batch::delete(self.freed_by.fd().as_fd(), callers)
    }

    /// Calls `each` with every caller that freed blocks which were allocated during
    /// the run, unseen, and how many.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn for_each_unseen_block(&self, each: impl FnMut(Caller, u64)) -> Result<()> {
        batch::for_each(self.freed_unseen.fd().as_fd(), each)
    }

    /// Forgets such callers.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn forget_unseen_callers(&self, callers: &[Caller]) -> Result<()> {
        batch::delete(self.freed_unseen.fd().as_fd(), callers)
    }

    /// Forgets live blocks, of images that have ended: nobody else does.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn delete_live(&self, keys: &[BlockKey]) -> Result<()> {
        batch::delete(self.live.fd().as_fd(), keys)?;
        if self.leaves_out() {
            let blocks = keys.iter().filter(|key| key.address < OTHERS);
            let slots = blocks.map(|key| filter_slot(key.address));
            slots.for_each(|slot| self.filter.uncount(slot));
        }
        Ok(())
    }
}

/// Prints the programs' log on standard error.
struct StderrLog;

impl Log for StderrLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        eprintln!("kernel: {}", record.args());
    }

    fn flush(&self) {}
}

/// A [`Process`] as the plain words that aya's map type takes.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct ProcessWords([u64; PROCESS_WORDS]);

const PROCESS_WORDS: usize = size_of::<Process>() / 8;

// SAFETY: u64 alone, any bit pattern is valid.
unsafe impl tracer_ebpf::Record for ProcessWords {}

const _: () = assert!(
    size_of::<Process>() == size_of::<ProcessWords>(),
    "the map's value is a Process"
);

/// What the kernel side needs to know of a process that is traced from now on,
/// and its image.
fn record_of(pid: u32, time_ns: u64) -> (u64, [u64; PROCESS_WORDS]) {
    let image = image_id(pid, time_ns);
    let words = tracer_ebpf::read_record::<ProcessWords>(as_bytes(&Process::new(image)));
    (image, words.unwrap_or_default().0)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
    <&'a mut P as TryFrom<&'a mut aya::programs::Program>>::Error:
        std::error::Error + Send + Sync + 'static,
{
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| anyhow!("the BPF object has no program {name}"))?;
    Ok(program.try_into()?)
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name)
        .ok_or_else(|| anyhow!("the BPF object has no map {name}"))
}

/// The descriptor of a map of one of the types that the programs use.
fn descriptor(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::LruHashMap(data)
        | Map::ProgramArray(data)
        | Map::Queue(data)
        | Map::RingBuf(data)
        | Map::StackTraceMap(data) => Some(data.fd().as_fd().as_raw_fd()),
        _ => None,
    }
}

fn map_data(map: Map) -> Result<MapData> {
    match map {
        Map::Array(data) | Map::HashMap(data) => Ok(data),
        _ => Err(anyhow!("a map of the BPF object has an unexpected type")),
    }
}

fn mapped<T: tracer_ebpf::Record>(ebpf: &mut Ebpf, name: &str, len: u32) -> Result<MappedArray<T>> {
    MappedArray::new(map_data(take(ebpf, name)?)?, len)
}

fn writable<T: tracer_ebpf::Record>(
    ebpf: &mut Ebpf,
    name: &str,
    len: u32,
) -> Result<MappedArray<T>> {
    MappedArray::writable(map_data(take(ebpf, name)?)?, len)
}

/// Fills a queue with the numbers below `count`.
fn fill(ebpf: &mut Ebpf, name: &str, count: u32) -> Result<()> {
    let map = ebpf
        .map_mut(name)
        .with_context(|| format!("the BPF object has no map {name}"))?;
    let mut queue: Queue<&mut MapData, u32> = map.try_into()?;
    for index in 0..count {
        queue
            .push(index, 0)
            .with_context(|| format!("cannot fill the queue {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aya_obj::ProgramSection;
    use tracer_ebpf::call::Function;

    use super::*;
    use crate::kernel::program::Moment;

    #[test]
    fn the_object_has_every_program() {
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        for moment in Moment::ALL {
            let each = Function::ALL.map(|function| Programs::Counting.of(moment, Some(function)));
            for name in each.into_iter().chain([Programs::Counting.at(moment)]) {
                assert!(object.programs.contains_key(name), "{name}");
                assert!(name.len() <= 15, "{name} is cut by the kernel");
            }
        }
    }

    /// The number of the helper `bpf_tail_call` (`linux/bpf.h`).
    const TAIL_CALL: i32 = 12;
    /// A call of a helper: `BPF_JMP | BPF_CALL`.
    const CALL: u8 = 0x85;

    /// Stacks of a CPU's own would be shared by threads that preempt each
    /// other; see `on_task_stack` in the programs.
    #[test]
    fn probes_run_on_the_stacks_of_their_tasks() {
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        let mut checked = 0;
        for (name, program) in &object.programs {
            if !matches!(
                program.section,
                ProgramSection::UProbe { .. } | ProgramSection::URetProbe { .. }
            ) || name.starts_with("uf_empty")
            {
                continue;
            }
            let code = &object.functions[&program.function_key()].instructions;
            let has_tail_call = code
                .iter()
                .any(|instruction| instruction.code == CALL && instruction.imm == TAIL_CALL);
            assert!(has_tail_call, "{name}");
            checked += 1;
        }
        assert!(checked > 30, "{checked}");
    }

    #[test]
    fn programs_for_multi_links_find_their_maps() {
        let prepare = |links, missing| {
            MultiPrograms::new(links, OBJECT, |name| (name != missing).then_some(1)).map(|_| ())
        };
        prepare(Links::Multi, "none").unwrap();
        assert!(prepare(Links::Multi, "LIVE").is_err());
        prepare(Links::Session, "TASK_STACK").unwrap();
        assert!(prepare(Links::Session, "TASK_STACK_PAIR").is_err());
    }
}
