//! The names in one file, from its symbols and its debug information.

use std::path::Path;

use super::debug_file::{self, DebugFile};
use super::demangle::{demangle, printable};
use super::dwarf::{DwarfReader, SourceLine, SourceNames};
use super::elf::{BuildId, ElfImage};
use crate::model::name::{self, Name};
use crate::process::address::{ElfAddress, FileOffset};
use crate::process::file::{ModuleFile, RegularFile};
use crate::process::handle::ProcessHandle;

/// A function at an address, or one inlined there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedFunction {
    /// The demangled name.
    pub name: Option<Name>,
    /// The source file.
    pub file: Option<Name>,
    /// The line in it.
    pub line: Option<u32>,
}

/// What is known of one address: one function, and those inlined into it,
/// the outermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Never empty.
    pub functions: Vec<NamedFunction>,
    /// Why the first function has no name.
    pub reason: Option<Name>,
}

impl Names {
    /// An address without a name.
    pub fn unknown(reason: impl Into<Name>) -> Self {
        Names {
            functions: vec![NamedFunction::default()],
            reason: Some(reason.into()),
        }
    }

    /// One function of which only the name is known.
    pub fn function(name: Name) -> Self {
        Names {
            functions: vec![NamedFunction {
                name: Some(name),
                ..NamedFunction::default()
            }],
            reason: None,
        }
    }
}

/// Why a file that was written anew in its place names nothing that it did not before.
const MODIFIED: &str = "the file was modified after it was mapped";

/// A file, its debug file if there is one, and their readers.
pub struct ModuleNames {
    image: ElfImage,
    debug: Option<DebugFile>,
    dwarf: Option<DwarfReader>,
}

impl ModuleNames {
    /// Reads an open file. `path` is the one that the process sees.
    ///
    /// # Errors
    /// The reason why nothing in it has a name.
    pub fn open(
        process: &ProcessHandle,
        path: Option<&Path>,
        module: &ModuleFile,
    ) -> Result<Self, String> {
        let file = &module.content;
        let image = ElfImage::read(file)?;
        if file.changed() {
            return Err(MODIFIED.into());
        }
        let debug = if image.has_dwarf {
            None
        } else {
            debug_file::find(process, path, file, &image)
        };
        let dwarf = match &debug {
            Some(debug) => DwarfReader::open(&debug.file, &debug.image),
            None => DwarfReader::open(file, &image),
        };
        Ok(ModuleNames {
            image,
            debug,
            dwarf,
        })
    }

    /// What its symbols, and what was copied and unpacked of it, take, bytes.
    pub fn bytes(&self) -> usize {
        let images = self.debug.iter().map(|debug| &debug.image);
        let symbols = images
            .chain([&self.image])
            .map(|image| image.symbols.bytes());
        let copied = self.dwarf.as_ref().map_or(0, DwarfReader::memory);
        symbols.sum::<usize>().saturating_add(copied)
    }

    /// The file's identity, if it has one.
    pub fn build_id(&self) -> Option<&BuildId> {
        self.image.build_id.as_ref()
    }

    /// Looks up positions in the file, all at once.
    pub fn look_up(
        &mut self,
        file: &RegularFile,
        offsets: &[FileOffset],
        texts: &mut name::Names,
    ) -> Vec<Names> {
        if file.changed() {
            let unknown = Names::unknown(texts.intern(MODIFIED));
            return vec![unknown; offsets.len()];
        }
        let addresses: Vec<_> = offsets
            .iter()
            .map(|&offset| self.image.address(offset))
            .collect();
        let known: Vec<ElfAddress> = addresses.iter().copied().flatten().collect();
        let mut sources = self.sources(&known).into_iter();
        addresses
            .into_iter()
            .map(|address| match address {
                Some(address) => {
                    self.names(file, address, sources.next().unwrap_or_default(), texts)
                }
                None => Names::unknown(texts.intern("not in a part of the file that is loaded")),
            })
            .collect()
    }

    /// Lines and inlined functions. After a failure there are none: symbols
    /// still give names.
    fn sources(&mut self, addresses: &[ElfAddress]) -> Vec<SourceNames> {
        let Some(dwarf) = &self.dwarf else {
            return Vec::new();
        };
        dwarf.look_up(addresses).unwrap_or_else(|_| {
            self.dwarf = None;
            Vec::new()
        })
    }

    /// The linker's symbol is exact and complete with its parameters; the
    /// debug information names functions that have none.
    fn names(
        &self,
        file: &RegularFile,
        address: ElfAddress,
        source: SourceNames,
        texts: &mut name::Names,
    ) -> Names {
        let symbol = self
            .debug
            .iter()
            .map(|debug| (&debug.image, &debug.file))
            .chain([(&self.image, file)])
            .find_map(|(image, file)| image.symbols.find(address, file));
        let name = symbol.or(source.function);
        let reason = name.is_none().then(|| texts.intern(self.no_symbol()));
        let mut functions = vec![named(name, source.line, texts)];
        functions.extend(source.inlined.into_iter().map(|(name, line)| {
            let name = (!name.is_empty()).then_some(name);
            named(name, line, texts)
        }));
        Names { functions, reason }
    }

    fn no_symbol(&self) -> &'static str {
        let debug = self
            .debug
            .as_ref()
            .is_some_and(|debug| !debug.image.symbols.is_empty());
        let images = self.debug.iter().map(|debug| &debug.image);
        let mut images = images.chain([&self.image]);
        if images.any(|image| image.symbols.is_cut()) {
            "no symbol covers this address, as far as they were read: there are too many"
        } else if self.image.symbols.is_empty() && !debug {
            "the file is stripped and no debug file was found"
        } else {
            "no symbol covers this address"
        }
    }
}

fn named(name: Option<String>, line: Option<SourceLine>, texts: &mut name::Names) -> NamedFunction {
    NamedFunction {
        name: name.map(|name| texts.intern(&demangle(&name))),
        file: line
            .as_ref()
            .map(|line| texts.intern(&printable(&line.file))),
        line: line.and_then(|line| line.line),
    }
}
