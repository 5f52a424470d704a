//! Probes on functions of a JVM's library.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

use super::guarded::Guarded;
use super::inspect::require;
use super::linkage::Linkage;
use super::plan::Returns;
use super::probes::{Probes, Scope};
use super::returns::{Ends, Uncertain, ends};
use super::stretch::Stretch;
use crate::jvm::libjvm::{LibJvm, NAME};
use crate::kernel::link::Link;
use crate::kernel::object::Object;
use crate::process::address::FileOffset;
use crate::process::file::ModuleFile;

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

/// The programs that follow a call.
struct CallPrograms {
    entry: &'static str,
    /// At a return probe.
    probe: &'static str,
    /// At a return instruction.
    instruction: &'static str,
}

const HANDLE_PROGRAMS: CallPrograms = CallPrograms {
    entry: "uf_new_handle",
    probe: "uf_new_handle_r",
    instruction: "uf_handle_end",
};

const THREAD_PROGRAMS: CallPrograms = CallPrograms {
    entry: "uf_thread",
    probe: "uf_thread_ret",
    instruction: "uf_thread_end",
};

/// What `Thread.start` calls, which is exported.
const START_THREAD: &str = "JVM_StartThread";

/// Calls of one function that are followed from entry to end.
pub(super) struct LibraryCall {
    name: &'static str,
    /// The function's offset.
    start: u64,
    programs: &'static CallPrograms,
    /// Its probes.
    pub(super) guarded: Guarded,
}

impl LibraryCall {
    fn attach(
        &mut self,
        object: &mut Object,
        program: &str,
        offset: u64,
        stays: bool,
    ) -> Result<()> {
        let file = self.guarded.file.descriptor_path();
        let link = object.attach_one(program, offset, &file, self.guarded.scope.pid())?;
        self.guarded.hold_as(stays, [link]);
        Ok(())
    }

    fn end_at_probe(&mut self, object: &mut Object) -> Result<()> {
        self.attach(object, self.programs.probe, self.start, false)
    }

    fn end_at(&mut self, object: &mut Object, ends: &Ends) -> Result<()> {
        for offset in &ends.returns {
            self.attach(object, self.programs.instruction, *offset, true)?;
        }
        Ok(())
    }

    /// Its return instructions; no other ends are known what they mean.
    fn ends(&self, linkage: &Linkage) -> Result<Ends, Uncertain> {
        let ends = ends(&self.guarded.file.content, linkage, self.start)?;
        match ends.jumps.first() {
            Some(jump) => Err(Uncertain::OtherFile(*jump)),
            None => Ok(ends),
        }
    }

    /// What has to be in memory as it is in the file.
    fn stretches(&self, ends: Option<&Ends>) -> Vec<Stretch> {
        let ends = ends.into_iter().flat_map(|ends| ends.stretches(self.name));
        std::iter::once(function(self.name, self.start))
            .chain(ends)
            .collect()
    }

    /// Has it end at return instructions in place of its return probe. The
    /// probes that went; all of them, and an error, if that cannot be done.
    fn leave_returns_alone(&mut self, object: &mut Object, linkage: &Linkage) -> Vec<Link> {
        let placed = self
            .ends(linkage)
            .map_err(|reason| anyhow!("{reason}"))
            .and_then(|ends| {
                let stretches = self.stretches(Some(&ends));
                let guarded = &self.guarded;
                require(guarded.scope, &guarded.file, &guarded.path, &stretches)?;
                self.end_at(object, &ends)?;
                Ok(stretches)
            });
        match placed {
            Ok(stretches) => self.guarded.leave_returns_alone(stretches),
            Err(_) => self.guarded.withdraw(),
        }
    }
}

impl Probes {
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
    /// See [`Probes::watch_freed_code`]; and fails if return addresses are left
    /// alone and it is not certain where these functions return.
    pub fn watch_handles(
        &mut self,
        object: &mut Object,
        library: &LibJvm,
        scope: Scope,
    ) -> Result<()> {
        let [delete, delete_weak] = DELETE_HANDLE;
        let places: [(_, &[_]); 2] = [
            ("uf_del_handle", &[delete]),
            ("uf_del_handle", &[delete_weak]),
        ];
        self.attach_to_library(object, library, scope, &places)?;
        self.follow_calls(object, library, scope, &NEW_HANDLE, &HANDLE_PROGRAMS)
    }

    /// Has the kernel side follow the Java threads that are started.
    ///
    /// # Errors
    /// See [`Probes::watch_handles`].
    pub fn watch_threads(
        &mut self,
        object: &mut Object,
        library: &LibJvm,
        scope: Scope,
    ) -> Result<()> {
        self.follow_calls(object, library, scope, &[START_THREAD], &THREAD_PROGRAMS)
    }

    /// Follows calls of functions from entry to end.
    fn follow_calls(
        &mut self,
        object: &mut Object,
        library: &LibJvm,
        scope: Scope,
        names: &[&'static str],
        programs: &'static CallPrograms,
    ) -> Result<()> {
        let offsets = library.file_offsets(names)?;
        let linkage = match self.returns {
            Returns::Replaced => None,
            Returns::Instructions => Some(Linkage::read(&library.file().content)?),
        };
        let mut calls = Vec::new();
        for name in names {
            let start = *offsets
                .get(name)
                .context("the Java VM's library has no symbols")?;
            let mut call = LibraryCall {
                name,
                start,
                programs,
                guarded: Guarded::new(scope, library.file(), NAME, Vec::new()),
            };
            let ends = linkage.as_ref().map(|linkage| call.ends(linkage));
            let ends = ends.transpose();
            let ends =
                ends.map_err(|reason| anyhow!("it is not known where they end: {reason}"))?;
            call.guarded.stretches = call.stretches(ends.as_ref()).into();
            require(scope, library.file(), NAME, &call.guarded.stretches)?;
            calls.push((call, ends));
        }
        for (mut call, ends) in calls {
            match ends {
                None => call.end_at_probe(object)?,
                Some(ends) => call.end_at(object, &ends)?,
            }
            call.attach(object, programs.entry, call.start, true)?;
            self.library_calls.push(call);
        }
        self.touch(scope);
        Ok(())
    }

    /// Has calls end at return instructions; calls whose ends are not certain
    /// are followed no longer. Returns the probes that are no longer wanted.
    pub(super) fn end_library_calls_at_instructions(&mut self, object: &mut Object) -> Vec<Link> {
        let mut read: Option<(Arc<ModuleFile>, Linkage)> = None;
        let mut gone = Vec::new();
        for call in &mut self.library_calls {
            let file = &call.guarded.file;
            if !matches!(&read, Some((known, _)) if Arc::ptr_eq(known, file)) {
                let linkage = Linkage::read(&file.content).unwrap_or_default();
                read = Some((Arc::clone(file), linkage));
            }
            if let Some((_, linkage)) = &read {
                gone.extend(call.leave_returns_alone(object, linkage));
            }
        }
        gone
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
