//! The executable mappings of one process image over time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

use super::address::{CodeAddress, FileOffset};
use super::copied::{Copied, Copies};
use super::file::{ModuleFile, ModuleFiles};
use super::handle::ProcessHandle;
use super::maps::{AnyMapping, FileId, MappedRange, MappingName, read_all};
use super::room::Room;
use super::segments::Segments;

/// What is remembered of one process image takes at most so many bytes.
const MAX_BYTES: u64 = 48 << 20;

/// Code that is or was mapped.
#[derive(Debug, Clone)]
pub struct CodeMapping {
    /// What the kernel told.
    pub range: MappedRange,
    /// Since when it is known, nanoseconds of `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// The file, open; or why it is not.
    pub file: Result<Arc<ModuleFile>, String>,
}

impl CodeMapping {
    /// The path as the process sees it, or a pseudo name.
    pub fn display_name(&self) -> String {
        match &self.range.name {
            MappingName::Anonymous => "[anonymous]".into(),
            MappingName::Special(name) => name.clone(),
            name => name
                .path()
                .unwrap_or(Path::new("?"))
                .to_string_lossy()
                .into_owned(),
        }
    }

    /// Where an address of this mapping is in the file.
    pub fn file_offset(&self, address: CodeAddress) -> FileOffset {
        let distance = address.0.wrapping_sub(self.range.start.0);
        FileOffset(self.range.file_offset.0.wrapping_add(distance))
    }

    /// Enters what stands for the content of the file that was opened.
    fn note_version(&mut self) {
        if let Ok(file) = &self.file {
            let range = &mut self.range;
            range.file = range.file.with_version(file.mapped.version);
        }
    }

    /// A part of it.
    fn part(&self, start: CodeAddress, end: CodeAddress) -> Self {
        let file_offset = self.file_offset(start);
        let range = MappedRange {
            start,
            end,
            file_offset,
            ..self.range.clone()
        };
        Self {
            range,
            ..self.clone()
        }
    }

    /// Whether two mappings put the same code at the same addresses.
    pub(super) fn same_code(&self, other: &CodeMapping) -> bool {
        let origin = |map: &CodeMapping| map.file_offset(CodeAddress(0));
        let anonymous = self.range.name == MappingName::Anonymous;
        self.range.file.is_version_of(&other.range.file)
            && self.range.name == other.range.name
            && (anonymous || origin(self) == origin(other))
    }
}

/// The executable mappings of one process image (the time between two `exec`
/// calls), by address and time.
///
/// Memory is bounded, for each image and for all of a run: what there is no room
/// for is not kept, and counted, and an address whose mapping was dropped has
/// none.
#[derive(Debug)]
pub struct CodeSpace {
    id: u64,
    process: ProcessHandle,
    executable: Option<PathBuf>,
    executable_file: Option<FileId>,
    /// Shared with the process that this one was forked from, until it maps
    /// code of its own.
    segments: Option<Arc<Segments>>,
    copies: Copies,
    room: Room,
    not_kept: u64,
}

impl CodeSpace {
    /// The mappings of a living process, as of `at_ns`.
    ///
    /// # Errors
    /// Fails if the process does not exist or its `/proc` folder may not be
    /// read. A file that cannot be opened is not an error.
    pub fn attach(pid: u32, at_ns: u64, files: &mut ModuleFiles) -> Result<Self> {
        let room = files.room().part(MAX_BYTES);
        let mut space = CodeSpace::empty(ProcessHandle::open(pid)?, room);
        space.refresh_from_pid(at_ns, files)?;
        Ok(space)
    }

    /// The image after `exec`: nothing is mapped until events or
    /// [`refresh_from_pid`](Self::refresh_from_pid) say so.
    ///
    /// The executable is the first file that it maps: the process may have
    /// replaced itself once more by the time the event is read.
    pub fn exec(&self) -> Self {
        CodeSpace::empty(
            self.process.successor(self.process.pid()),
            self.room.sibling(MAX_BYTES),
        )
    }

    /// The image of a child just forked: the parent's mappings.
    pub fn fork(&self, child: u32) -> Self {
        CodeSpace {
            id: next_id(),
            process: self.process.successor(child),
            executable: self.executable.clone(),
            executable_file: self.executable_file,
            segments: self.segments.clone(),
            copies: self.copies.clone(),
            room: self.room.sibling(MAX_BYTES),
            not_kept: 0,
        }
    }

    fn empty(process: ProcessHandle, room: Room) -> Self {
        CodeSpace {
            id: next_id(),
            process,
            executable: None,
            executable_file: None,
            segments: None,
            copies: Copies::default(),
            room,
            not_kept: 0,
        }
    }

