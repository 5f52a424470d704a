//! Probes on functions of a JVM's library.

use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::linkage::Linkage;
use super::plan::Returns;
use super::probes::{Probes, Scope};
use super::returns::{Ends, Uncertain, ends};
use crate::jvm::libjvm::LibJvm;
use crate::kernel::link::Link;
use crate::kernel::object::Object;
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
    scope: Scope,
    file: Arc<ModuleFile>,
    /// The function's offset.
    start: u64,
    programs: &'static CallPrograms,
    /// Its probes, the entry last.
    pub(super) links: Vec<Link>,
}

impl LibraryCall {
    fn attach(&mut self, object: &mut Object, program: &str, offset: u64) -> Result<()> {
        let file = self.file.descriptor_path();
        let link = object.attach_one(program, offset, &file, self.scope.pid())?;
        self.links.push(link);
        Ok(())
    }

    fn end_at_probe(&mut self, object: &mut Object) -> Result<()> {
        self.attach(object, self.programs.probe, self.start)
    }

    fn end_at(&mut self, object: &mut Object, ends: &Ends) -> Result<()> {
        for offset in &ends.returns {
            self.attach(object, self.programs.instruction, *offset)?;
        }
        Ok(())
    }

    /// Its return instructions; no other ends are known what they mean.
    fn ends(&self, linkage: &Linkage) -> Result<Ends, Uncertain> {
        let ends = ends(&self.file.content, linkage, self.start)?;
        match ends.jumps.first() {
            Some(jump) => Err(Uncertain::OtherFile(*jump)),
            None => Ok(ends),
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
        let mut calls = Vec::new();
        for name in names {
            let offset = offsets
                .get(name)
                .context("the Java VM's library has no symbols")?;
            calls.push(LibraryCall {
                scope,
                file: Arc::clone(library.file()),
                start: *offset,
                programs,
                links: Vec::new(),
            });
        }
        for mut call in calls {
            match self.returns {
                Returns::Replaced => call.end_at_probe(object)?,
                Returns::Instructions => {
                    let linkage = Linkage::read(&call.file.content)?;
                    match call.ends(&linkage) {
                        Ok(ends) => call.end_at(object, &ends)?,
                        Err(reason) => bail!("it is not known where they end: {reason}"),
                    }
                }
            }
            call.attach(object, programs.entry, call.start)?;
            self.library_calls.push(call);
        }
        Ok(())
    }

    /// Has calls end at return instructions; calls whose ends are not certain
    /// are followed no longer.
    pub(super) fn end_library_calls_at_instructions(&mut self, object: &mut Object) {
        let mut read: Option<(Arc<ModuleFile>, Linkage)> = None;
        for call in &mut self.library_calls {
            if !matches!(&read, Some((file, _)) if Arc::ptr_eq(file, &call.file)) {
                let linkage = Linkage::read(&call.file.content).unwrap_or_default();
                read = Some((Arc::clone(&call.file), linkage));
            }
            let Some((_, linkage)) = &read else { continue };
            // Of a process that is gone nothing can be followed anyhow.
            let before = call.links.len();
            let ends = call.ends(linkage).ok();
            let placed = ends.is_some_and(|ends| call.end_at(object, &ends).is_ok());
            // The return probe is the first, the entry the last of before.
            let stays = call.links.split_off(before);
            let entry = call.links.pop();
            call.links.clear();
            if placed {
                call.links.extend(stays);
                call.links.extend(entry);
            }
        }
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
        for (program, names) in places {
            let offset = names.iter().find_map(|name| offsets.get(name));
            let offset = offset.context("the Java VM's library has no symbols")?;
            let link = object.attach_one(program, *offset, &file, scope.pid())?;
            self.keep([link]);
        }
        Ok(())
    }
}
