//! From addresses to frames: a name, or the reason why there is none.

mod debug_file;
mod demangle;
mod dwarf;
mod elf;
mod java;
mod module;
mod symbols;
#[cfg(test)]
mod tests;
mod vdso;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

pub use self::demangle::demangle;
use self::demangle::printable;
use self::module::{ModuleNames, Names};
use self::vdso::Vdso;
use crate::jvm::frames::Named;
use crate::model::name::{self, Name};
use crate::model::{Frame, Module, Origin, Shortened};
use crate::process::address::{CodeAddress, FileOffset, FilePlace, FrameAddress};
use crate::process::code::{CodeMapping, CodeSpace};
use crate::process::file::{ModuleFile, RegularFile};
use crate::process::handle::ProcessHandle;
use crate::process::maps::{FileId, MappingName};
use crate::process::numbered::NumberedFiles;
use crate::process::perf_map::{self, PerfMap, PerfMapFile};

/// A file's GNU build id in hexadecimal, if it has one.
pub fn build_id_of(file: &ModuleFile) -> Option<String> {
    let image = elf::ElfImage::read(&file.content).ok()?;
    Some(image.build_id?.to_string())
}

/// The file that a module's debug information was moved to, if there is one. `path` is the one that the
/// process sees.
pub fn debug_file_of(
    process: &ProcessHandle,
    path: Option<&Path>,
    module: &ModuleFile,
) -> Option<RegularFile> {
    let image = elf::ElfImage::read(&module.content).ok()?;
    let found = debug_file::find(process, path, &module.content, &image)?;
    Some(found.file)
}

/// Calls `each` with the linker's name of every function of a file, and where its code is
/// in the file; those that its debug file names too. `path` is the one that the process
/// sees. A function of several names comes several times.
///
/// # Errors
/// The reason why nothing in it has a name.
pub fn each_function(
    process: &ProcessHandle,
    path: Option<&Path>,
    module: &ModuleFile,
    each: &mut dyn FnMut(&[u8], std::ops::Range<u64>),
) -> Result<(), String> {
    let image = elf::ElfImage::read(&module.content)?;
    let mut in_file = |name: &[u8], addresses: std::ops::Range<u64>| {
        if let Some(start) = image.offset(addresses.start) {
            each(
                name,
                start..start.saturating_add(addresses.end - addresses.start),
            );
        }
    };
    image.symbols.each(&module.content, &mut in_file);
    if let Some(debug) = debug_file::find(process, path, &module.content, &image) {
        debug.image.symbols.each(&debug.file, &mut in_file);
    }
    Ok(())
}

/// More functions than this, with those inlined at an address, are not
/// remembered: some 100 MiB.
const MAX_FUNCTIONS: usize = 2 << 20;

/// More frames than this have no inlined functions with them: as many as
/// 32,000 call paths of 127 frames have without any.
const MAX_FRAMES: usize = 4 << 20;

/// What symbols and copies of all files may take, bytes. Files that come when
/// it is used up give no names; the largest takes 200 MiB of symbols.
const MAX_PARSED: usize = 768 << 20;

/// What is left for perf maps of all processes.
struct PerfRoom {
    /// To be read, bytes.
    read: u64,
    /// To be kept, bytes.
    kept: usize,
}

impl Default for PerfRoom {
    fn default() -> Self {
        PerfRoom {
            read: 4 * perf_map::MAX_READ,
            kept: 2 * perf_map::MAX_KEPT,
        }
    }
}

impl PerfRoom {
    fn read(&mut self, process: &ProcessHandle) -> Result<PerfMap, String> {
        if self.read == 0 || self.kept < perf_map::MAX_KEPT {
            return Err("the perf map was not read: those of other processes are too large".into());
        }
        let file = PerfMapFile::read(process, self.read)?;
        self.read -= file.read;
        self.kept -= file.map.bytes().min(self.kept);
        Ok(file.map)
    }
}

