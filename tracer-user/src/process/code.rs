//! The executable mappings of one process image over time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

use super::address::{CodeAddress, FileOffset};
use super::file::{ModuleFile, ModuleFiles};
use super::handle::ProcessHandle;
use super::maps::{FileId, MappedRange, MappingName, read_executable};

/// How many successive mappings are remembered for one address.
const MAX_LAYERS: usize = 64;

/// How many ranges are remembered for one process image: the kernel's default
/// limit of mappings.
const MAX_SEGMENTS: usize = 65_536;

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

    /// Whether two mappings put the same code at the same addresses.
    fn same_code(&self, other: &CodeMapping) -> bool {
        let origin = |map: &CodeMapping| map.file_offset(CodeAddress(0));
        let anonymous = self.range.name == MappingName::Anonymous;
        self.range.file == other.range.file
            && self.range.name == other.range.name
            && (anonymous || origin(self) == origin(other))
    }
}

/// A range of addresses and what was mapped there, oldest first.
#[derive(Debug, Clone)]
struct Segment {
    end: u64,
    layers: Vec<Arc<CodeMapping>>,
    /// Older layers were dropped.
    forgot: bool,
}

/// The executable mappings of one process image (the time between two `exec`
/// calls), by address and time.
///
/// Memory is bounded: ranges and layers beyond a fixed number are not kept,
/// and an address whose mapping was dropped has none.
#[derive(Debug)]
pub struct CodeSpace {
    id: u64,
    process: ProcessHandle,
    executable: Option<PathBuf>,
    executable_file: Option<FileId>,
    segments: BTreeMap<u64, Segment>,
}

impl CodeSpace {
    /// The mappings of a living process, as of `at_ns`.
    ///
    /// # Errors
    /// Fails if the process does not exist or its `/proc` folder may not be
    /// read. A file that cannot be opened is not an error.
    pub fn attach(pid: u32, at_ns: u64, files: &mut ModuleFiles) -> Result<Self> {
        let mut space = CodeSpace::empty(ProcessHandle::open(pid)?);
        space.refresh_from_pid(at_ns, files)?;
        Ok(space)
    }

    /// The image after `exec`: nothing is mapped until events or
    /// [`refresh_from_pid`](Self::refresh_from_pid) say so.
    ///
    /// The executable is the first file that it maps: the process may have
    /// replaced itself once more by the time the event is read.
    pub fn exec(&self) -> Self {
        CodeSpace::empty(self.process.successor(self.process.pid()))
    }

    /// The image of a child just forked: the parent's mappings.
    pub fn fork(&self, child: u32) -> Self {
        CodeSpace {
            id: next_id(),
            process: self.process.successor(child),
            executable: self.executable.clone(),
            executable_file: self.executable_file,
            segments: self.segments.clone(),
        }
    }