    /// The same as it is now, to be looked into elsewhere.
    pub fn view(&self) -> Self {
        CodeSpace {
            id: self.id,
            process: self.process.clone(),
            executable: self.executable.clone(),
            executable_file: self.executable_file,
            segments: self.segments.clone(),
            copies: self.copies.clone(),
            room: self.room.clone(),
            not_kept: self.not_kept,
        }
    }

    /// A number that no other image of this run has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The process.
    pub fn process(&self) -> &ProcessHandle {
        &self.process
    }

    /// The executable's path as the process sees it, if known.
    pub fn executable(&self) -> Option<&Path> {
        self.executable.as_deref()
    }

    /// Whether a mapping is of the executable's file.
    pub fn is_program(&self, mapping: &CodeMapping) -> bool {
        mapping.range.file.inode != 0 && self.is_program_file(mapping.range.file)
    }

    /// How many mappings, or parts of them, there was no room for.
    pub fn not_kept(&self) -> u64 {
        self.not_kept
    }

    /// Closes what is of no use once the process is gone.
    pub fn release(&mut self) {
        self.process.release();
    }

    /// Adds a mapping that was made at `at_ns`. It replaces what was mapped
    /// in its range until then.
    pub fn add(&mut self, range: MappedRange, at_ns: u64, files: &mut ModuleFiles) {
        let mut mapping = CodeMapping {
            range,
            since_ns: at_ns,
            file: Err("no file is mapped".into()),
        };
        if self
            .segments
            .as_ref()
            .is_some_and(|known| known.has(&mapping))
        {
            return;
        }
        if let MappingName::File(_) = &mapping.range.name {
            mapping.file = files.open(&self.process, &mapping.range);
        }
        mapping.note_version();
        self.recognise_executable(&mapping.range);
        let room = self.room.clone();
        self.not_kept += match self.own_segments() {
            Some(segments) => segments.overlay(mapping, &room),
            None => 1,
        };
    }

    /// The ranges, to be changed. `None` if there is no room for any of its own:
    /// then what it had is not known any more.
    fn own_segments(&mut self) -> Option<&mut Segments> {
        let known = match self.segments.take() {
            None => Segments::new(&self.room)?,
            Some(shared) => match Arc::try_unwrap(shared) {
                Ok(own) => own,
                Err(shared) => shared.copy(&self.room)?,
            },
        };
        Arc::get_mut(self.segments.insert(Arc::new(known)))
    }

    /// Adds what is mapped now and was not known: after lost events, for
    /// example. What was known keeps its time. Returns what is mapped now.
    ///
    /// # Errors
    /// Fails once the process is gone.
    pub fn refresh_from_pid(
        &mut self,
        at_ns: u64,
        files: &mut ModuleFiles,
    ) -> Result<Vec<MappedRange>> {
        Ok(executable(self.refresh(at_ns, files)?))
    }

    /// The same, of all mappings.
    fn refresh(&mut self, at_ns: u64, files: &mut ModuleFiles) -> Result<Vec<AnyMapping>> {
        let pid = self.process.pid();
        if self.executable.is_none() {
            self.executable = self.read_executable_path();
        }
        let all = self
            .process
            .open_proc("maps")
            .and_then(read_all)
            .with_context(|| format!("cannot read /proc/{pid}/maps"))?;
        for mapping in all.iter().filter(|mapping| mapping.is_executable) {
            self.add(mapping.range.clone(), at_ns, files);
        }
        Ok(all)
    }

    /// What is mapped now, by address, as the process says itself; but what was copied
    /// from a file to other memory is that file.
    ///
    /// # Errors
    /// Fails once the process is gone.
    pub fn look(&mut self, at_ns: u64, files: &mut ModuleFiles) -> Result<Vec<CodeMapping>> {
        let all = self.refresh(at_ns, files)?;
        self.copies.look(&self.process, &all, files);
        let file_of = |range: &MappedRange| match self.find(range.start, at_ns) {
            Some(mapping) if mapping.range.file.is_version_of(&range.file) => mapping.file.clone(),
            _ => Err("no file is mapped".into()),
        };
        let mapping = |range: MappedRange| {
            let mut mapping = CodeMapping {
                file: file_of(&range),
                since_ns: at_ns,
                range,
            };
            mapping.note_version();
            mapping
        };
        let mapped = executable(all).into_iter().map(mapping);
        Ok(with_copies(mapped, self.copies.found(), at_ns))
    }

    /// Code that was copied from files to other memory, as of the last look.
    pub fn copied(&self) -> impl Iterator<Item = &Copied> {
        self.copies.found()
    }

