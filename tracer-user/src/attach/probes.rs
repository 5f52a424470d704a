//! The probes in place.
//!
//! They are placed one by one while the target runs on. Those of a run's
//! beginning count nothing until all are there. For those that come later
//! (an allocator that was just mapped) the order matters: frees are probed
//! first, so that no block seems leaked that was freed meanwhile, and a
//! function's return before its entry, so that no call seems abandoned.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Error, Result};
use tracer_ebpf::call::Function;

use super::guarded::Guarded;
use super::known::Known;
use super::library::LibraryCall;
use super::plan::{Plan, Returns, Step, plan};
use crate::attach::allocator::{Allocator, AllocatorFunction};
use crate::kernel::link::Link;
use crate::kernel::object::Object;
use crate::kernel::program::{Counted, Moment, Place};
use crate::model::{Probe, UnseenFunction};
use crate::process::address::FileOffset;
use crate::process::clock::monotonic_ns;
use crate::process::file::ModuleFile;
use crate::process::maps::FileId;
use crate::symbolize::demangle;

/// Which processes a probe fires in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One process. Others that map the same file are not touched.
    Process(u32),
    /// Every process that maps the file: what following children needs, since
    /// a child runs before a probe of its own could be placed.
    Everyone,
}

impl Scope {
    /// Whether there may be anything to probe.
    fn is_alive(self) -> bool {
        self.pid()
            .is_none_or(|pid| Path::new(&format!("/proc/{pid}")).exists())
    }

    /// The process, if it is one.
    pub fn pid(self) -> Option<u32> {
        match self {
            Self::Process(pid) => Some(pid),
            Self::Everyone => None,
        }
    }
}

/// All probes of a run. Dropping it takes them away.
#[derive(Default)]
pub struct Probes {
    /// Probes in no target.
    links: Vec<Link>,
    /// What is probed already.
    covered: Vec<Covered>,
    /// Calls of JVMs' libraries that are followed to their ends.
    pub(super) library_calls: Vec<LibraryCall>,
    /// Other probes in processes, and what was withdrawn.
    others: Vec<Guarded>,
    pub(super) returns: Returns,
    /// Files that are left alone.
    refused: Vec<(Scope, FileId)>,
    /// Allocators of processes whose samplers tell what they allocate.
    known: Vec<Known>,
    /// When probes last came or went, nanoseconds of `CLOCK_MONOTONIC`.
    touched: HashMap<Scope, u64>,
    /// Whether probes that follow blocks are away for some time.
    are_away: bool,
}

/// An allocator that is probed.
struct Covered {
    guarded: Guarded,
    functions: Vec<AllocatorFunction>,
    offsets: Vec<u64>,
    is_alone: bool,
}

impl Covered {
    /// Whether its probes follow mappings alone.
    fn maps_only(&self) -> bool {
        let mut functions = self.functions.iter();
        functions.all(|function| function.probed.changes_mappings())
    }

    fn describe(&self, returns: Returns) -> Described {
        let plan = plan(&self.functions, returns);
        let probed = plan.probed(&self.functions);
        let path = &self.guarded.path;
        Described {
            scope: self.guarded.scope,
            file: self.guarded.file.mapped,
            is_pool: self
                .functions
                .iter()
                .any(|function| function.probed.is_pools()),
            probes: probed
                .map(|function| describe(function, path, returns))
                .collect(),
            unseen: plan
                .unseen
                .iter()
                .map(|unseen| UnseenFunction {
                    function: demangle(&unseen.symbol),
                    module: path.clone(),
                    reason: unseen.describe(),
                    seen_elsewhere: unseen.is_seen_elsewhere(),
                    was_told: false,
                })
                .collect(),
        }
    }
}

/// A process in which the kernel refuses a probe, and why.
pub type Refused = (u32, Error);

/// The probes of one file, in words.
pub struct Described {
    /// Which processes they fire in.
    pub scope: Scope,
    /// The file.
    pub file: FileId,
    /// Whether it is a pool, which frees for others below.
    pub is_pool: bool,
    /// Its functions.
    pub probes: Vec<Probe>,
    /// Its functions that are not probed.
    pub unseen: Vec<UnseenFunction>,
}