/// Places of a file to look up.
struct Wanted {
    file: Arc<ModuleFile>,
    path: Option<PathBuf>,
    offsets: Vec<FileOffset>,
}

/// Where a file is that a process has not mapped any more: at addresses of its
/// own, in a part that no process has code in.
fn unmapped_origin(number: u32) -> CodeAddress {
    CodeAddress(u64::from(number) << 32)
}

/// Gives names to addresses. Keeps what it read, so that each file is parsed
/// and each address looked up once; what it keeps is bounded.
#[derive(Default)]
pub struct Symbolizer {
    /// The files that words of stacks name.
    files: NumberedFiles,
    /// Where files are in address spaces, by [`CodeSpace::id`]; see [`Self::origin`].
    origins: HashMap<(u64, FileId), Option<CodeAddress>>,
    modules: HashMap<FileId, Result<ModuleNames, String>>,
    names: HashMap<(FileId, FileOffset), Rc<Names>>,
    /// How many functions `names` has.
    functions: usize,
    /// By [`CodeSpace::id`].
    perf_maps: HashMap<u64, Result<PerfMap, String>>,
    perf_room: PerfRoom,
    vdso: Option<Result<Vdso, String>>,
    /// What `modules` take, bytes.
    parsed: usize,
    /// All names that frames have.
    texts: name::Names,
    /// Frames that were made.
    frames: usize,
    /// Places whose inlined functions were left out.
    without_inlined: u64,
}

impl Symbolizer {
    /// What it keeps of files, bytes.
    pub fn parsed(&self) -> usize {
        self.parsed
    }

    /// Begins another report: `files` are those that words of stacks name. What
    /// was read of files stays, but not what processes may have changed since.
    pub fn begin(&mut self, files: NumberedFiles) {
        self.files = files;
        self.origins.clear();
        self.perf_maps.clear();
        self.perf_room = PerfRoom::default();
        self.frames = 0;
        self.without_inlined = 0;
        if self.texts.is_half_full() {
            self.texts = name::Names::default();
            self.names.clear();
            self.functions = 0;
        }
    }

    /// What of names and inlined functions there was no room for.
    pub fn shortened(&self) -> Shortened {
        Shortened {
            names: self.texts.cut(),
            length: 0,
            inlined: self.without_inlined,
        }
    }

    /// The frames of a stack that was taken at `at_ns`, root first, with
    /// inlined functions after the function that they were inlined into.
    ///
    /// `leaf_first` are the addresses as the kernel gives them: first the
    /// instruction at which the stack was taken, then return addresses. A
    /// frame never fails: without a name it says why. `java` are the names of
    /// Java frames, in the same order; the VM's own stubs are left out.
    pub fn frames(
        &mut self,
        code: &CodeSpace,
        leaf_first: &[u64],
        java: &[Option<Named>],
        at_ns: u64,
    ) -> Vec<Frame> {
        self.prepare(code, leaf_first, at_ns);
        let mut frames = Vec::with_capacity(leaf_first.len());
        let addresses: Vec<_> = FrameAddress::of_stack(leaf_first).collect();
        for (depth, address) in addresses.into_iter().enumerate().rev() {
            if let FrameAddress::File(place) = address {
                self.add_place(code, place, &mut frames);
                continue;
            }
            let Some(lookup) = address.lookup() else {
                let named = java.get(depth).and_then(Option::as_ref);
                if !java::is_hidden(named, leaf_first[depth]) {
                    let known = frames.len();
                    java::add_frames(named, address, &mut self.texts, &mut frames);
                    self.charge_java(&mut frames, known);
                }
                continue;
            };
            match code.find(lookup, at_ns) {
                Some(mapping) => self.add_frames(code, mapping, address, lookup, &mut frames),
                None => frames.push(Frame {
                    address: address.raw(),
                    reason: Some(
                        self.texts
                            .intern("no executable mapping is known at this address"),
                    ),
                    ..Frame::default()
                }),
            }
        }
        frames
    }

