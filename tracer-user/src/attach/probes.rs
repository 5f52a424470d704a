//! The probes in place.
//!
//! They are placed one by one while the target runs on. Those of a run's
//! beginning count nothing until all are there. For those that come later
//! (an allocator that was just mapped) the order matters: frees are probed
//! first, so that no block seems leaked that was freed meanwhile, and a
//! function's return before its entry, so that no call seems abandoned.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::guarded::Guarded;
use super::inspect::require;
use super::stretch::Stretch;
use crate::allocator::{Allocator, AllocatorFunction, Probed};
use crate::jvm::libjvm::{LibJvm, NAME};
use crate::kernel::link::Link;
use crate::kernel::object::Object;
use crate::kernel::program::{Moment, Place};
use crate::process::address::FileOffset;
use crate::process::clock::monotonic_ns;
use crate::process::file::ModuleFile;
use crate::process::maps::FileId;
use crate::report::model::Probe;

/// `CodeCache::free(CodeBlob*)`, through which all code goes that HotSpot
/// frees. It is not exported.
const FREE_CODE: &str = "_ZN9CodeCache4freeEP8CodeBlob";

/// Functions of HotSpot's `AllocTracer` that are told of an object for which
/// a thread needed a new buffer, and of one outside of such buffers; each as
/// JDK 17 and later call it, and as 11 does.
const ALLOCATED: [&[&str]; 2] = [
    &[
        "_ZN11AllocTracer27send_allocation_in_new_tlabEP5KlassPP12HeapWordImplmmP10JavaThread",
        "_ZN11AllocTracer27send_allocation_in_new_tlabEP5KlassP8HeapWordmmP6Thread",
    ],
    &[
        "_ZN11AllocTracer28send_allocation_outside_tlabEP5KlassPP12HeapWordImplmP10JavaThread",
        "_ZN11AllocTracer28send_allocation_outside_tlabEP5KlassP8HeapWordmP6Thread",
    ],
];

/// Functions of the native interface that delete global handles, and those
/// that make them. They are not exported.
const DELETE_HANDLE: [&str; 2] = ["jni_DeleteGlobalRef", "jni_DeleteWeakGlobalRef"];
const NEW_HANDLE: [&str; 2] = ["jni_NewGlobalRef", "jni_NewWeakGlobalRef"];

/// The program that does nothing.
const EMPTY: &str = "uf_empty";

/// What `Thread.start` calls, which is exported.
const START_THREAD: &str = "JVM_StartThread";

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
    links: Vec<Link>,
    /// What is probed already.
    covered: Vec<Covered>,
    /// The same, with all other probes in processes, as it is looked at.
    guarded: Vec<Guarded>,
    /// Files that are left alone.
    refused: Vec<(Scope, FileId)>,
    /// When probes last came or went, nanoseconds of `CLOCK_MONOTONIC`.
    touched: HashMap<Scope, u64>,
}

/// A file that is probed.
struct Covered {
    scope: Scope,
    file: Arc<ModuleFile>,
    offsets: Vec<u64>,
}

