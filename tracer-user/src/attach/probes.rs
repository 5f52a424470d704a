//! The probes in place.
//!
//! They are placed one by one while the target runs on. Those of a run's
//! beginning count nothing until all are there. For those that come later
//! (an allocator that was just mapped) the order matters: frees are probed
//! first, so that no block seems leaked that was freed meanwhile, and a
//! function's return before its entry, so that no call seems abandoned.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::library::LibraryCall;
use super::plan::{Plan, Returns, Step, plan};
use crate::allocator::{Allocator, AllocatorFunction, Probed};
use crate::kernel::link::Link;
use crate::kernel::object::Object;
use crate::kernel::program::{Moment, Place};
use crate::process::file::ModuleFile;
use crate::process::maps::FileId;
use crate::report::model::{Probe, UnseenFunction};

/// Which processes a probe fires in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    links: Vec<Held>,
    /// What is probed already.
    covered: Vec<Covered>,
    /// Calls of JVMs' libraries that are followed to their ends.
    pub(super) library_calls: Vec<LibraryCall>,
    pub(super) returns: Returns,
}

/// A link, and whether it stays if return addresses are to be left alone.
struct Held {
    link: Link,
    stays: bool,
}

/// A file that is probed.
struct Covered {
    scope: Scope,
    file: Arc<ModuleFile>,
    path: String,
    functions: Vec<AllocatorFunction>,
    offsets: Vec<u64>,
}

impl Covered {
    fn describe(&self, returns: Returns) -> Described {
        let unseen = plan(&self.functions, returns).unseen;
        let is_seen = |function: &&AllocatorFunction| {
            unseen.iter().all(|unseen| unseen.symbol != function.symbol)
        };
        let functions = self.functions.iter().filter(is_seen);
        Described {
            scope: self.scope,
            file: self.file.mapped,
            probes: functions
                .map(|function| describe(function, &self.path, returns))
                .collect(),
            unseen: unseen
                .into_iter()
                .map(|unseen| UnseenFunction {
                    function: unseen.symbol.to_owned(),
                    module: self.path.clone(),
                    reason: unseen.reason.to_string(),
                    seen_elsewhere: unseen.is_seen_elsewhere(),
                    was_told: false,
                })
                .collect(),
        }
    }
}

/// The probes of one file, in words.
pub struct Described {
    /// Which processes they fire in.
    pub scope: Scope,
    /// The file.
    pub file: FileId,
    /// Its functions.
    pub probes: Vec<Probe>,
    /// Its functions that are not probed.
    pub unseen: Vec<UnseenFunction>,
}

impl Probes {
    /// Whether a file is probed in this scope.
    pub fn cover(&self, scope: Scope, file: FileId) -> bool {
        self.covered
            .iter()
            .any(|covered| covered.scope == scope && covered.file.mapped == file)
    }

    /// Forgets what is probed in a scope, whose probes fire no more.
    pub fn uncover(&mut self, scope: Scope) {
        self.covered.retain(|covered| covered.scope != scope);
    }

    /// The files that are probed in a scope, and where.
    pub fn places(&self, scope: Scope) -> impl Iterator<Item = (&ModuleFile, &[u64])> {
        let own = self.covered.iter().filter(move |own| own.scope == scope);
        own.map(|covered| (&*covered.file, &covered.offsets[..]))
    }

    /// Probes an allocator.
    ///
    /// # Errors
    /// Fails if a probe that counts on the others cannot be placed; then
    /// those already placed stay until the end of the run.
    pub fn attach(
        &mut self,
        object: &mut Object,
        allocator: &Allocator,
        scope: Scope,
    ) -> Result<Described> {
        let file = allocator.file.descriptor_path();
        let plan = plan(&allocator.functions, self.returns);
        for step in &plan.steps {
            object.load_programs(step.moment, &step.places)?;
        }
        for step in &plan.steps {
            self.place(object, step, &file, scope)
                .with_context(|| format!("cannot probe {}", allocator.path))?;
        }
        let covered = Covered {
            scope,
            file: Arc::clone(&allocator.file),
            path: allocator.path.clone(),
            functions: allocator.functions.clone(),
            offsets: plan.offsets(),
        };
        let described = covered.describe(self.returns);
        self.covered.push(covered);
        Ok(described)
    }