    /// Counts the Java frames of a word, which begin at `known`.
    fn charge_java(&mut self, frames: &mut Vec<Frame>, known: usize) {
        if self.frames >= MAX_FRAMES && frames.len() > known + 1 {
            frames.truncate(known + 1);
            self.without_inlined += 1;
        }
        self.frames += frames.len() - known;
    }

    /// The files (and the kernel's code) that the addresses of stacks are in,
    /// each mapping once. `process` is the index in the report; each stack
    /// comes with its time.
    pub fn modules<'stack>(
        &mut self,
        process: usize,
        code: &CodeSpace,
        stacks: impl IntoIterator<Item = (&'stack [u64], u64)>,
    ) -> Vec<Module> {
        let mut seen = HashSet::new();
        let mut placed = HashSet::new();
        let mut modules: Vec<Module> = Vec::new();
        for (leaf_first, at_ns) in stacks {
            for address in FrameAddress::of_stack(leaf_first) {
                if let FrameAddress::File(place) = address {
                    if placed.insert(place.file) {
                        modules.extend(self.file_modules(process, code, place.file));
                    }
                    continue;
                }
                let mapping = address.lookup().and_then(|at| code.find(at, at_ns));
                let Some(mapping) = mapping else {
                    continue;
                };
                let range = &mapping.range;
                let key = (
                    range.start,
                    range.end,
                    range.file_offset,
                    range.name.clone(),
                );
                if range.name != MappingName::Anonymous && seen.insert(key) {
                    modules.push(self.module(process, code, mapping));
                }
            }
        }
        modules.sort_by_key(|module| (module.start, module.end));
        modules.dedup();
        modules
    }

    /// The executable mappings of a file; if it has none any more, one of all
    /// of it, at addresses of its own.
    fn file_modules(&mut self, process: usize, code: &CodeSpace, number: u32) -> Vec<Module> {
        let Some(numbered) = self.files.get(number).cloned() else {
            return Vec::new();
        };
        let id = numbered.file.mapped;
        let mut mapped: Vec<_> = code
            .current()
            .filter(|mapping| mapping.range.file == id)
            .collect();
        if mapped.is_empty() {
            let earlier = code.of_file(id);
            mapped.extend(earlier.filter(|mapping| mapping.range.file == id));
        }
        let mapped: Vec<Module> = mapped
            .into_iter()
            .map(|mapping| self.module(process, code, mapping))
            .collect();
        if !mapped.is_empty() {
            return mapped;
        }
        let build_id = self.opened(code, Some(&numbered.path), &numbered.file);
        let build_id = build_id.as_ref().ok().and_then(ModuleNames::build_id);
        let start = unmapped_origin(number).0;
        vec![Module {
            process,
            path: printable(&numbered.path.to_string_lossy()),
            start,
            end: start.saturating_add(numbered.file.content.size()),
            file_offset: 0,
            build_id: build_id.map(ToString::to_string),
        }]
    }

    fn module(&mut self, process: usize, code: &CodeSpace, mapping: &CodeMapping) -> Module {
        let names = mapping
            .file
            .as_ref()
            .ok()
            .map(|file| self.opened(code, mapping.range.name.path(), file));
        let build_id = match names {
            Some(Ok(names)) => names.build_id().map(ToString::to_string),
            _ => None,
        };
        Module {
            process,
            path: printable(&mapping.display_name()),
            start: mapping.range.start.0,
            end: mapping.range.end.0,
            file_offset: mapping.range.file_offset.0,
            build_id,
        }
    }

    /// A file's names; `path` is the one that the process sees.
    fn opened(
        &mut self,
        code: &CodeSpace,
        path: Option<&Path>,
        file: &ModuleFile,
    ) -> &mut Result<ModuleNames, String> {
        let parsed = &mut self.parsed;
        self.modules.entry(file.mapped).or_insert_with(|| {
            if *parsed >= MAX_PARSED {
                return Err("the file was not read: those of other files take all the room".into());
            }
            let names = ModuleNames::open(code.process(), path, file)?;
            *parsed = parsed.saturating_add(names.bytes());
            Ok(names)
        })
    }

