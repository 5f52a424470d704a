//! Which allocators a process has, and where their functions are.

mod api;
mod choose;
mod declared;
mod elf;
mod traces;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;
use rustix::fs::{Mode, OFlags};
use tracer_ebpf::call::Function;

pub use self::api::Probed;
pub use self::declared::Declared;
use crate::attach::linkage::Linkage;
use crate::attach::placement::{Needs, Placement, Step, place};
use crate::attach::plan::Returns;
use crate::attach::returns::{Ends, Uncertain, ends};
use crate::attach::stretch::Stretch;
use crate::kernel::link::cookies;
use crate::kernel::program::Place;
use crate::process::address::FileOffset;
use crate::process::code::CodeSpace;
use crate::process::file::{ModuleFile, RegularFile};
use crate::process::maps::FileId;

/// What to look for, in the words of an error message.
pub const LOOKED_FOR: &str = "a file that defines malloc and free, operator new and delete, or those of an allocator with names of its own (mi_malloc, je_malloc, …)";

/// A file that defines an allocator.
#[derive(Debug, Clone)]
pub struct Allocator {
    /// The file, open.
    pub file: Arc<ModuleFile>,
    /// Its path as the process sees it.
    pub path: String,
    /// Its functions, each place once.
    pub functions: Vec<AllocatorFunction>,
    /// Whether the file is an allocator and nothing else.
    pub is_alone: bool,
}

impl Allocator {
    /// The same without the functions that change mappings, which the kernel tells
    /// of itself.
    #[must_use]
    pub fn without_mappings(&self) -> Self {
        let mut rest = self.clone();
        rest.functions.retain(|it| !it.probed.changes_mappings());
        rest
    }

    /// The same with those alone.
    pub fn with_mappings_only(&self) -> Self {
        let mut rest = self.clone();
        rest.functions.retain(|it| it.probed.changes_mappings());
        rest
    }
}

/// One function of an allocator.
#[derive(Debug, Clone)]
pub struct AllocatorFunction {
    /// What it does.
    pub probed: Probed,
    /// Its symbol.
    pub symbol: Arc<str>,
    /// Where its first instruction is in the file.
    pub start: FileOffset,
    /// Its length in bytes, as far as it was read.
    pub size: u64,
    /// Where to probe it.
    pub placement: Placement,
    /// Whether no other probed function runs within a call of it.
    pub is_last: bool,
    /// Whether an exception may be thrown through it.
    pub may_throw: bool,
    /// Where its calls end, for probes there in place of a return probe.
    pub ends: Result<Ends, Uncertain>,
}

impl AllocatorFunction {
    /// Where its calls end, in words.
    pub fn ends_described(&self) -> String {
        match &self.ends {
            Ok(ends) => format!(
                "{} return instructions",
                ends.returns.len() + ends.jumps.len()
            ),
            Err(reason) => format!("nowhere for certain: {reason}"),
        }
    }

    /// Whether a return address in the file is one of a call that it made, and it
    /// allocates.
    pub fn allocates_at(&self, offset: FileOffset) -> bool {
        let end = self.start.0.saturating_add(self.size);
        self.probed.allocates() && self.start < offset && offset.0 <= end
    }

    /// Where its entry is probed.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let function = match self.probed {
            Probed::Call(function) => Some(function),
            _ => None,
        };
        self.placement.spots().map(move |spot| Place {
            function,
            offset: self.start.0 + spot.displacement,
            arguments: spot.arguments,
            is_last: self.is_last,
            is_stepped: spot.step == Step::OutOfLine,
        })
    }

    /// The first of them, in the file.
    pub fn probe_offset(&self) -> u64 {
        self.start.0 + self.placement.first.displacement
    }

    /// What of it has to be in memory as it is in the file: its beginning, and
    /// where its calls end if that is probed.
    pub fn stretches(&self, returns: Returns) -> Vec<Stretch> {
        let places: Vec<u64> = self.places().map(|place| place.offset).collect();
        let entry = Stretch::new(&self.symbol, self.start, Some(self.size), &places);
        let mut stretches = vec![entry];
        if let Some(ends) = self.probed_ends(returns) {
            stretches.extend(ends.stretches(&self.symbol));
        }
        stretches
    }

    /// Where its calls end, if instructions there are probed.
    fn probed_ends(&self, returns: Returns) -> Option<&Ends> {
        let at_instructions = self.may_throw || returns == Returns::Instructions;
        self.ends.as_ref().ok().filter(|_| at_instructions)
    }
}

/// A file that was looked at.
#[derive(Debug, Clone)]
pub struct Searched {
    /// Its path as the process sees it.
    pub path: String,
    /// Why it is not an allocator, if it could not be read.
    pub problem: Option<String>,
    /// The file, if there is no allocator in it that can be probed.
    pub other: Option<OtherFile>,
}

/// A file without an allocator that can be probed.
#[derive(Debug, Clone)]
pub struct OtherFile {
    /// The file, and whether it is the process's program.
    pub id: (FileId, bool),
    /// The allocator that it has all the same, without names.
    pub stripped: Option<&'static str>,
}