    /// What was mapped at an address at a time: the latest mapping that is
    /// not younger than `at_ns`; or else the earliest, for a stack that was
    /// taken just before its mapping's event got its time.
    pub fn find(&self, address: CodeAddress, at_ns: u64) -> Option<&CodeMapping> {
        self.segments.as_ref()?.find(address, at_ns)
    }

    /// A mapping of a file, with any of its contents: of those that there are now, or else
    /// one that there was.
    pub fn of_file(&self, file: FileId) -> Option<&CodeMapping> {
        self.segments.as_ref()?.of_file(file)
    }

    /// Where the first byte of a file is, or would be: an offset in the file
    /// added to it is an address.
    pub fn origin_of(&self, file: FileId) -> Option<CodeAddress> {
        let mapping = self.of_file(file)?;
        let (start, offset) = (mapping.range.start.0, mapping.range.file_offset.0);
        Some(CodeAddress(start.wrapping_sub(offset)))
    }

    /// Whether a file is the executable's, whatever is known of its content.
    pub fn is_program_file(&self, file: FileId) -> bool {
        let own = self.executable_file;
        own.is_some_and(|own| own.is_version_of(&file))
    }

    /// What is mapped now, by address. A file with several executable
    /// mappings comes several times.
    pub fn current(&self) -> impl Iterator<Item = &CodeMapping> {
        self.segments.iter().flat_map(|known| known.current())
    }

    /// The first file that `exec` maps is the executable.
    fn recognise_executable(&mut self, range: &MappedRange) {
        let Some(path) = range.name.path() else {
            return;
        };
        match &self.executable {
            None => {
                self.executable = Some(path.to_owned());
                self.executable_file = Some(range.file);
            }
            Some(executable) if self.executable_file.is_none() && executable == path => {
                self.executable_file = Some(range.file);
            }
            Some(_) => {}
        }
    }

    fn read_executable_path(&self) -> Option<PathBuf> {
        let link = self.process.read_link("exe").ok()?;
        MappingName::from_kernel(&link, 0)
            .path()
            .map(Path::to_owned)
    }
}

fn executable(all: Vec<AnyMapping>) -> Vec<MappedRange> {
    let executable = all.into_iter().filter(|mapping| mapping.is_executable);
    executable.map(|mapping| mapping.range).collect()
}