    /// Looks up the addresses of a stack that are not known yet, all of one
    /// file together.
    fn prepare(&mut self, code: &CodeSpace, leaf_first: &[u64], at_ns: u64) {
        let mut wanted: HashMap<FileId, Wanted> = HashMap::new();
        if self.functions >= MAX_FUNCTIONS {
            self.names.clear();
            self.functions = 0;
        }
        for address in FrameAddress::of_stack(leaf_first) {
            let Some((file, path, offset)) = self.place_of(code, address, at_ns) else {
                continue;
            };
            if !self.names.contains_key(&(file.mapped, offset)) {
                let entry = wanted.entry(file.mapped).or_insert_with(|| Wanted {
                    file,
                    path,
                    offsets: Vec::new(),
                });
                entry.offsets.push(offset);
            }
        }
        for (id, mut wanted) in wanted {
            let offsets = &mut wanted.offsets;
            offsets.sort_unstable();
            offsets.dedup();
            let _ = self.opened(code, wanted.path.as_deref(), &wanted.file);
            let Some(Ok(names)) = self.modules.get_mut(&id) else {
                continue;
            };
            let found = names.look_up(&wanted.file.content, offsets, &mut self.texts);
            let functions = found.iter().map(|names| names.functions.len());
            self.functions += functions.sum::<usize>();
            let entries = wanted.offsets.into_iter().zip(found);
            self.names
                .extend(entries.map(|(offset, names)| ((id, offset), Rc::new(names))));
        }
    }

    /// The file that a frame is in, its path, and where to look in it.
    fn place_of(
        &self,
        code: &CodeSpace,
        address: FrameAddress,
        at_ns: u64,
    ) -> Option<(Arc<ModuleFile>, Option<PathBuf>, FileOffset)> {
        if let FrameAddress::File(place) = address {
            let numbered = self.files.get(place.file)?;
            let path = Some(numbered.path.clone());
            return Some((Arc::clone(&numbered.file), path, place.lookup()));
        }
        let lookup = address.lookup()?;
        let mapping = code.find(lookup, at_ns)?;
        let file = Arc::clone(mapping.file.as_ref().ok()?);
        let path = mapping.range.name.path().map(Path::to_owned);
        Some((file, path, mapping.file_offset(lookup)))
    }

    /// Adds the frames of a place in a file.
    fn add_place(&mut self, code: &CodeSpace, place: FilePlace, frames: &mut Vec<Frame>) {
        let Some(numbered) = self.files.get(place.file).cloned() else {
            frames.push(Frame {
                reason: Some(self.texts.intern("its file is not known any more")),
                ..Frame::default()
            });
            return;
        };
        let id = numbered.file.mapped;
        let names = match self.names.get(&(id, place.lookup())) {
            Some(names) => Rc::clone(names),
            None => {
                let opened = self.opened(code, Some(&numbered.path), &numbered.file);
                let reason = opened.as_ref().err().cloned().unwrap_or_default();
                let reason = self.texts.intern(&printable(&reason));
                Rc::new(Names::unknown(reason))
            }
        };
        let origin = self
            .origin(code, id)
            .unwrap_or_else(|| unmapped_origin(place.file));
        let frame = Frame {
            module: Some(
                self.texts
                    .intern(&printable(&numbered.path.to_string_lossy())),
            ),
            module_offset: Some(place.offset.0),
            address: origin.0.wrapping_add(place.offset.0),
            origin: match code.is_program_file(id) {
                true => Origin::Program,
                false => Origin::Library,
            },
            ..Frame::default()
        };
        self.add_named(&names, &frame, frames);
    }

    /// Where a file's first byte would be in an address space, if it is mapped.
    fn origin(&mut self, code: &CodeSpace, file: FileId) -> Option<CodeAddress> {
        let known = self.origins.entry((code.id(), file));
        *known.or_insert_with(|| code.origin_of(file))
    }

