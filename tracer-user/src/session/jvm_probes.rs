//! Watching the own probes of Java virtual machines.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use tracer_ebpf::usdt::{Place, PlaceKey};

use super::Session;
use crate::attach::guarded::Guarded;
use crate::attach::inspect::require;
use crate::attach::library::function;
use crate::attach::probes::Scope;
use crate::jvm::events::Events;
use crate::jvm::events::probe::{PROVIDER, Watched};
use crate::jvm::libjvm::{LibJvm, NAME, is_libjvm};
use crate::kernel::object::Object;
use crate::process::address::FileOffset;
use crate::process::code::CodeMapping;
use crate::process::file::ModuleFile;
use crate::process::maps::FileId;
use crate::usdt::{self, Site};

/// A virtual machine whose probes are watched.
pub struct Machine {
    /// What it told.
    pub events: Events,
    /// Since when, nanoseconds of `CLOCK_MONOTONIC`.
    pub since: u64,
    /// Probes that it does not have.
    pub missing: Vec<Watched>,
    /// Why its probes are not watched, if they are not.
    pub problem: Option<String>,
    /// Why its native code's handles are not followed, if they are not.
    pub handle_problem: Option<String>,
    /// Why its threads are not followed, if they are not.
    pub thread_problem: Option<String>,
    places: Vec<(PlaceKey, Watched)>,
    /// Hits of places that are watched no longer.
    hits: BTreeMap<Watched, u64>,
}

/// All virtual machines of a run, by image.
#[derive(Default)]
pub struct Machines {
    by_image: HashMap<u64, Machine>,
    /// Files with probes in place. They stay until the end of the run.
    placed: Vec<(Scope, FileId)>,
    /// The same of the functions that make handles and threads.
    followed: Vec<(Scope, FileId)>,
    /// The same of the probe that is hit for each object.
    of_objects: Vec<(Scope, FileId)>,
    /// Where that probe is, by image.
    objects: Vec<PlaceKey>,
    /// Processes with new code that was not looked at yet.
    unseen: Vec<u32>,
}

impl Machines {
    /// The machine of an image.
    pub fn get(&self, image: u64) -> Option<&Machine> {
        self.by_image.get(&image)
    }

    /// Looks at the code of these processes at the next opportunity.
    pub fn look_at(&mut self, pids: &[u32]) {
        self.unseen.extend(pids);
    }

    /// Forgets what is probed in a scope, whose probes fire no more.
    pub fn uncover(&mut self, scope: Scope) {
        self.placed.retain(|(placed, _)| *placed != scope);
        self.followed.retain(|(placed, _)| *placed != scope);
        self.of_objects.retain(|(placed, _)| *placed != scope);
    }

    /// Hits of all probes of all machines.
    pub fn hits(&self, object: &Object) -> u64 {
        let machines = self.by_image.values();
        let told = machines.flat_map(|machine| machine.hits(object).into_values());
        let objects = self.objects.iter().map(|key| object.usdt.hits(*key));
        told.chain(objects).sum()
    }

    /// Has the kernel side know a place that is hit for each object.
    ///
    /// # Errors
    /// Fails if there is no room.
    pub fn watch_object(
        &mut self,
        object: &mut Object,
        key: PlaceKey,
        place: &Place,
    ) -> Result<()> {
        object.usdt.watch(key, place)?;
        self.objects.push(key);
        Ok(())
    }

    /// Whether a file's probe for each object is in place in a scope.
    pub fn is_told_of_objects(&self, scope: Scope, file: FileId) -> bool {
        self.of_objects.contains(&(scope, file))
    }

    /// Notes that it is.
    pub fn told_of_objects(&mut self, scope: Scope, file: FileId) {
        self.of_objects.push((scope, file));
    }

    /// Enters what was told since the last time.
    fn drain(&mut self, object: &mut Object) {
        while let Some(told) = object.usdt.next() {
            if let Some(machine) = self.by_image.get_mut(&told.image) {
                machine.events.apply(&told);
            }
        }
    }

