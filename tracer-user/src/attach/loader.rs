//! Functions of libc and of dynamic loaders at which held threads stop.

use std::sync::Arc;

use anyhow::Result;

use super::guarded::Guarded;
use super::inspect::require;
use super::probes::{Probes, Scope};
use super::stretch::Stretch;
use super::symbols::{file_offset, find};
use crate::kernel::object::Object;
use crate::process::address::FileOffset;
use crate::process::file::ModuleFile;

/// What tells debuggers that libraries were mapped, before any of their code
/// runs. glibc's loader and musl's both export it: an empty function, but for a
/// return.
const LOADED: &str = "_dl_debug_state";

/// The system call ptrace(2).
const PTRACE: &str = "ptrace";

/// What has an own way to it: a thread of LeakSanitizer's looks at the others
/// so when the program ends.
const OWN_PTRACE: [&str; 2] = ["__asan_init", "__lsan_init"];

/// Where a file has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stops {
    loaded: Option<FileOffset>,
    ptrace: Option<FileOffset>,
    /// Whether it calls ptrace where it cannot be seen.
    pub hides_ptrace: bool,
}

impl Stops {
    /// Looks them up in a file.
    pub fn of(file: &ModuleFile) -> Self {
        let [asan, lsan] = OWN_PTRACE;
        let found = find(&file.content, &[LOADED, PTRACE, asan, lsan]).unwrap_or_default();
        let place = |name| {
            let symbol = found.iter().find(|symbol| symbol.name == name)?;
            Some(FileOffset(file_offset(&file.content, symbol.address)?))
        };
        Self {
            loaded: place(LOADED),
            ptrace: place(PTRACE),
            hides_ptrace: found.iter().any(|symbol| OWN_PTRACE.contains(&symbol.name)),
        }
    }

    /// Whether it is a loader, which tells of libraries.
    pub fn is_loader(&self) -> bool {
        self.loaded.is_some()
    }
}

impl Probes {
    /// Has held threads stop at a file's functions.
    ///
    /// # Errors
    /// Fails if a probe cannot be placed, or must not be.
    pub fn watch_stops(
        &mut self,
        object: &mut Object,
        file: &Arc<ModuleFile>,
        stops: &Stops,
        path: &str,
        scope: Scope,
    ) -> Result<()> {
        let places = [
            ("uf_loaded", LOADED, stops.loaded),
            ("uf_ptrace", PTRACE, stops.ptrace),
        ];
        let places: Vec<_> = places
            .into_iter()
            .filter_map(|(program, name, offset)| Some((program, name, offset?)))
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        let stretches: Vec<_> = places
            .iter()
            .map(|(_, name, offset)| Stretch::new(name, *offset, Some(1), &[offset.0]))
            .collect();
        require(scope, file, path, &stretches)?;
        let mut guarded = Guarded::new(scope, file, path, stretches);
        let place = file.descriptor_path();
        for (program, _, offset) in places {
            guarded.hold(object.attach_stop(program, offset, &place, scope.pid())?);
        }
        self.guard(guarded);
        Ok(())
    }
}