impl Probes {
    /// Whether a file is probed in this scope, or is left alone for good.
    pub fn cover(&self, scope: Scope, file: FileId) -> bool {
        let is_it = |guarded: &Guarded| guarded.scope == scope && guarded.file.mapped == file;
        self.refused.contains(&(scope, file)) || self.covered.iter().any(|it| is_it(&it.guarded))
    }

    /// Leaves a file alone in a scope.
    pub fn refuse(&mut self, scope: Scope, file: FileId) {
        self.refused.push((scope, file));
    }

    /// Whether files were left alone in a scope; from now on none is, since
    /// what is in it was replaced.
    pub fn forgive(&mut self, scope: Scope) -> bool {
        let before = self.refused.len();
        self.refused.retain(|(refused, _)| *refused != scope);
        self.refused.len() < before
    }

    /// Everything that is probed in processes, or was until it was withdrawn.
    pub fn guarded(&self) -> impl Iterator<Item = &Guarded> {
        let covered = self.covered.iter().map(|covered| &covered.guarded);
        let calls = self.library_calls.iter().map(|call| &call.guarded);
        covered.chain(calls).chain(&self.others)
    }

    /// Whether any probes of a file are in place in a scope.
    pub fn is_placed(&self, scope: Scope, file: FileId) -> bool {
        let mut guarded = self.guarded();
        guarded.any(|it| it.is_placed() && it.scope == scope && it.file.mapped == file)
    }

    /// When probes last came or went in a scope, nanoseconds of
    /// `CLOCK_MONOTONIC`.
    pub fn touched(&self, scope: Scope) -> Option<u64> {
        self.touched.get(&scope).copied()
    }

    /// Takes the probes of a file away at once: something has changed its code in
    /// memory. What has may have saved our breakpoints as parts of the code, and
    /// may put them back, so somebody must know them until the end of the run.
    ///
    /// That is an empty probe of each place that fires in ourselves only. The
    /// kernel never writes it into another process. But where a process runs into
    /// a breakpoint that was put back, the kernel finds that there is a probe of
    /// this place, and executes the file's instruction; without, it would send
    /// SIGTRAP. That nobody wants a probe in this process the kernel notices too,
    /// and puts the file's byte back: at once on the perf road
    /// (`UPROBE_HANDLER_REMOVE`), and else when our empty probe goes.
    ///
    /// # Errors
    /// The probes went, but the empty ones cannot be placed.
    pub fn withdraw(&mut self, object: &mut Object, scope: Scope, file: FileId) -> Result<()> {
        let is_it = |guarded: &Guarded| guarded.scope == scope && guarded.file.mapped == file;
        let covered = self.covered.extract_if(.., |it| is_it(&it.guarded));
        let mut own: Vec<Guarded> = covered.map(|it| it.guarded).collect();
        let calls = self.library_calls.extract_if(.., |it| is_it(&it.guarded));
        own.extend(calls.map(|it| it.guarded));
        own.extend(self.others.extract_if(.., |it| it.is_placed() && is_it(it)));
        let mut links = Vec::new();
        let mut result = Ok(());
        for guarded in &mut own {
            let known = known_to_us(object, guarded);
            links.extend(guarded.withdraw());
            match known {
                Ok(known) => guarded.hold(known),
                Err(error) => result = Err(error),
            }
        }
        drop_all(links);
        self.others.extend(own);
        self.refuse(scope, file);
        self.touch(scope);
        result
    }

    pub(super) fn touch(&mut self, scope: Scope) {
        self.touched.insert(scope, monotonic_ns());
    }

    /// Keeps probes with what they depend on.
    pub fn guard(&mut self, guarded: Guarded) {
        self.touch(guarded.scope);
        self.others.push(guarded);
    }

    /// Forgets what is probed in a scope, whose probes fire no more.
    pub fn uncover(&mut self, scope: Scope) {
        let covered = self
            .covered
            .extract_if(.., |covered| covered.guarded.scope == scope);
        self.others.extend(covered.map(|covered| covered.guarded));
    }