    /// Watches an image that ended no longer.
    pub fn retire(&mut self, object: &mut Object, image: u64) {
        for key in self.objects.extract_if(.., |key| key.image == image) {
            object.usdt.forget(key);
        }
        if let Some(machine) = self.by_image.get_mut(&image) {
            machine.hits = machine.hits(object);
            for (key, _) in machine.places.drain(..) {
                object.usdt.forget(key);
            }
        }
    }
}

impl Machine {
    /// Hits of each probe.
    pub fn hits(&self, object: &Object) -> BTreeMap<Watched, u64> {
        let mut hits = self.hits.clone();
        for (key, probe) in &self.places {
            *hits.entry(*probe).or_default() += object.usdt.hits(*key);
        }
        hits
    }

    /// How many collections a block survived that was allocated at a time,
    /// nanoseconds of `CLOCK_MONOTONIC`; `None` if nobody counted them.
    pub fn survived(&self, time: u64) -> Option<u32> {
        let counts = self.problem.is_none();
        counts.then(|| self.events.survived(time))
    }
}

impl Session {
    /// Watches the probes of the virtual machines that processes have loaded.
    /// That they cannot be watched is no error: it is in the report.
    pub(super) fn probe_machines(&mut self) {
        let mut pids = std::mem::take(&mut self.java.machines.unseen);
        pids.sort_unstable();
        pids.dedup();
        if !self.options.jvm_probes {
            return;
        }
        for pid in pids {
            self.probe_machine(pid);
        }
    }

    /// Whether `--survived` means something for a process.
    ///
    /// # Errors
    /// Says why not.
    pub(super) fn check_survived(&self, pid: u32) -> Result<()> {
        let image = self.images.current(pid).and_then(|at| self.images.get(at));
        match image.and_then(|image| self.java.machines.get(image.id)) {
            None => bail!(
                "process {pid} has no {NAME}: --survived counts a JVM's garbage collections; --older-than counts time"
            ),
            Some(Machine {
                problem: Some(problem),
                ..
            }) => bail!(
                "the garbage collections of process {pid} cannot be counted: {problem}; --older-than counts time"
            ),
            Some(_) => Ok(()),
        }
    }

    /// Reads what the machines told since the last time.
    pub(super) fn drain_machines(&mut self) {
        self.java.machines.drain(&mut self.engine.object);
    }

    fn probe_machine(&mut self, pid: u32) {
        let Some(index) = self.images.current(pid) else {
            return;
        };
        let Some(image) = self.images.get(index).map(|image| image.id) else {
            return;
        };
        if self.java.machines.by_image.contains_key(&image) {
            return;
        }
        let Some((file, mappings)) = self.library(index) else {
            return;
        };
        let mut machine = Machine {
            events: Events::default(),
            since: self.now(),
            missing: Vec::new(),
            problem: None,
            handle_problem: None,
            thread_problem: None,
            places: Vec::new(),
            hits: BTreeMap::new(),
        };
        let scope = self.scope(pid);
        let watched = self.watch(&mut machine, image, &file, &mappings);
        let placed = watched.and_then(|offsets| self.place(scope, &file, &offsets));
        machine.problem = placed.err().map(|error| format!("{error:#}"));
        let followed = self.follow_resources(scope, index);
        [machine.handle_problem, machine.thread_problem] =
            followed.map(|followed| followed.err().map(|error| format!("{error:#}")));
        self.java.machines.by_image.insert(image, machine);
    }

    /// The virtual machine's library, if an image has one.
    fn library(&self, index: usize) -> Option<(Arc<ModuleFile>, Vec<CodeMapping>)> {
        let code = self.images.code(self.images.get(index)?)?;
        let libraries = code.current().filter(|mapping| is_libjvm(mapping));
        let mappings: Vec<_> = libraries.cloned().collect();
        let file = mappings.first()?.file.as_ref().ok()?;
        Some((Arc::clone(file), mappings))
    }

