//! The loaded BPF object: its programs, and typed access to its maps.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use aya::maps::{Array, HashMap, Map, MapData, ProgramArray, Queue, RingBuf};
use aya::programs::uprobe::{UProbeAttachLocation, UProbeScope};
use aya::programs::{RawTracePoint, UProbe};
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use tracer_ebpf::as_bytes;
use tracer_ebpf::block::{Block, BlockKey};
use tracer_ebpf::java;
use tracer_ebpf::limits::{MAX_PROCESSES, MAX_RANGES, MAX_RULES, MAX_SPACES};
use tracer_ebpf::loss::{LOSS_CAUSES, LossCount};
use tracer_ebpf::settings::Settings;
use tracer_ebpf::site::{Site, SiteKind};
use tracer_ebpf::table::cached;
use tracer_ebpf::thread::{Process, image_id};

use super::batch;
use super::footprint::Sizes;
use super::link::{Link, Road};
use super::mapped::MappedArray;
use super::memory::{ON_DEMAND, preallocate};
use super::multi::MultiPrograms;
use super::program::{Moment, Place, Programs};
use super::tables::TableMaps;
use super::usdt::UsdtMaps;
use super::vms::VmMaps;
use crate::process::address::FileOffset;

/// The compiled programs, aligned as the ELF reader wants them.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("UNFREED_BPF_OBJECT"));

/// The program at all places of USDT probes.
const USDT: &str = "uf_usdt";

/// The loaded object. Dropping it removes everything from the kernel.
pub struct Object {
    /// The programs, and the log.
    pub ebpf: Ebpf,
    /// The sites.
    pub sites: MappedArray<Site>,
    /// Lost events by cause.
    pub losses: MappedArray<LossCount>,
    /// Frees of blocks that were not traced.
    pub untraced_frees: MappedArray<u64>,
    /// Forks whose children are not traced.
    pub forks: MappedArray<u64>,
    /// Mapping and lifecycle events.
    pub events: RingBuf<MapData>,
    /// USDT probes.
    pub usdt: UsdtMaps,
    /// The programs' log, if it was asked for.
    log: Option<EbpfLogger<StderrLog>>,
    active: Array<MapData, u64>,
    programs: Programs,
    /// The program that others go on with.
    next: ProgramArray<MapData>,
    rows: u32,
    live: MapData,
    processes: HashMap<MapData, u32, [u64; 2]>,
    /// Programs for `uprobe_multi` links, if that road is taken.
    multi: Option<MultiPrograms>,
}