    fn place(&mut self, object: &mut Object, step: &Step, file: &Path, scope: Scope) -> Result<()> {
        let links = object.attach(step.moment, &step.places, file, scope.pid())?;
        let stays = step.stays;
        let held = links.into_iter().map(|link| Held { link, stays });
        self.links.extend(held);
        Ok(())
    }

    /// How the results of calls are taken.
    pub fn returns(&self) -> Returns {
        self.returns
    }

    /// Leaves return addresses alone from now on: return instructions are
    /// probed, then return probes are taken away. A call that is under way ends
    /// at its return instruction. Functions whose ends are not certain lose all
    /// their probes. Returns what is probed now, all of it.
    ///
    /// # Errors
    /// Fails if a probe cannot be placed; then return probes stay.
    pub fn leave_returns_alone(&mut self, object: &mut Object) -> Result<Vec<Described>> {
        if self.returns == Returns::Instructions {
            return Ok(Vec::new());
        }
        let plans: Vec<Plan> = self
            .covered
            .iter()
            .map(|covered| plan(&covered.functions, Returns::Instructions))
            .collect();
        for (index, plan) in plans.iter().enumerate() {
            let covered = &self.covered[index];
            let (file, scope) = (covered.file.descriptor_path(), covered.scope);
            for step in plan.ends() {
                // A process that is gone has no return addresses either.
                match self.place(object, step, &file, scope) {
                    Err(error) if scope.is_alive() => return Err(error),
                    _ => {}
                }
            }
        }
        self.end_library_calls_at_instructions(object);
        self.returns = Returns::Instructions;
        object.leave_returns_alone()?;
        let (stay, go) = std::mem::take(&mut self.links)
            .into_iter()
            .partition(|held| held.stays);
        self.links = stay;
        take_away(go);
        for (covered, plan) in self.covered.iter_mut().zip(plans) {
            covered.offsets = plan.offsets();
        }
        let described = self.covered.iter();
        Ok(described
            .map(|covered| covered.describe(self.returns))
            .collect())
    }

    /// Takes the breakpoints out of untraced children of the traced processes.
    ///
    /// A fork copies them. Perf events remove them when a child runs into one;
    /// under a `uprobe_multi` link a child would go on to pay for each call.
    /// But when any probe of a place goes, the kernel looks into all processes
    /// for breakpoints there that nobody wants: so one comes and goes.
    pub fn release_children(&self, object: &mut Object) {
        for covered in &self.covered {
            let places: Vec<_> = covered
                .offsets
                .iter()
                .map(|offset| Place {
                    function: None,
                    offset: *offset,
                })
                .collect();
            let file = covered.file.descriptor_path();
            // If the process is gone, so are the breakpoints.
            if let Ok(links) = object.attach(Moment::Entry, &places, &file, covered.scope.pid()) {
                std::thread::spawn(move || drop(links));
            }
        }
    }

    /// Takes over probes that were placed otherwise.
    pub fn keep(&mut self, links: impl IntoIterator<Item = Link>) {
        let held = links.into_iter().map(|link| Held { link, stays: true });
        self.links.extend(held);
    }

    /// Takes all probes away.
    pub fn detach(&mut self) {
        self.covered.clear();
        for call in self.library_calls.drain(..) {
            let links = call.links.into_iter();
            self.links
                .extend(links.map(|link| Held { link, stays: true }));
        }
        take_away(std::mem::take(&mut self.links));
    }
}

/// Takes probes away. The kernel takes 0.1 s over each, but over all at once if
/// they are asked for at once.
fn take_away(links: Vec<Held>) {
    std::thread::scope(|scope| {
        for held in links {
            scope.spawn(move || drop(held.link));
        }
    });
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.detach();
    }
}

fn describe(function: &AllocatorFunction, path: &str, returns: Returns) -> Probe {
    Probe {
        function: function.symbol.to_owned(),
        module: path.to_owned(),
        file_offset: function.probe_offset(),
        displacement: function.placement.displacement,
        placement: function.placement.to_string(),
        result: match (function.probed, returns) {
            (Probed::Free, _) => String::new(),
            (Probed::Call(_), Returns::Replaced) if !function.may_throw => "return probe".into(),
            (Probed::Call(_), _) => function.ends_described(),
        },
    }
}