impl Probes {
    /// Whether a file is probed in this scope, or is left alone for good.
    pub fn cover(&self, scope: Scope, file: FileId) -> bool {
        self.refused.contains(&(scope, file))
            || self
                .covered
                .iter()
                .any(|covered| covered.scope == scope && covered.file.mapped == file)
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
    pub fn guarded(&self) -> &[Guarded] {
        &self.guarded
    }

    /// Whether any probes of a file are in place in a scope.
    pub fn is_placed(&self, scope: Scope, file: FileId) -> bool {
        let mut guarded = self.guarded.iter();
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
    /// this place, that nobody wants it in this process, and so executes
    /// the file's instruction and puts the file's byte there for good
    /// (`UPROBE_HANDLER_REMOVE`). Without, it would send SIGTRAP.
    pub fn withdraw(&mut self, object: &mut Object, scope: Scope, file: FileId) {
        let is_it = |other: Scope, mapped: FileId| other == scope && mapped == file;
        self.covered
            .retain(|covered| !is_it(covered.scope, covered.file.mapped));
        let own = self
            .guarded
            .iter_mut()
            .filter(|guarded| guarded.is_placed() && is_it(guarded.scope, guarded.file.mapped));
        let mut links = Vec::new();
        for guarded in own {
            let known = known_to_us(object, guarded);
            links.extend(guarded.withdraw());
            guarded.hold(known);
        }
        drop_all(links);
        self.refuse(scope, file);
        self.touch(scope);
    }

    fn touch(&mut self, scope: Scope) {
        self.touched.insert(scope, monotonic_ns());
    }

    /// Keeps probes with what they depend on.
    pub fn guard(&mut self, guarded: Guarded) {
        self.touch(guarded.scope);
        self.guarded.push(guarded);
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
    ) -> Result<Vec<Probe>> {
        let file = allocator.file.descriptor_path();
        let stretches = allocator.functions.iter().map(AllocatorFunction::stretch);
        let mut guarded =
            Guarded::new(scope, &allocator.file, &allocator.path, stretches.collect());
        let steps = Moment::ALL.map(|moment| (moment, places(&allocator.functions, moment)));
        for (moment, places) in &steps {
            object.load_programs(*moment, places)?;
        }
        for (moment, places) in &steps {
            if places.is_empty() {
                continue;
            }
            let links = object
                .attach(*moment, places, &file, scope.pid())
                .with_context(|| format!("cannot probe {}", allocator.path))?;
            guarded.hold(links);
        }
        self.guard(guarded);
        self.covered.push(Covered {
            scope,
            file: Arc::clone(&allocator.file),
            offsets: allocator
                .functions
                .iter()
                .map(AllocatorFunction::probe_offset)
                .collect(),
        });
        Ok(allocator
            .functions
            .iter()
            .map(|function| describe(function, &allocator.path))
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

    /// Has the kernel side told of code that a JVM frees.
    ///
    /// # Errors
    /// Fails if the JVM's file does not say where that is, or the probe cannot
    /// be placed.
    pub fn watch_freed_code(
        &mut self,
        object: &mut Object,
        library: &LibJvm,
        scope: Scope,
    ) -> Result<()> {
        self.attach_to_library(object, library, scope, &[("uf_code_freed", &[FREE_CODE])])
    }

    /// Has the kernel side sample what a JVM allocates in its heap.
    ///
    /// # Errors
    /// See [`Probes::watch_freed_code`].
    pub fn watch_java_heap(
        &mut self,
        object: &mut Object,
        library: &LibJvm,
        scope: Scope,
    ) -> Result<()> {
        let places = ALLOCATED.map(|names| ("uf_java_object", names));
        self.attach_to_library(object, library, scope, &places)
            .context("cannot probe AllocTracer")
    }

    /// Has the kernel side follow the global handles that native code makes.
    ///
    /// # Errors
    /// See [`Probes::watch_freed_code`].
    pub fn watch_handles(
        &mut self,
        object: &mut Object,
        library: &LibJvm,
        scope: Scope,
    ) -> Result<()> {
        let [new, new_weak] = NEW_HANDLE;
        let [delete, delete_weak] = DELETE_HANDLE;
        let places: [(_, &[_]); 6] = [
            ("uf_del_handle", &[delete]),
            ("uf_del_handle", &[delete_weak]),
            ("uf_new_handle_r", &[new]),
            ("uf_new_handle_r", &[new_weak]),
            ("uf_new_handle", &[new]),
            ("uf_new_handle", &[new_weak]),
        ];
        self.attach_to_library(object, library, scope, &places)
    }

    /// Has the kernel side follow the Java threads that are started.
    ///
    /// # Errors
    /// See [`Probes::watch_freed_code`].
    pub fn watch_threads(
        &mut self,
        object: &mut Object,
        library: &LibJvm,
        scope: Scope,
    ) -> Result<()> {
        let places: [(_, &[_]); 2] = [
            ("uf_thread_ret", &[START_THREAD]),
            ("uf_thread", &[START_THREAD]),
        ];
        self.attach_to_library(object, library, scope, &places)
    }

    /// Attaches programs, in this order, each to the first of its symbols that
    /// the library has.
    fn attach_to_library(
        &mut self,
        object: &mut Object,
        library: &LibJvm,
        scope: Scope,
        places: &[(&str, &[&'static str])],
    ) -> Result<()> {
        let mut wanted: Vec<_> = places
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        wanted.dedup();
        let offsets = library.file_offsets(&wanted)?;
        let file = library.file().descriptor_path();
        let mut found = Vec::new();
        for (program, names) in places {
            let it = names
                .iter()
                .find_map(|name| Some((*name, *offsets.get(name)?)));
            let (name, offset) = it.context("the Java VM's library has no symbols")?;
            found.push((program, name, offset));
        }
        let mut stretches: Vec<_> = found
            .iter()
            .map(|(_, name, offset)| function(name, *offset))
            .collect();
        stretches.sort_by_key(|stretch| stretch.start);
        stretches.dedup();
        let mut guarded = Guarded::new(scope, library.file(), NAME, stretches);
        require(scope, library.file(), NAME, &guarded.stretches)?;
        for (program, _, offset) in found {
            guarded.hold([object.attach_one(program, offset, &file, scope.pid())?]);
        }
        self.guard(guarded);
        Ok(())
    }

    /// Takes over probes that were placed otherwise.
    pub fn keep(&mut self, links: impl IntoIterator<Item = Link>) {
        self.links.extend(links);
    }

    /// Takes all probes away. The kernel takes 0.1 s over each, but over all
    /// at once if they are asked for at once.
    pub fn detach(&mut self) {
        self.covered.clear();
        let guarded = self.guarded.iter_mut().flat_map(Guarded::take);
        drop_all(self.links.drain(..).chain(guarded).collect());
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Empty probes of ours at all places; those that cannot be placed are left out.
fn known_to_us(object: &mut Object, guarded: &Guarded) -> Vec<Link> {
    let path = guarded.file.descriptor_path();
    let us = Some(std::process::id());
    let stretches = guarded.stretches.iter();
    let places = stretches.flat_map(|stretch| &stretch.places);
    places
        .filter_map(|place| object.attach_one(EMPTY, *place, &path, us).ok())
        .collect()
}

/// Takes probes away, all at once.
fn drop_all(links: Vec<Link>) {
    std::thread::scope(|scope| {
        for link in links {
            scope.spawn(move || drop(link));
        }
    });
}

/// A function of unknown length, probed at its first instruction.
pub fn function(name: &str, offset: u64) -> Stretch {
    Stretch::new(name, FileOffset(offset), None, &[offset])
}

/// All functions of a Java VM that may be probed, those that its library has.
pub fn functions_of_vm(library: &LibJvm) -> Vec<Stretch> {
    let heap = ALLOCATED.into_iter().flatten().copied();
    let handles = NEW_HANDLE.into_iter().chain(DELETE_HANDLE);
    let names: Vec<_> = heap
        .chain(handles)
        .chain([FREE_CODE, START_THREAD])
        .collect();
    let offsets = library.file_offsets(&names).unwrap_or_default();
    let found = offsets.iter();
    found
        .map(|(name, offset)| function(name, *offset))
        .collect()
}

fn describe(function: &AllocatorFunction, path: &str) -> Probe {
    Probe {
        function: function.symbol.to_owned(),
        module: path.to_owned(),
        file_offset: function.probe_offset(),
        displacement: function.placement.displacement,
        placement: function.placement.to_string(),
    }
}

/// Where the functions are that are watched at a moment.
fn places(functions: &[AllocatorFunction], moment: Moment) -> Vec<Place> {
    functions
        .iter()
        .filter_map(|function| {
            let watched = match (function.probed, moment) {
                (Probed::Free, Moment::Free) => None,
                (Probed::Call(called), Moment::Return | Moment::Entry) => Some(called),
                _ => return None,
            };
            Some(Place {
                function: watched,
                offset: function.probe_offset(),
            })
        })
        .collect()
}
