//! HotSpot from outside: its layouts, its code cache, and the names of its
//! frames and threads, all read from the target's memory. Nothing that is
//! found there is trusted.

pub mod account;
pub mod attach;
mod boot_classes;
mod buffers;
pub mod cache;
pub mod class_loaders;
pub mod code_cache;
mod collections;
pub mod counters;
pub mod events;
pub mod fields;
mod fillers;
pub mod flags;
pub mod flight;
pub mod frames;
pub mod growth;
pub mod heap_samples;
pub mod heap_watch;
pub mod histogram;
pub mod holders;
mod java_fields;
pub mod klass;
pub mod layout;
pub mod libjvm;
mod line_table;
pub mod memory;
pub mod method;
pub mod nmethod;
mod nmt;
mod objects;
pub mod perf_map;
pub mod places;
mod pool;
mod scopes;
mod stacks;
mod stream;
mod symbol;
#[cfg(test)]
pub(crate) mod tests;
mod thread_name;
pub mod threads;
pub mod told_code;
pub mod unnamed;
pub mod vmstructs;

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};

use self::frames::{JavaFrame, JavaNames, Source};
use self::layout::Layout;
use self::libjvm::LibJvm;
use self::memory::ProcessMemory;
use self::places::Places;
use self::thread_name::ThreadNames;
use self::threads::{JavaThread, ThreadsLayout};
use self::unnamed::Unnamed;
use self::vmstructs::VmStructs;
use crate::model::java_native::NativeView;
use crate::process::code::CodeSpace;
use crate::process::handle::ProcessHandle;

/// The Java VM of a process.
pub struct Jvm {
    /// Its library.
    pub library: LibJvm,
    /// What it exports about itself.
    pub structs: VmStructs,
    /// Where in its objects things are.
    pub layout: Layout,
    /// Where its code is.
    pub places: Places,
    /// The process's memory.
    pub memory: ProcessMemory,
    process: ProcessHandle,
    names: JavaNames,
}

impl Jvm {
    /// The VM of a process, if it has one.
    ///
    /// # Errors
    /// Fails if it has one that cannot be read: because its layout is
    /// unknown, it has just started (ask again), or it is gone.
    pub fn find(code: &CodeSpace) -> Result<Option<Self>> {
        let Some(library) = LibJvm::find(code)? else {
            return Ok(None);
        };
        let memory = ProcessMemory::open(code.process())
            .context("cannot open the memory of the Java VM's process")?;
        let structs = VmStructs::read(&library, &memory)?;
        let layout = Layout::of(&structs)?;
        let places = Places::read(&structs, &layout, &library, &memory)?;
        Ok(Some(Jvm {
            process: code.process().clone(),
            names: JavaNames::new(&structs, &memory),
            library,
            structs,
            layout,
            places,
            memory,
        }))
    }

    /// The Java frames of a word of a stack, innermost first; never none.
    /// Words should be named soon after they appear: code is freed, and
    /// classes are unloaded.
    ///
    /// # Errors
    /// The reason why there is no name.
    pub fn name(&mut self, word: u64) -> Result<Arc<[JavaFrame]>, Unnamed> {
        let vm = Source {
            memory: &self.memory,
            layout: &self.layout,
            places: &self.places,
        };
        self.names.name(vm, word)
    }

    /// Where its collector keeps the Java heap: what is reserved for that.
    /// `None` if the VM does not tell, or not yet.
    pub fn java_heap(&self) -> Option<Range<u64>> {
        places::java_heap(&self.structs, &self.memory)
    }

    /// The threads that can run Java code.
    ///
    /// # Errors
    /// Fails if the VM does not tell where its threads are, or is gone.
    pub fn threads(&self) -> Result<Vec<JavaThread>> {
        let layout = ThreadsLayout::of(&self.structs)?;
        let mut threads = layout
            .list(&self.memory, &self.process)
            .context("cannot read the Java VM's list of threads")?;
        if let Ok(Some(names)) = ThreadNames::of(&self.structs, &self.memory) {
            for thread in &mut threads {
                if let Some(name) = names.name(&self.memory, thread.address) {
                    thread.name = name;
                }
            }
        }
        Ok(threads)
    }

    /// Its buffers outside of the Java heap and its threads' stacks, now;
    /// `None` until it has begun to run Java code. The time is not set.
    pub fn native(&self) -> Option<NativeView> {
        let (buffers, buffers_problem) = match buffers::read(&self.structs, &self.memory) {
            Ok(None) => return None,
            Ok(buffers) => (buffers, None),
            Err(problem) => (None, Some(format!("{problem:#}"))),
        };
        let (stacks, stacks_problem) = match stacks::read(self) {
            Ok(stacks) => (Some(stacks), None),
            Err(problem) => (None, Some(format!("{problem:#}"))),
        };
        let (loaders, loaders_problem) = match class_loaders::count(self) {
            Ok(loaders) => (Some(loaders), None),
            Err(problem) => (None, Some(format!("{problem:#}"))),
        };
        Some(NativeView {
            at: 0.0,
            buffers,
            buffers_problem,
            class_loaders: loaders,
            class_loaders_problem: loaders_problem,
            stacks,
            stacks_problem,
        })
    }
}