    /// Takes all probes of a scope away.
    pub fn remove(&mut self, scope: Scope) {
        let is_it = |guarded: &Guarded| guarded.scope == scope;
        let covered = self.covered.extract_if(.., |it| is_it(&it.guarded));
        let mut own: Vec<Guarded> = covered.map(|it| it.guarded).collect();
        let calls = self.library_calls.extract_if(.., |it| is_it(&it.guarded));
        own.extend(calls.map(|it| it.guarded));
        // What was withdrawn has to stay known; see there.
        own.extend(self.others.extract_if(.., |it| it.is_placed() && is_it(it)));
        drop_all(own.iter_mut().flat_map(Guarded::take).collect());
        self.touch(scope);
    }

    /// The files that are probed in a scope, and where.
    pub fn places(&self, scope: Scope) -> impl Iterator<Item = (&ModuleFile, &[u64])> {
        let own = self
            .covered
            .iter()
            .filter(move |own| own.guarded.scope == scope);
        own.map(|covered| (&*covered.guarded.file, &covered.offsets[..]))
    }

    /// Whether a return address in a file says that an allocator is at work.
    pub fn allocate_at(&self, file: FileId, offset: FileOffset) -> bool {
        let mut covered = self.covered.iter();
        covered.any(|covered| {
            let mut functions = covered.functions.iter();
            covered.guarded.file.mapped == file
                && (covered.is_alone || functions.any(|it| it.allocates_at(offset)))
        }) || self
            .known
            .iter()
            .any(|known| known.allocator.file.mapped == file && known.allocates_at(offset))
    }

    /// Keeps in mind where an allocator is that gets no probes.
    pub fn know(&mut self, allocator: &Allocator) {
        if !self.knows(allocator.file.mapped) {
            self.known.push(Known::of(allocator));
        }
    }

    /// Whether it is in mind; see [`Probes::know`].
    pub fn knows(&self, file: FileId) -> bool {
        let mut known = self.known.iter();
        known.any(|known| known.allocator.file.mapped == file)
    }

    /// Takes the probes of all allocators of a scope away, and keeps in mind where they
    /// are.
    pub fn give_up_allocators(&mut self, scope: Scope) {
        let allocators = self.allocators();
        for (_, allocator) in allocators.iter().filter(|(own, _)| *own == scope) {
            self.know(allocator);
        }
        let covered = self
            .covered
            .extract_if(.., |covered| covered.guarded.scope == scope);
        let mut gone: Vec<_> = covered.map(|covered| covered.guarded).collect();
        if !gone.is_empty() {
            drop_all(gone.iter_mut().flat_map(Guarded::take).collect());
            self.touch(scope);
        }
    }

    /// The allocators that are probed, with the functions that they have.
    pub fn allocators(&self) -> Vec<(Scope, Allocator)> {
        let covered = self.covered.iter();
        covered
            .map(|covered| {
                let allocator = Allocator {
                    file: Arc::clone(&covered.guarded.file),
                    path: covered.guarded.path.clone(),
                    functions: covered.functions.clone(),
                    is_alone: covered.is_alone,
                };
                (covered.guarded.scope, allocator)
            })
            .collect()
    }

    /// Probes an allocator.
    ///
    /// # Errors
    /// Fails if a probe that counts on the others cannot be placed; then none
    /// stays.
    pub fn attach(
        &mut self,
        object: &mut Object,
        allocator: &Allocator,
        scope: Scope,
    ) -> Result<Described> {
        let plan = plan(&allocator.functions, self.returns);
        for step in &plan.steps {
            object.load_programs(step.moment, &step.places)?;
        }
        let stretches = plan.stretches(&allocator.functions, self.returns);
        let guarded = Guarded::new(scope, &allocator.file, &allocator.path, stretches);
        let mut covered = Covered {
            guarded,
            functions: allocator.functions.clone(),
            offsets: plan.offsets(),
            is_alone: allocator.is_alone,
        };
        if !self.are_away || covered.maps_only() {
            for step in &plan.steps {
                place(object, step, &mut covered.guarded)
                    .with_context(|| format!("cannot probe {}", allocator.path))?;
            }
        }
        let described = covered.describe(self.returns);
        self.touch(scope);
        self.covered.push(covered);
        Ok(described)
    }

    /// Gives up the probes that follow blocks for some time; they go when they are
    /// dropped. What comes meanwhile is probed by [`Self::bring_back`].
    pub fn take_away(&mut self) -> Vec<Link> {
        self.are_away = true;
        let covered = self.covered.iter_mut().filter(|it| !it.maps_only());
        covered.flat_map(|it| it.guarded.take()).collect()
    }