    fn empty(process: ProcessHandle) -> Self {
        CodeSpace {
            id: next_id(),
            process,
            executable: None,
            executable_file: None,
            segments: BTreeMap::new(),
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
        mapping.range.file.inode != 0 && self.executable_file == Some(mapping.range.file)
    }

    /// Closes what is of no use once the process is gone.
    pub fn release(&mut self) {
        self.process.release();
    }

    /// Adds a mapping that was made at `at_ns`. It replaces what was mapped
    /// in its range until then.
    pub fn add(&mut self, range: MappedRange, at_ns: u64, files: &mut ModuleFiles) {
        let file = match &range.name {
            MappingName::File(_) => files.open(&self.process, &range),
            _ => Err("no file is mapped".into()),
        };
        self.recognise_executable(&range);
        self.overlay(&Arc::new(CodeMapping {
            range,
            since_ns: at_ns,
            file,
        }));
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
        let pid = self.process.pid();
        if self.executable.is_none() {
            self.executable = self.read_executable_path();
        }
        let ranges = self
            .process
            .open_proc("maps")
            .and_then(read_executable)
            .with_context(|| format!("cannot read /proc/{pid}/maps"))?;
        for range in &ranges {
            self.add(range.clone(), at_ns, files);
        }
        Ok(ranges)
    }

    /// What is mapped now, by address, as the process says itself.
    ///
    /// # Errors
    /// Fails once the process is gone.
    pub fn look(&mut self, at_ns: u64, files: &mut ModuleFiles) -> Result<Vec<CodeMapping>> {
        let ranges = self.refresh_from_pid(at_ns, files)?;
        let file_of = |range: &MappedRange| match self.find(range.start, at_ns) {
            Some(mapping) if mapping.range.file == range.file => mapping.file.clone(),
            _ => Err("no file is mapped".into()),
        };
        let mapping = |range: MappedRange| CodeMapping {
            file: file_of(&range),
            since_ns: at_ns,
            range,
        };
        Ok(ranges.into_iter().map(mapping).collect())
    }

    /// What was mapped at an address at a time: the latest mapping that is
    /// not younger than `at_ns`; or else the earliest, for a stack that was
    /// taken just before its mapping's event got its time.
    pub fn find(&self, address: CodeAddress, at_ns: u64) -> Option<&CodeMapping> {
        let (_, segment) = self.segments.range(..=address.0).next_back()?;
        if address.0 >= segment.end {
            return None;
        }
        let younger = segment
            .layers
            .partition_point(|layer| layer.since_ns <= at_ns);
        match younger.checked_sub(1) {
            Some(latest) => segment.layers.get(latest),
            None if segment.forgot => None,
            None => segment.layers.first(),
        }
        .map(|layer| &**layer)
    }

    /// What is mapped now, by address. A file with several executable
    /// mappings comes several times.
    pub fn current(&self) -> impl Iterator<Item = &CodeMapping> {
        self.segments
            .values()
            .filter_map(|segment| segment.layers.last())
            .map(|layer| &**layer)
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

    fn overlay(&mut self, mapping: &Arc<CodeMapping>) {
        let (start, end) = (mapping.range.start.0, mapping.range.end.0);
        self.split_at(start);
        self.split_at(end);
        let mut gaps = Vec::new();
        let mut cursor = start;
        for (&from, segment) in self.segments.range_mut(start..end) {
            if cursor < from {
                gaps.push((cursor, from));
            }
            cursor = segment.end;
            segment.push(mapping);
        }
        if cursor < end {
            gaps.push((cursor, end));
        }
        for (from, to) in gaps {
            if self.segments.len() < MAX_SEGMENTS {
                let layers = vec![Arc::clone(mapping)];
                self.segments.insert(
                    from,
                    Segment {
                        end: to,
                        layers,
                        forgot: false,
                    },
                );
            }
        }
    }

    /// Makes `address` a border between segments.
    fn split_at(&mut self, address: u64) {
        if let Some((&from, segment)) = self.segments.range_mut(..address).next_back()
            && from < address
            && address < segment.end
        {
            let upper = segment.clone();
            segment.end = address;
            self.segments.insert(address, upper);
        }
    }
}

impl Segment {
    fn push(&mut self, mapping: &Arc<CodeMapping>) {
        let place = self
            .layers
            .partition_point(|layer| layer.since_ns <= mapping.since_ns);
        let before = place
            .checked_sub(1)
            .and_then(|index| self.layers.get(index));
        if before.is_some_and(|layer| layer.same_code(mapping)) {
            return;
        }
        self.layers.insert(place, Arc::clone(mapping));
        if self.layers.len() > MAX_LAYERS {
            self.layers.remove(0);
            self.forgot = true;
        }
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::maps::Device;

    fn space() -> CodeSpace {
        CodeSpace::empty(ProcessHandle::open(std::process::id()).unwrap())
    }

    fn range(start: u64, end: u64, offset: u64, path: &str) -> MappedRange {
        let device = Device { major: 0, minor: 0 };
        MappedRange {
            start: CodeAddress(start),
            end: CodeAddress(end),
            file_offset: FileOffset(offset),
            file: FileId { device, inode: 0 },
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
        assert_eq!(space.segments.len(), 5);
    }

    #[test]
    fn what_is_known_does_not_grow() {
        let (mut space, mut files) = (space(), ModuleFiles::new());
        for at in 0..1000 {
            space.add(range(0x1000, 0x5000, 0x1000, "/lib"), at, &mut files);
            space.add(range(0x2000, 0x3000, 0x2000, "/lib"), at, &mut files);
            space.add(range(0x8000, 0x9000 + at * 16, 0, "//anon"), at, &mut files);
        }
        assert!(
            space
                .segments
                .values()
                .all(|segment| segment.layers.len() == 1)
        );
        assert_eq!(space.segments.range(..0x8000).count(), 3);
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
}