    fn add_frames(
        &mut self,
        code: &CodeSpace,
        mapping: &CodeMapping,
        address: FrameAddress,
        lookup: CodeAddress,
        frames: &mut Vec<Frame>,
    ) {
        let (names, jit) = self.names_at(code, mapping, lookup);
        let in_file = mapping.range.name != MappingName::Anonymous;
        let origin = match &mapping.range.name {
            _ if jit => Origin::Jit,
            MappingName::File(_) if code.is_program(mapping) => Origin::Program,
            MappingName::File(_) => Origin::Library,
            MappingName::Special(name) if name == crate::process::vdso::NAME => Origin::Library,
            _ => Origin::Unknown,
        };
        let frame = Frame {
            module: Some(self.texts.intern(&printable(&mapping.display_name()))),
            module_offset: in_file.then(|| mapping.file_offset(CodeAddress(address.raw())).0),
            address: address.raw(),
            origin,
            ..Frame::default()
        };
        self.add_named(&names, &frame, frames);
    }

    /// Adds the functions of a place, and says what else `frame` has of it.
    fn add_named(&mut self, names: &Names, frame: &Frame, frames: &mut Vec<Frame>) {
        let mut functions = &names.functions[..];
        if self.frames >= MAX_FRAMES && functions.len() > 1 {
            functions = &functions[..1];
            self.without_inlined += 1;
        }
        self.frames += functions.len();
        for (depth, function) in functions.iter().enumerate() {
            frames.push(Frame {
                function: function.name.clone(),
                file: function.file.clone(),
                line: function.line,
                inlined: depth > 0,
                reason: if depth == 0 {
                    names.reason.clone()
                } else {
                    None
                },
                ..frame.clone()
            });
        }
    }

    /// The names at an address, and whether they are of code compiled at run
    /// time.
    fn names_at(
        &mut self,
        code: &CodeSpace,
        mapping: &CodeMapping,
        address: CodeAddress,
    ) -> (Rc<Names>, bool) {
        let offset = mapping.file_offset(address);
        if let MappingName::Special(name) = &mapping.range.name
            && name == crate::process::vdso::NAME
        {
            let names = match self.vdso.get_or_insert_with(Vdso::own) {
                Ok(vdso) => vdso.look_up(mapping, offset),
                Err(reason) => Names::unknown(self.texts.intern(reason)),
            };
            return (Rc::new(names), false);
        }
        let reason = match &mapping.file {
            Ok(file) => match self.names.get(&(file.mapped, offset)) {
                Some(names) => return (Rc::clone(names), false),
                None => {
                    let path = mapping.range.name.path();
                    self.opened(code, path, file).as_ref().err().cloned()
                }
            },
            Err(reason) => Some(reason.clone()),
        };
        match self.jit_name(code, address) {
            Ok(name) => (Rc::new(Names::function(name)), true),
            Err(no_map) => {
                let reason = match &mapping.range.name {
                    MappingName::Anonymous => format!("code made at run time; {no_map}"),
                    MappingName::Special(_) => "code of the kernel without a name".into(),
                    MappingName::File(_) => reason.unwrap_or(no_map),
                };
                let reason = self.texts.intern(&printable(&reason));
                (Rc::new(Names::unknown(reason)), false)
            }
        }
    }

    /// The name in the process's perf map. It is read once: whoever writes it
    /// may go on and on.
    fn jit_name(&mut self, code: &CodeSpace, address: CodeAddress) -> Result<Name, String> {
        let room = &mut self.perf_room;
        let entry = self.perf_maps.entry(code.id());
        let map = entry.or_insert_with(|| room.read(code.process()));
        let map = map.as_ref().map_err(Clone::clone)?;
        match map.find(address) {
            Some(name) => Ok(self.texts.intern(&printable(&name))),
            None if map.is_cut() => Err(
                "the perf map does not cover this address, as far as it was read: it is too large"
                    .to_owned(),
            ),
            None => Err("the perf map does not cover this address".to_owned()),
        }
    }
}
