//! Which code `--module` and `--only` mean: from what was typed to ranges of files.
//!
//! It knows nothing of the kernel's maps, and of processes no more than where their
//! files are.

mod doors;
mod functions;
mod near;
mod paths;
mod ranges;

use std::ops::Range;
use std::path::Path;

use tracer_ebpf::rule::Rule;

use self::doors::Doors;
use self::functions::Pattern;
use self::near::Near;
pub use self::near::nearest_names;
pub use self::paths::Likeness;
use self::paths::Wanted;
pub use self::ranges::in_image;
use crate::process::file::ModuleFile;
use crate::process::handle::ProcessHandle;
use crate::symbolize::each_function;

/// Ranges of one file that are kept, at most; far more than an image may have.
const MAX_RANGES: usize = 4096;

/// What was asked for.
#[derive(Debug)]
pub struct Asked {
    modules: Vec<Wanted>,
    functions: Vec<Pattern>,
}

/// What of a file was asked for.
#[derive(Debug, Default)]
pub struct InFile {
    /// How its name is like those that were asked for: one for each, in their order.
    pub modules: Vec<Likeness>,
    /// Code of functions that were asked for, bytes in the file; sorted.
    pub functions: Vec<Range<u64>>,
    /// Which names of functions were found, in their order.
    pub found: Vec<bool>,
    /// Doors.
    pub doors: Vec<Door>,
    /// Names of its functions that are like those that were not found.
    near: Vec<Near>,
}

/// A part of a door: [`tracer_ebpf::origin`] has what a door is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Bytes in the file.
    pub range: Range<u64>,
    /// How its caller is found.
    pub rule: Rule,
}

impl InFile {
    /// Whether the file itself was asked for, by any name.
    pub fn is_asked(&self) -> bool {
        self.modules.iter().any(|it| *it != Likeness::Other)
    }

    /// Whether code at this place of the file was asked for.
    pub fn has(&self, offset: u64) -> bool {
        let is_door = self.doors.iter().any(|door| door.range.contains(&offset));
        let mut functions = self.functions.iter();
        !is_door && (self.is_asked() || functions.any(|range| range.contains(&offset)))
    }

    /// Whether anything of it was asked for.
    pub fn has_any(&self) -> bool {
        self.is_asked() || !self.functions.is_empty()
    }

    /// The names that are most like a function's that was not found.
    pub fn near(&self, function: usize) -> impl Iterator<Item = (u64, &str)> {
        self.near.get(function).into_iter().flat_map(Near::names)
    }
}

impl Asked {
    /// These names of files and functions; `None` if there is none.
    pub fn new(modules: &[String], functions: &[String]) -> Option<Self> {
        if modules.is_empty() && functions.is_empty() {
            return None;
        }
        Some(Self {
            modules: modules.iter().map(|name| Wanted::new(name)).collect(),
            functions: functions.iter().map(|name| Pattern::new(name)).collect(),
        })
    }

    /// The names of files, as they were typed.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().map(Wanted::typed)
    }

    /// The names of functions.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().map(Pattern::typed)
    }

    /// What of a file was asked for. `path` is the one that the process sees. A file that
    /// cannot be read has no functions.
    pub fn in_file(&self, process: &ProcessHandle, path: &Path, file: &ModuleFile) -> InFile {
        let mut doors = Doors::default();
        let mut found = InFile {
            modules: self
                .modules
                .iter()
                .map(|it| it.likeness(path, file))
                .collect(),
            found: vec![false; self.functions.len()],
            near: self.functions.iter().map(Near::new).collect(),
            ..InFile::default()
        };
        let mut others = Vec::new();
        let read = each_function(process, Some(path), file, &mut |name, range| {
            if doors.add(name, &range) {
                return;
            }
            let mut is_asked = false;
            for (index, pattern) in self.functions.iter().enumerate() {
                if pattern.matches(name) {
                    is_asked = true;
                    found.found[index] = true;
                } else if !found.found[index] {
                    found.near[index].see(name);
                }
            }
            match is_asked {
                true if found.functions.len() < MAX_RANGES => found.functions.push(range),
                true => {}
                false => others.push(range.start),
            }
        });
        // Without names there is none to find.
        if read.is_ok() {
            found.doors = doors.with_rules(file, path);
        }
        found.functions = ranges::merged(found.functions, others);
        found
    }
}