    /// Places those probes again. Returns processes in which the kernel refuses one.
    pub fn bring_back(&mut self, object: &mut Object) -> Vec<Refused> {
        self.are_away = false;
        let mut refused = Vec::new();
        let returns = self.returns;
        for covered in self.covered.iter_mut().filter(|it| !it.maps_only()) {
            let steps = plan(&covered.functions, returns).steps;
            let placed = steps
                .iter()
                .try_for_each(|step| place(object, step, &mut covered.guarded));
            let scope = covered.guarded.scope;
            if let (Err(error), Some(pid)) = (placed, scope.pid())
                && scope.is_alive()
            {
                refused.push((pid, error));
            }
        }
        refused
    }

    /// Whether probes that follow blocks are away for some time.
    pub fn are_away(&self) -> bool {
        self.are_away
    }

    /// How the results of calls are taken.
    pub fn returns(&self) -> Returns {
        self.returns
    }

    /// Leaves return addresses alone from now on: return instructions are
    /// probed, then return probes are taken away. A call that is under way ends
    /// at its return instruction. Functions whose ends are not certain lose all
    /// their probes. Returns what is probed now, all of it, and processes that
    /// have to be given up, since the kernel refuses a probe in them.
    ///
    /// # Errors
    /// Fails if a probe of everyone cannot be placed; then return probes stay.
    pub fn leave_returns_alone(
        &mut self,
        object: &mut Object,
    ) -> Result<(Vec<Described>, Vec<Refused>)> {
        if self.returns == Returns::Instructions {
            return Ok((Vec::new(), Vec::new()));
        }
        let mut refused = Vec::new();
        let returns = Returns::Instructions;
        let plans: Vec<Plan> = self
            .covered
            .iter()
            .map(|covered| plan(&covered.functions, returns))
            .collect();
        let are_away = self.are_away;
        let is_here = |covered: &Covered| !are_away || covered.maps_only();
        for (covered, plan) in self.covered.iter_mut().zip(&plans) {
            if !is_here(covered) {
                continue;
            }
            for step in plan.ends() {
                let placed = place(object, step, &mut covered.guarded);
                match (placed, covered.guarded.scope) {
                    (Err(error), Scope::Everyone) => return Err(error),
                    // A process that is gone has no return addresses either.
                    (Err(error), Scope::Process(pid)) if covered.guarded.scope.is_alive() => {
                        refused.push((pid, error));
                    }
                    _ => {}
                }
            }
        }
        if object.has_sessions() {
            // They tell of entries, too. Until there are none, other links do not count.
            let plans = self.covered.iter_mut().zip(&plans);
            for (covered, plan) in plans.filter(|(covered, _)| is_here(covered)) {
                enter_without_sessions(object, plan, &mut covered.guarded)?;
            }
        }
        let mut gone = self.end_library_calls_at_instructions(object);
        self.returns = returns;
        object.leave_returns_alone()?;
        for (covered, plan) in self.covered.iter_mut().zip(plans) {
            let stretches = plan.stretches(&covered.functions, returns);
            gone.extend(covered.guarded.leave_returns_alone(stretches));
            covered.offsets = plan.offsets();
        }
        drop_all(gone);
        let scopes: Vec<_> = self.guarded().map(|guarded| guarded.scope).collect();
        scopes.into_iter().for_each(|scope| self.touch(scope));
        let covered = self.covered.iter();
        let described = covered.map(|covered| covered.describe(returns));
        Ok((described.collect(), refused))
    }

    /// Takes the breakpoints out of untraced children of the traced processes.
    ///
    /// A fork copies them. Perf events remove them when a child runs into one;
    /// under a `uprobe_multi` link a child would go on to pay for each call.
    /// But when any probe of a place goes, the kernel looks into all processes
    /// for breakpoints there that nobody wants: so one comes and goes.
    pub fn release_children(&self, object: &mut Object) {
        let is_here = |covered: &&Covered| !self.are_away || covered.maps_only();
        for covered in self.covered.iter().filter(is_here) {
            let places: Vec<_> = covered
                .offsets
                .iter()
                .map(|offset| Place::new(None, *offset))
                .collect();
            let file = covered.guarded.file.descriptor_path();
            // If the process is gone, so are the breakpoints.
            if let Ok(links) =
                object.attach(Moment::Entry, &places, &file, covered.guarded.scope.pid())
            {
                std::thread::spawn(move || drop(links));
            }
        }
    }