/// What was found in a file.
#[derive(Debug)]
pub enum InFile {
    /// Functions to probe.
    Allocator(Allocator),
    /// None.
    Nothing {
        /// Whether its functions have names.
        has_symbols: bool,
    },
}

impl InFile {
    /// The allocator, if there is one.
    pub fn allocator(self) -> Option<Allocator> {
        match self {
            Self::Allocator(allocator) => Some(allocator),
            Self::Nothing { .. } => None,
        }
    }
}

/// The allocator that a file without functions to probe has all the same.
pub fn stripped(file: &ModuleFile, has_symbols: bool) -> Option<&'static str> {
    // A symbol table would name its functions.
    if has_symbols {
        return None;
    }
    traces::find(&file.content)
}

/// What is said of an allocator without names.
pub fn describe_stripped(name: &str) -> (String, &'static str) {
    (
        format!("every function of its {name}"),
        "the file has no symbol table that would tell where they are: use a build that is not stripped, or the allocator as a shared library",
    )
}

/// The allocators among the mapped files, and every file that was looked at.
pub fn find(code: &CodeSpace, declared: &[Declared]) -> (Vec<Allocator>, Vec<Searched>) {
    let mut allocators = Vec::new();
    let mut searched: Vec<Searched> = Vec::new();
    for mapping in code.current() {
        let path = mapping.display_name();
        // What the kernel itself maps is no file.
        if path.starts_with('[') || searched.iter().any(|seen| seen.path == path) {
            continue;
        }
        let is_program = code.is_program(mapping);
        let (problem, other) = match &mapping.file {
            Err(reason) => (Some(reason.clone()), None),
            Ok(file) => match in_file(file, &path, is_program, declared) {
                Ok(InFile::Allocator(found)) => {
                    allocators.push(found);
                    (None, None)
                }
                Ok(InFile::Nothing { has_symbols }) => {
                    let other = OtherFile {
                        id: (file.mapped, is_program),
                        stripped: stripped(file, has_symbols),
                    };
                    (None, Some(other))
                }
                Err(error) => (Some(format!("{error:#}")), None),
            },
        };
        searched.push(Searched {
            path,
            problem,
            other,
        });
    }
    (allocators, searched)
}

/// What a file defines. `is_program` tells a process' own executable, which may be
/// static.
///
/// # Errors
/// Fails if the file is not a readable 64-bit ELF file.
pub fn in_file(
    file: &Arc<ModuleFile>,
    path: &str,
    is_program: bool,
    declared: &[Declared],
) -> Result<InFile> {
    let names = declared
        .iter()
        .filter(|declared| declared.is_of(path))
        .flat_map(Declared::names);
    let names = names.map(|(name, known)| (name.to_owned(), known));
    let mut linkage = None;
    // Without headers nothing is certain.
    let mut linkage = || {
        let read = || Linkage::read(&file.content).unwrap_or_default();
        Rc::clone(linkage.get_or_insert_with(|| Rc::new(read())))
    };
    let chosen = choose::functions(&file.content, is_program, names.collect(), &mut linkage)?;
    if chosen.functions.is_empty() {
        return Ok(InFile::Nothing {
            has_symbols: chosen.has_symbols,
        });
    }
    let linkage = linkage();
    let (is_last, is_alone) = (chosen.is_last, chosen.is_alone);
    let functions = chosen.functions.into_iter().map(|one| {
        let start = FileOffset(one.symbol.file_offset);
        AllocatorFunction {
            probed: one.probed,
            size: one.symbol.code.len() as u64,
            placement: place(&one.symbol.code, needs(one.probed)),
            is_last: is_last && is_plain(one.probed),
            may_throw: one.probed.may_throw(),
            ends: match one.probed {
                Probed::Call(_) => ends(&file.content, &linkage, start.0),
                _ => Err(Uncertain::NeverReturns),
            },
            symbol: one.symbol.name.into(),
            start,
        }
    });
    Ok(InFile::Allocator(Allocator {
        file: Arc::clone(file),
        path: path.to_owned(),
        functions: functions.collect(),
        is_alone,
    }))
}

/// Whether allocators make nothing of others for it, as `realloc` of null is `malloc`.
fn is_plain(probed: Probed) -> bool {
    matches!(probed, Probed::Call(Function::Malloc | Function::New))
}

/// What the probes at a function's entry need here.
fn needs(probed: Probed) -> Needs<'static> {
    match probed {
        Probed::Call(function) => Needs::of(function, cookies()),
        Probed::Free | Probed::PoolFree1 | Probed::ArenaEnd => Needs::of_free(&[0], cookies()),
        Probed::PoolFree2 | Probed::ListFree => Needs::of_free(&[1], cookies()),
        Probed::PoolFree3 => Needs::of_free(&[2], cookies()),
        Probed::ChainFree => Needs::of_free(&[1, 2], cookies()),
    }
}

/// The loader that an executable asks for; `None` if it is static or not a
/// readable program.
pub fn loader(path: &Path) -> Option<PathBuf> {
    let located = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let file = RegularFile::open(&located).ok()?;
    let name = elf::interpreter(&file)?;
    Path::new(OsStr::from_bytes(&name)).canonicalize().ok()
}