impl Object {
    /// Loads the object; nothing is attached yet. Programs are loaded when
    /// they are first attached.
    ///
    /// # Errors
    /// Fails when the kernel refuses a map.
    pub fn load(settings: &Settings, sizes: Sizes, log: bool, road: Road) -> Result<Self> {
        let level: u8 = if log { 4 } else { 0 };
        let threads = sizes.threads;
        let object = if threads.in_advance {
            Cow::Owned(preallocate(OBJECT, &ON_DEMAND)?)
        } else {
            Cow::Borrowed(OBJECT)
        };
        let processes = MAX_PROCESSES.min(threads.most);
        let mut ebpf = EbpfLoader::new()
            .override_global("SETTINGS", as_bytes(settings), true)
            .override_global("AYA_LOG_LEVEL", &level, false)
            .map_max_entries("LIVE", sizes.live)
            .map_max_entries("SITE_INDEX", sizes.sites)
            .map_max_entries("SITES", sizes.sites)
            .map_max_entries("FREE_SITES", sizes.sites)
            .map_max_entries("ROWS", sizes.rows)
            .map_max_entries("THREADS", threads.most)
            .map_max_entries("PROCESSES", processes)
            .map_max_entries("CODE_OF", processes)
            .map_max_entries("REPLACED", processes)
            .map_max_entries("KERNEL_STACKS", sizes.kernel_stacks)
            .load(&object)
            .context("the kernel refused the BPF maps")?;
        let multi = match road {
            Road::PerfEvents => None,
            Road::Multi => Some(MultiPrograms::new(&object, |name| {
                ebpf.map(name).and_then(descriptor)
            })?),
        };
        fill_free_sites(&mut ebpf, sizes.sites)?;
        let log = if log {
            Some(EbpfLogger::init_with_logger(&mut ebpf, StderrLog)?)
        } else {
            None
        };
        Ok(Self {
            log,
            sites: mapped(&mut ebpf, "SITES", sizes.sites)?,
            losses: mapped(&mut ebpf, "LOSSES", u32::try_from(LOSS_CAUSES)?)?,
            untraced_frees: mapped(&mut ebpf, "UNTRACED_FREES", 1)?,
            forks: mapped(&mut ebpf, "FORKS", 1)?,
            events: take(&mut ebpf, "EVENTS")?.try_into()?,
            usdt: UsdtMaps {
                places: take(&mut ebpf, "PLACES")?.try_into()?,
                told: take(&mut ebpf, "TOLD")?.try_into()?,
            },
            active: take(&mut ebpf, "ACTIVE")?.try_into()?,
            live: map_data(take(&mut ebpf, "LIVE")?)?,
            processes: take(&mut ebpf, "PROCESSES")?.try_into()?,
            multi,
            programs: Programs::Counting,
            next: take(&mut ebpf, "NEXT")?.try_into()?,
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
            replaced: take(ebpf, "REPLACED")?.try_into()?,
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

    /// How probes are attached.
    pub fn road(&self) -> Road {
        match self.multi {
            Some(_) => Road::Multi,
            None => Road::PerfEvents,
        }
    }

    /// Attaches these programs from now on.
    pub fn use_programs(&mut self, programs: Programs) {
        self.programs = programs;
    }

    /// Attaches probes by perf events from now on.
    pub fn leave_multi(&mut self) {
        self.multi = None;
    }

    /// Attaches the probes on the birth and death of processes and threads.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn attach_lifecycle(&mut self) -> Result<()> {
        self.attach_tracepoint("uf_exit", "sched_process_exit")?;
        self.attach_tracepoint("uf_exec", "sched_process_exec")?;
        self.attach_tracepoint("uf_unmapped", "vm_unmapped_area")?;
        self.attach_tracepoint("uf_newtask", "task_newtask")
    }

    /// Attaches the probes that notice `vfork` children whose calls are
    /// hidden from us. To be called before [`Self::attach_lifecycle`]: these
    /// probes come first.
    ///
    /// # Errors
    /// Fails when the kernel does, as it does before 6.10.
    pub fn attach_child_watch(&mut self) -> Result<()> {
        self.attach_tracepoint("uf_leave_mem", "sched_prepare_exec")?;
        self.attach_tracepoint("uf_leave_mem", "sched_process_exit")
    }

    fn attach_tracepoint(&mut self, name: &str, tracepoint: &str) -> Result<()> {
        let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
        if program.fd().is_err() {
            program
                .load()
                .with_context(|| format!("the kernel refused the BPF program {name}"))?;
        }
        program
            .attach(tracepoint)
            .with_context(|| format!("cannot attach to {tracepoint}"))?;
        Ok(())
    }

    /// Loads the programs that watch these functions at a moment, which takes
    /// some 20 ms each.
    ///
    /// # Errors
    /// Fails when the kernel refuses a program.
    pub fn load_programs(&mut self, moment: Moment, places: &[Place]) -> Result<()> {
        if let Some(multi) = &mut self.multi {
            multi.load(self.programs.at(moment))?;
            return Ok(());
        }
        for place in places {
            self.load_program(self.programs.of(moment, place.function))?;
        }
        Ok(())
    }

    /// Attaches the programs of a moment to places of a file, in one process
    /// or (with `None`) in all that map the file.
    ///
    /// # Errors
    /// Fails when the kernel refuses a program or a place.
    pub fn attach(
        &mut self,
        moment: Moment,
        places: &[Place],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Vec<Link>> {
        if let Some(multi) = &mut self.multi {
            let name = self.programs.at(moment);
            return Ok(vec![multi.attach(name, moment, places, file, pid)?]);
        }
        places
            .iter()
            .map(|place| self.attach_event(moment, *place, file, pid))
            .collect()
    }

    /// Attaches the program of USDT probes to offsets of a file, in one process
    /// or (with `None`) in all that map the file.
    ///
    /// # Errors
    /// Fails when the kernel refuses the program or a place.
    pub fn attach_usdt(
        &mut self,
        offsets: &[FileOffset],
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Vec<Link>> {
        let place = |offset: &FileOffset| Place {
            function: None,
            offset: offset.0,
        };
        let places: Vec<_> = offsets.iter().map(place).collect();
        if let Some(multi) = &mut self.multi {
            let link = multi.attach(USDT, Moment::Entry, &places, file, pid)?;
            return Ok(vec![link]);
        }
        self.load_alone(USDT)?;
        places
            .iter()
            .map(|place| self.attach_loaded(USDT, place.offset, file, pid))
            .collect()
    }

    fn attach_event(
        &mut self,
        moment: Moment,
        place: Place,
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Link> {
        let name = self.programs.of(moment, place.function);
        self.load_program(name)?;
        self.attach_loaded(name, place.offset, file, pid)
    }

    /// Attaches a program, by a perf event on every kernel, to an offset of a
    /// file.
    ///
    /// # Errors
    /// Fails when the kernel refuses the program or the place.
    pub fn attach_one(
        &mut self,
        name: &str,
        offset: u64,
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Link> {
        self.load_alone(name)?;
        self.attach_loaded(name, offset, file, pid)
    }

    fn attach_loaded(
        &mut self,
        name: &str,
        offset: u64,
        file: &Path,
        pid: Option<u32>,
    ) -> Result<Link> {
        let program: &mut UProbe = program(&mut self.ebpf, name)?;
        let scope = match pid.and_then(NonZeroU32::new) {
            Some(pid) => UProbeScope::OneProcess(pid),
            None => UProbeScope::AllProcesses,
        };
        let location = UProbeAttachLocation::AbsoluteOffset(offset);
        let link = program.attach(location, file, scope).with_context(|| {
            format!(
                "cannot place a probe at offset {offset:#x} of {}",
                file.display()
            )
        })?;
        Ok(Link::PerfEvent(program.take_link(link)?))
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
        self.active
            .set(0, u64::from(active), 0)
            .context("cannot switch the programs")
    }

    /// Programs for one function each go on with one that finds sites.
    fn load_program(&mut self, name: &str) -> Result<()> {
        self.load_alone(name)?;
        let site: &mut UProbe = program(&mut self.ebpf, "uf_site")?;
        if site.fd().is_err() {
            self.load_alone("uf_site")?;
            let site: &mut UProbe = program(&mut self.ebpf, "uf_site")?;
            self.next
                .set(0, site.fd()?, 0)
                .context("the kernel refused to chain the BPF programs")?;
        }
        Ok(())
    }

    fn load_alone(&mut self, name: &str) -> Result<()> {
        let program: &mut UProbe = program(&mut self.ebpf, name)?;
        if program.fd().is_err() {
            program
                .load()
                .with_context(|| format!("the kernel refused the BPF program {name}"))?;
        }
        Ok(())
    }

    /// Begins to trace a process: returns its image.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn admit(&mut self, pid: u32, time_ns: u64) -> Result<u64> {
        let image = image_id(pid, time_ns);
        let process = Process {
            image,
            shares_heap: 0,
            padding: 0,
        };
        let words =
            tracer_ebpf::read_record::<ProcessWords>(as_bytes(&process)).unwrap_or_default();
        self.processes
            .insert(pid, words.0, 0)
            .context("cannot register the process")?;
        Ok(image)
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
        }
    }

    /// The sites of native memory in use.
    pub fn used_sites(&self) -> impl Iterator<Item = (u32, Site)> + '_ {
        self.sites_of(SiteKind::Memory)
    }

    /// The sites of samples of the Java heap.
    pub fn samples(&self) -> impl Iterator<Item = (u32, Site)> + '_ {
        self.sites_of(SiteKind::Sample)
    }

    /// The sites of JVMs' handles.
    pub fn handles(&self) -> impl Iterator<Item = (u32, Site)> + '_ {
        self.sites_of(SiteKind::Handle)
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
    /// given out in order, so a long gap ends the search.
    pub fn sites_from(&self, first: u32) -> impl Iterator<Item = (u32, Site)> + '_ {
        const GAP: u32 = 1024;
        let mut last_used = first;
        (first..self.sites.len())
            .map_while(move |index| {
                let site = self.sites.get(index)?;
                if site.image != 0 {
                    last_used = index;
                }
                (index - last_used < GAP).then_some((index, site))
            })
            .filter(|(_, site)| site.image != 0)
    }

    /// Calls `each` with every live block.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn for_each_live(&self, each: impl FnMut(BlockKey, Block)) -> Result<()> {
        batch::for_each(self.live.fd().as_fd(), each)
    }

    /// Forgets live blocks.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn delete_live(&self, keys: &[BlockKey]) -> Result<()> {
        batch::delete(self.live.fd().as_fd(), keys)
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
struct ProcessWords([u64; 2]);

// SAFETY: two u64, any bit pattern is valid.
unsafe impl tracer_ebpf::Record for ProcessWords {}

const _: () = assert!(
    size_of::<Process>() == size_of::<ProcessWords>(),
    "the map's value is a Process"
);

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

fn fill_free_sites(ebpf: &mut Ebpf, sites: u32) -> Result<()> {
    let map = ebpf
        .map_mut("FREE_SITES")
        .context("the BPF object has no map FREE_SITES")?;
    let mut queue: Queue<&mut MapData, u32> = map.try_into()?;
    for index in 0..sites {
        queue
            .push(index, 0)
            .context("cannot fill the queue of sites")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::call::Function;

    use super::*;

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

    #[test]
    fn programs_for_multi_links_find_their_maps() {
        let prepare =
            |missing| MultiPrograms::new(OBJECT, |name| (name != missing).then_some(1)).map(|_| ());
        prepare("none").unwrap();
        assert!(prepare("LIVE").is_err());
    }
}
