//! Which allocators a process has, and where their functions are.

mod elf;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rustix::fs::{Mode, OFlags};
use tracer_ebpf::call::Function;

use crate::attach::linkage::Linkage;
use crate::attach::placement::{Placement, place};
use crate::attach::plan::Returns;
use crate::attach::returns::{Ends, Uncertain, ends};
use crate::attach::stretch::Stretch;
use crate::process::address::FileOffset;
use crate::process::code::CodeSpace;
use crate::process::file::{ModuleFile, RegularFile};

/// A function that can be probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Probed {
    /// One that allocates, or changes mappings.
    Call(Function),
    /// `free` and its old alias `cfree`.
    Free,
}

impl Probed {
    /// Whether an exception may be thrown through it. (`free` throws none, and
    /// has no return probe either.)
    pub const fn may_throw(self) -> bool {
        match self {
            Self::Call(function) => function.may_throw(),
            Self::Free => false,
        }
    }
}

/// The functions by their symbols.
const SYMBOLS: [(&str, Probed); 16] = [
    ("malloc", Probed::Call(Function::Malloc)),
    ("calloc", Probed::Call(Function::Calloc)),
    ("realloc", Probed::Call(Function::Realloc)),
    ("reallocarray", Probed::Call(Function::Reallocarray)),
    ("posix_memalign", Probed::Call(Function::PosixMemalign)),
    ("aligned_alloc", Probed::Call(Function::AlignedAlloc)),
    ("memalign", Probed::Call(Function::Memalign)),
    ("valloc", Probed::Call(Function::Valloc)),
    ("pvalloc", Probed::Call(Function::Pvalloc)),
    ("free", Probed::Free),
    ("cfree", Probed::Free),
    ("mmap", Probed::Call(Function::Mmap)),
    ("mmap64", Probed::Call(Function::Mmap)),
    ("munmap", Probed::Call(Function::Munmap)),
    ("mremap", Probed::Call(Function::Mremap)),
    ("__mremap", Probed::Call(Function::Mremap)),
];

/// What to look for, in the words of an error message.
pub const LOOKED_FOR: &str = "a file that defines both malloc and free";

/// A file that defines an allocator.
#[derive(Debug, Clone)]
pub struct Allocator {
    /// The file, open.
    pub file: Arc<ModuleFile>,
    /// Its path as the process sees it.
    pub path: String,
    /// Its functions, each place once.
    pub functions: Vec<AllocatorFunction>,
}

/// One function of an allocator.
#[derive(Debug, Clone)]
pub struct AllocatorFunction {
    /// What it does.
    pub probed: Probed,
    /// Its symbol.
    pub symbol: &'static str,
    /// Where its first instruction is in the file.
    pub start: FileOffset,
    /// Its length in bytes, as far as it was read.
    pub size: u64,
    /// Where to probe it.
    pub placement: Placement,
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

    /// The probed instruction's place in the file.
    pub fn probe_offset(&self) -> u64 {
        self.start.0 + self.placement.displacement
    }

    /// What of it has to be in memory as it is in the file: its beginning, and
    /// where its calls end if that is probed.
    pub fn stretches(&self, returns: Returns) -> Vec<Stretch> {
        let places = [self.probe_offset()];
        let entry = Stretch::new(self.symbol, self.start, Some(self.size), &places);
        let mut stretches = vec![entry];
        if let Some(ends) = self.probed_ends(returns) {
            stretches.extend(ends.stretches(self.symbol));
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
}

/// The allocators among the mapped files, and every file that was looked at.
pub fn find(code: &CodeSpace) -> (Vec<Allocator>, Vec<Searched>) {
    let mut allocators = Vec::new();
    let mut searched: Vec<Searched> = Vec::new();
    for mapping in code.current() {
        let path = mapping.display_name();
        // What the kernel itself maps is no file.
        if path.starts_with('[') || searched.iter().any(|seen| seen.path == path) {
            continue;
        }
        let problem = match &mapping.file {
            Err(reason) => Some(reason.clone()),
            Ok(file) => match in_file(file, &path, code.is_program(mapping)) {
                Ok(found) => {
                    allocators.extend(found);
                    None
                }
                Err(error) => Some(format!("{error:#}")),
            },
        };
        searched.push(Searched { path, problem });
    }
    (allocators, searched)
}

/// The allocator that a file defines, if it does. `is_program` tells a
/// process' own executable, which may be static.
///
/// # Errors
/// Fails if the file is not a readable 64-bit ELF file.
pub fn in_file(file: &Arc<ModuleFile>, path: &str, is_program: bool) -> Result<Option<Allocator>> {
    let symbols = elf::functions(&file.content, is_program, |name| {
        SYMBOLS.iter().any(|(symbol, _)| symbol.as_bytes() == name)
    })?;
    let mut functions: Vec<AllocatorFunction> = Vec::new();
    for (symbol, probed) in SYMBOLS {
        for found in symbols.iter().filter(|found| found.name == symbol) {
            let start = FileOffset(found.file_offset);
            if functions.iter().all(|known| known.start != start) {
                functions.push(AllocatorFunction {
                    probed,
                    symbol,
                    start,
                    size: found.code.len() as u64,
                    placement: place(&found.code),
                    may_throw: probed.may_throw(),
                    ends: Err(Uncertain::NeverReturns),
                });
            }
        }
    }
    let defines = |wanted| functions.iter().any(|function| function.probed == wanted);
    if !defines(Probed::Call(Function::Malloc)) || !defines(Probed::Free) {
        return Ok(None);
    }
    find_ends(file, &mut functions);
    Ok(Some(Allocator {
        file: Arc::clone(file),
        path: path.to_owned(),
        functions,
    }))
}

/// Finds where calls of the functions end.
fn find_ends(file: &ModuleFile, functions: &mut [AllocatorFunction]) {
    // Without headers nothing is certain.
    let linkage = Linkage::read(&file.content).unwrap_or_default();
    for function in functions {
        if let Probed::Call(_) = function.probed {
            function.ends = ends(&file.content, &linkage, function.start.0);
        }
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
