//! HotSpot from outside: its layouts, its code cache, and the names of its
//! frames and threads, all read from the target's memory. Nothing that is
//! found there is trusted.

pub mod fields;
pub mod layout;
pub mod libjvm;
pub mod memory;
pub mod places;
#[cfg(test)]
mod tests;
pub mod vmstructs;

use anyhow::{Context, Result};

use self::layout::Layout;
use self::libjvm::LibJvm;
use self::memory::ProcessMemory;
use self::places::Places;
use self::vmstructs::VmStructs;
use crate::process::code::CodeSpace;

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
            library,
            structs,
            layout,
            places,
            memory,
        }))
    }
}