    /// Tells the kernel side what to do at each place, and returns them all.
    fn watch(
        &mut self,
        machine: &mut Machine,
        image: u64,
        file: &ModuleFile,
        mappings: &[CodeMapping],
    ) -> Result<Vec<FileOffset>> {
        let probes = usdt::read(&file.content)?;
        let mut offsets = Vec::new();
        for watched in Watched::ALL {
            let is_it =
                |probe: &&usdt::Probe| probe.provider == PROVIDER && probe.name == watched.name();
            let sites = probes
                .iter()
                .find(is_it)
                .map_or(&[][..], |probe| &probe.sites);
            let before = offsets.len();
            for (site, offset) in sites.iter().filter_map(usable) {
                let Some(ip) = address_of(mappings, offset) else {
                    continue;
                };
                let key = PlaceKey { image, ip };
                self.engine.object.usdt.watch(key, &watched.place(site))?;
                machine.places.push((key, watched));
                offsets.push(offset);
            }
            if offsets.len() == before {
                machine.missing.push(watched);
            }
        }
        if offsets.is_empty() {
            bail!("it was built without probes");
        }
        Ok(offsets)
    }

    /// Has the handles followed that native code of an image makes, and the
    /// threads that are started.
    fn follow_resources(&mut self, scope: Scope, index: usize) -> [Result<()>; 2] {
        let image = self.images.get(index);
        let code = image.and_then(|image| self.images.code(image));
        let library = match code.map(LibJvm::find) {
            Some(Ok(Some(library))) => library,
            Some(Err(error)) => return [Err(error), Ok(())],
            Some(Ok(None)) | None => return [Err(anyhow!("its library is gone")), Ok(())],
        };
        let placed = (scope, library.file().mapped);
        if self.java.machines.followed.contains(&placed) {
            return [Ok(()), Ok(())];
        }
        self.java.machines.followed.push(placed);
        let (probes, object) = (&mut self.engine.probes, &mut self.engine.object);
        [
            probes.watch_handles(object, &library, scope),
            probes.watch_threads(object, &library, scope),
        ]
    }

    fn place(
        &mut self,
        scope: Scope,
        file: &Arc<ModuleFile>,
        offsets: &[FileOffset],
    ) -> Result<()> {
        if self.java.machines.placed.contains(&(scope, file.mapped)) {
            return Ok(());
        }
        let mut guarded = guarded(scope, file, offsets)?;
        let path = file.descriptor_path();
        guarded.hold(
            self.engine
                .object
                .attach_usdt(offsets, &path, scope.pid())?,
        );
        self.engine.probes.guard(guarded);
        self.java.machines.placed.push((scope, file.mapped));
        Ok(())
    }
}

/// The places of a virtual machine's own probes, if all of them are in memory as
/// in the file.
///
/// # Errors
/// Says where not, and why.
pub(super) fn guarded(
    scope: Scope,
    file: &Arc<ModuleFile>,
    offsets: &[FileOffset],
) -> Result<Guarded> {
    let stretches = offsets
        .iter()
        .map(|offset| function("USDT probe", offset.0));
    let guarded = Guarded::new(scope, file, NAME, stretches.collect());
    require(scope, file, NAME, &guarded.stretches)?;
    Ok(guarded)
}

/// A site that can be watched: one in code, without a counter that would have
/// to be written to.
pub(super) fn usable(site: &Site) -> Option<(&Site, FileOffset)> {
    site.semaphore.is_none().then_some((site, site.offset?))
}

/// The address of what is at an offset of the mapped file.
fn address_of(mappings: &[CodeMapping], offset: FileOffset) -> Option<u64> {
    mappings.iter().find_map(|mapping| {
        let range = &mapping.range;
        let into = offset.0.checked_sub(range.file_offset.0)?;
        let address = range.start.0.checked_add(into)?;
        (address < range.end.0).then_some(address)
    })
}
