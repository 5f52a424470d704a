//! HotSpot from outside: its layouts, its code cache, and the names of its
//! frames and threads, all read from the target's memory. Nothing that is
//! found there is trusted.

pub mod attach;
pub mod code_cache;
pub mod counters;
pub mod fields;
pub mod frames;
pub mod growth;
pub mod heap_samples;
pub mod heap_watch;
pub mod histogram;
pub mod klass;
pub mod layout;
pub mod libjvm;
mod line_table;
pub mod memory;
pub mod method;
pub mod nmethod;
pub mod places;
mod scopes;
mod stream;
mod symbol;
#[cfg(test)]
pub(crate) mod tests;
pub mod threads;
pub mod unnamed;
pub mod vmstructs;

use std::sync::Arc;

use anyhow::{Context, Result};

use self::frames::{JavaFrame, JavaNames, Source};
use self::layout::Layout;
use self::libjvm::LibJvm;
use self::memory::ProcessMemory;
use self::places::Places;
use self::threads::{JavaThread, ThreadsLayout};
use self::unnamed::Unnamed;
use self::vmstructs::VmStructs;
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
    /// classes are unloaded. See [`Jvm::forget_classes`].
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

    /// The threads that can run Java code.
    ///
    /// # Errors
    /// Fails if the VM does not tell where its threads are, or is gone.
    pub fn threads(&self) -> Result<Vec<JavaThread>> {
        let layout = ThreadsLayout::of(&self.structs)?;
        let threads = layout.list(&self.memory, &self.process);
        threads.context("cannot read the Java VM's list of threads")
    }

    /// Forgets methods and classes: they may have been unloaded since, and
    /// others have their addresses. To be called now and then.
    pub fn forget_classes(&mut self) {
        self.names.forget_classes();
    }
}