    /// Takes over probes that are in no target.
    pub fn keep(&mut self, links: impl IntoIterator<Item = Link>) {
        self.links.extend(links);
    }

    /// Takes all probes away.
    pub fn detach(&mut self) {
        let covered = self.covered.drain(..).map(|covered| covered.guarded);
        let calls = self.library_calls.drain(..).map(|call| call.guarded);
        let guarded = covered.chain(calls).chain(self.others.drain(..));
        let links = guarded.flat_map(|mut guarded| guarded.take());
        let all = links.chain(self.links.drain(..)).collect();
        drop_all(all);
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.detach();
    }
}

fn place(object: &mut Object, step: &Step, guarded: &mut Guarded) -> Result<()> {
    let (file, pid) = (guarded.file.descriptor_path(), guarded.scope.pid());
    let links = match step.moment {
        Moment::Return if object.has_sessions() => {
            vec![object.attach_session(&step.places, &file, pid)?]
        }
        // Those of the other functions are in session links.
        Moment::Entry if object.has_sessions() => {
            let thrown = only(&step.places, Function::may_throw);
            attach_any(object, &thrown, &file, pid)?
        }
        moment => object.attach(moment, &step.places, &file, pid)?,
    };
    guarded.hold_as(step.stays, links);
    Ok(())
}

/// Probes the entries that session links have told of. A process that is gone needs none.
fn enter_without_sessions(object: &mut Object, plan: &Plan, guarded: &mut Guarded) -> Result<()> {
    let (file, scope) = (guarded.file.descriptor_path(), guarded.scope);
    let entries = plan
        .steps
        .iter()
        .filter(|step| step.moment == Moment::Entry);
    for step in entries {
        let others = only(&step.places, |function| !function.may_throw());
        match attach_any(object, &others, &file, scope.pid()) {
            Ok(links) => guarded.hold_as(step.stays, links),
            Err(error) if scope.is_alive() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(())
}

fn only(places: &[Place], is_wanted: impl Fn(Function) -> bool) -> Vec<Place> {
    let is_wanted = |place: &&Place| place.function.is_some_and(&is_wanted);
    places.iter().filter(is_wanted).copied().collect()
}

fn attach_any(
    object: &mut Object,
    entries: &[Place],
    file: &Path,
    pid: Option<u32>,
) -> Result<Vec<Link>> {
    match entries {
        [] => Ok(Vec::new()),
        entries => object.attach(Moment::Entry, entries, file, pid),
    }
}

/// Empty probes of ours at all places.
fn known_to_us(object: &mut Object, guarded: &Guarded) -> Result<Vec<Link>> {
    let stretches = guarded.stretches.iter();
    let mut places: Vec<_> = stretches
        .flat_map(|stretch| stretch.places.iter().copied())
        .collect();
    places.sort_unstable();
    places.dedup();
    // The kernel takes no two probes of a place that differ in the semaphore.
    let counted = |offset: u64| Counted {
        offset,
        counter: guarded.counters.get(&offset).copied().unwrap_or(0),
        cookie: 0,
    };
    let places: Vec<_> = places.into_iter().map(counted).collect();
    let us = Some(std::process::id());
    object.attach_empty_counted(&places, &guarded.file.descriptor_path(), us)
}

/// Takes probes away. The kernel takes 0.1 s over each, but over all at once if
/// they are asked for at once.
pub fn drop_all(links: Vec<Link>) {
    std::thread::scope(|scope| {
        for link in links {
            scope.spawn(move || drop(link));
        }
    });
}

fn describe(function: &AllocatorFunction, path: &str, returns: Returns) -> Probe {
    Probe {
        function: demangle(&function.symbol),
        module: path.to_owned(),
        file_offset: function.probe_offset(),
        displacement: function.placement.first.displacement,
        placement: function.placement.to_string(),
        result: match (function.probed, returns) {
            (probed, _) if probed.frees() => String::new(),
            (_, Returns::Replaced) if !function.may_throw => "return probe".into(),
            _ => function.ends_described(),
        },
    }
}