/// Mappings, with copies in the place of what they are in; both come by address.
fn with_copies<'a>(
    mapped: impl Iterator<Item = CodeMapping>,
    copies: impl Iterator<Item = &'a Copied>,
    since_ns: u64,
) -> Vec<CodeMapping> {
    let mut copies = copies.peekable();
    let mut code = Vec::new();
    for mut mapping in mapped {
        let end = mapping.range.end;
        while let Some(copy) = copies.next_if(|copy| copy.range.start < end) {
            let (from, to) = (copy.range.start, copy.range.end);
            if from < mapping.range.start || end < to {
                continue;
            }
            if mapping.range.start < from {
                code.push(mapping.part(mapping.range.start, from));
            }
            code.push(CodeMapping {
                range: copy.range.clone(),
                since_ns,
                file: Ok(Arc::clone(&copy.file)),
            });
            mapping = mapping.part(to, end);
        }
        if mapping.range.start < end {
            code.push(mapping);
        }
    }
    code
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone;
    use crate::process::maps::Device;
    use crate::process::segments::{MAX_LAYERS, MAX_SEGMENTS};

    fn space() -> CodeSpace {
        let room = Room::of(1 << 30).part(MAX_BYTES);
        CodeSpace::empty(ProcessHandle::open(std::process::id()).unwrap(), room)
    }

    fn range(start: u64, end: u64, offset: u64, path: &str) -> MappedRange {
        let device = Device { major: 0, minor: 0 };
        MappedRange {
            start: CodeAddress(start),
            end: CodeAddress(end),
            file_offset: FileOffset(offset),
            file: FileId::new(device, 0),
            name: MappingName::from_kernel(path.as_bytes(), 1),
        }
    }

    fn found(space: &CodeSpace, address: u64, at: u64) -> Option<String> {
        space
            .find(CodeAddress(address), at)
            .map(CodeMapping::display_name)
    }

    #[test]
    fn a_later_mapping_replaces_part_of_an_earlier_one() {
        let (mut space, mut files) = (space(), ModuleFiles::new());
        space.add(range(0x1000, 0x5000, 0, "[a]"), 10, &mut files);
        space.add(range(0x2000, 0x3000, 0, "[b]"), 20, &mut files);
        for (address, at, name) in [
            (0x1fff, 25, Some("[a]")),
            (0x2000, 25, Some("[b]")),
            (0x2fff, 20, Some("[b]")),
            (0x2fff, 19, Some("[a]")),
            (0x3000, 25, Some("[a]")),
            (0x5000, 25, None),
            (0xfff, 25, None),
        ] {
            assert_eq!(
                found(&space, address, at).as_deref(),
                name,
                "{address:#x} at {at}"
            );
        }
    }

    #[test]
    fn a_stack_just_before_the_event_finds_the_mapping() {
        let (mut space, mut files) = (space(), ModuleFiles::new());
        space.add(range(0x1000, 0x2000, 0, "[a]"), 10, &mut files);
        space.add(range(0x1000, 0x2000, 0, "[b]"), 20, &mut files);
        assert_eq!(found(&space, 0x1000, 9).as_deref(), Some("[a]"));
    }

    #[test]
    fn events_out_of_order_are_put_in_order() {
        let (mut space, mut files) = (space(), ModuleFiles::new());
        space.add(range(0x1000, 0x2000, 0, "[b]"), 20, &mut files);
        space.add(range(0x1000, 0x2000, 0, "[a]"), 10, &mut files);
        assert_eq!(found(&space, 0x1800, 15).as_deref(), Some("[a]"));
        assert_eq!(found(&space, 0x1800, 20).as_deref(), Some("[b]"));
    }

    #[test]
    fn one_mapping_over_gaps_and_segments_covers_all() {
        let (mut space, mut files) = (space(), ModuleFiles::new());
        space.add(range(0x2000, 0x3000, 0, "[a]"), 1, &mut files);
        space.add(range(0x4000, 0x5000, 0, "[b]"), 1, &mut files);
        space.add(range(0x1000, 0x6000, 0, "[c]"), 2, &mut files);
        for address in (0x1000..0x6000).step_by(0x800) {
            assert_eq!(
                found(&space, address, 2).as_deref(),
                Some("[c]"),
                "{address:#x}"
            );
        }
        assert_eq!(space.segments.unwrap().ranges(), 5);
    }

    #[test]
    fn what_is_known_does_not_grow() {
        let (mut space, mut files) = (space(), ModuleFiles::new());
        for at in 0..1000 {
            space.add(range(0x1000, 0x5000, 0x1000, "/lib"), at, &mut files);
            space.add(range(0x2000, 0x3000, 0x2000, "/lib"), at, &mut files);
            space.add(range(0x8000, 0x9000 + at * 16, 0, "//anon"), at, &mut files);
        }
        // One for the library, and one for each end of the other.
        let segments = space.segments.unwrap();
        assert_eq!(segments.ranges(), 1 + 1000);
        assert_eq!(segments.bytes(), 1001 * 160, "one mapping for each");
        assert_eq!(space.not_kept, 0);
    }

    #[test]
    fn a_forgotten_mapping_is_not_guessed() {
        let (mut space, mut files) = (space(), ModuleFiles::new());
        for at in 0..=MAX_LAYERS as u64 {
            space.add(range(0x1000, 0x2000, 0, &format!("[{at}]")), at, &mut files);
        }
        assert_eq!(found(&space, 0x1000, 0), None);
        assert_eq!(found(&space, 0x1000, 1).as_deref(), Some("[1]"));
    }

    #[test]
    fn fork_copies_and_exec_forgets() {
        let (mut space, mut files) = (space(), ModuleFiles::new());
        space.add(range(0x1000, 0x2000, 0, "[a]"), 1, &mut files);
        let mut child = space.fork(std::process::id());
        child.add(range(0x1000, 0x2000, 0, "[b]"), 2, &mut files);
        assert_eq!(found(&child, 0x1000, 3).as_deref(), Some("[b]"));
        assert_eq!(found(&space, 0x1000, 3).as_deref(), Some("[a]"));
        assert_eq!(found(&child.exec(), 0x1000, 3), None);
        assert_ne!(child.id(), space.id());
    }

    #[test]
    fn own_image_is_read() {
        let mut files = ModuleFiles::new();
        let space = CodeSpace::attach(std::process::id(), 7, &mut files).unwrap();
        let here = CodeAddress(own_image_is_read as *const () as u64);
        let mapping = space.find(here, 7).unwrap();
        assert!(space.is_program(mapping));
        assert!(mapping.file.is_ok());
        assert_eq!(space.executable(), Some(&*std::env::current_exe().unwrap()));
    }

    /// Bytes of this process in memory.
    fn resident() -> u64 {
        alone::memory("VmRSS")
    }

    /// Each mapping cuts the one before it in two: there is no gap, so nothing
    /// looked whether there is room.
    #[test]
    fn mappings_within_mappings_are_bounded() {
        alone::run(
            module_path!(),
            "mappings_within_mappings_are_bounded",
            || {
                let (mut space, mut files) = (space(), ModuleFiles::new());
                let before = resident();
                space.add(range(0, 1 << 46, 0, "[all]"), 0, &mut files);
                for at in 1..300_000_u64 {
                    let name = format!("[{at}]");
                    space.add(
                        range(at << 16, (at << 16) + 0x1000, 0, &name),
                        at,
                        &mut files,
                    );
                }
                assert!(space.not_kept > 200_000, "{}", space.not_kept);
                let known = space.segments.as_ref().unwrap();
                assert!(known.ranges() <= MAX_SEGMENTS);
                assert!(known.bytes() <= MAX_BYTES);
                assert!(
                    resident() - before < 2 * MAX_BYTES,
                    "{}",
                    resident() - before
                );
                assert_eq!(found(&space, 1 << 16, 300_000).as_deref(), Some("[1]"));
                // What came when there was no room has no name, and what it replaced
                // has not a wrong one.
                assert_eq!(found(&space, 299_990 << 16, 300_000), None);
            },
        );
    }

    #[test]
    fn mappings_upon_each_other_are_bounded() {
        alone::run(
            module_path!(),
            "mappings_upon_each_other_are_bounded",
            || {
                let (mut space, mut files) = (space(), ModuleFiles::new());
                let before = resident();
                let long = "x".repeat(4000);
                for at in 0..30_000_u64 {
                    let start = at % 1000 * 0x2000;
                    let name = format!("[{long}{at}]");
                    space.add(range(start, start + 0x1000, 0, &name), at, &mut files);
                }
                assert!(space.not_kept > 0);
                assert!(
                    resident() - before < 2 * MAX_BYTES,
                    "{}",
                    resident() - before
                );
                // The room went to the oldest; what came later is known to be unknown.
                let last = found(&space, 999 * 0x2000, 30_000);
                assert!(last.is_none() || last == Some(format!("[{long}29999]")));
            },
        );
    }

    /// Large mappings over many small ones, again and again, in a bounded time.
    #[test]
    fn a_mapping_over_many_ranges_takes_their_place() {
        let (mut space, mut files) = (space(), ModuleFiles::new());
        for at in 0..40_000_u64 {
            space.add(
                range(at << 13, (at << 13) + 0x1000, 0, "[a]"),
                at,
                &mut files,
            );
        }
        for at in 40_000..100_000_u64 {
            let name = if at % 2 == 0 { "[b]" } else { "[c]" };
            space.add(range(0, 1 << 40, 0, name), at, &mut files);
        }
        assert_eq!(space.segments.as_ref().unwrap().ranges(), 1);
        assert_eq!(space.not_kept, 40_000 + 60_000 - MAX_LAYERS as u64);
        assert_eq!(found(&space, 1 << 39, 100_000).as_deref(), Some("[c]"));
    }

    /// A process with many mappings that forks without end.
    #[test]
    fn forks_share_what_they_do_not_change_and_all_are_bounded() {
        alone::run(
            module_path!(),
            "forks_share_what_they_do_not_change_and_all_are_bounded",
            || {
                let mut files = ModuleFiles::new();
                let whole = Room::of(64 << 20);
                let process = ProcessHandle::open(std::process::id()).unwrap();
                let mut parent = CodeSpace::empty(process, whole.part(MAX_BYTES));
                for at in 0..20_000_u64 {
                    parent.add(
                        range(at << 13, (at << 13) + 0x1000, 0, "[a]"),
                        at,
                        &mut files,
                    );
                }
                let before = resident();
                let mut children: Vec<_> = (0..300).map(|_| parent.fork(1)).collect();
                assert!(resident() - before < 8 << 20, "{}", resident() - before);
                for child in &mut children {
                    child.add(range(0, 0x1000, 0, "[b]"), 30_000, &mut files);
                }
                assert!(resident() - before < 128 << 20, "{}", resident() - before);
                let names: Vec<_> = children
                    .iter()
                    .map(|child| found(child, 0, 30_000))
                    .collect();
                assert!(names.iter().all(|name| name.as_deref() != Some("[a]")));
                assert_eq!(names[0].as_deref(), Some("[b]"));
                let without = names.iter().filter(|name| name.is_none()).count();
                let lost = children.iter().filter(|child| child.not_kept > 0).count();
                assert!(without > 200 && lost == without, "{without} {lost}");
                drop(children);
                assert!(whole.take(48 << 20).is_some(), "all is given back");
            },
        );
    }
}
