//! Where a file's parts are when it is mapped, by its program headers.

use std::collections::HashMap;

use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD, PT_TLS};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};

use crate::process::bytes::{Bytes, Positioned};
use crate::process::code::CodeSpace;
use crate::process::maps::FileId;

/// The order of bytes that is read.
pub const ENDIAN: Endianness = Endianness::Little;
/// Headers that are looked at.
pub const MAX_HEADERS: usize = 4096;
const PAGE: u64 = 4096;

/// Where in memory files end, ascending: of one that is mapped several times each end. Files are as
/// mappings name them, without a version.
pub type FileEnds = HashMap<FileId, Vec<u64>>;

/// The header of a file; `None` if it is no 64-bit ELF file, or has another order of bytes.
pub fn header<'d>(data: &'d ReadCache<Positioned<'_>>) -> Option<&'d FileHeader64<Endianness>> {
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    (header.endian().ok() == Some(ENDIAN)).then_some(header)
}

/// Where the files that a process has code of end in its memory.
pub fn ends_of(code: &CodeSpace) -> FileEnds {
    let mut segments: HashMap<FileId, Segments> = HashMap::new();
    let mut ends = FileEnds::new();
    for mapping in code.current() {
        let Ok(module) = &mapping.file else { continue };
        let range = &mapping.range;
        let known = segments.entry(range.file);
        let known = known.or_insert_with(|| Segments::read(&module.content));
        let bias = known.bias(range.file_offset.0, range.start.0);
        let end = bias
            .zip(known.end())
            .map(|(bias, end)| end.wrapping_add(bias));
        let file = FileId::new(range.file.device, range.file.inode);
        ends.entry(file).or_default().extend(end);
    }
    for of_file in ends.values_mut() {
        of_file.sort_unstable();
        of_file.dedup();
    }
    ends
}

/// The parts of a file that are mapped, and its thread-locals.
#[derive(Debug, Default)]
pub struct Segments {
    parts: Vec<Part>,
    /// Bytes of its thread-locals, and how they are aligned.
    pub thread_locals: Option<(u64, u64)>,
}

/// Addresses are as linked; bytes.
#[derive(Debug)]
struct Part {
    address: u64,
    offset: u64,
    /// What is in the file.
    size: u64,
    /// What there is in memory.
    memory: u64,
}

impl Segments {
    /// Reads those of a file; none of what is no 64-bit ELF file.
    pub fn read(file: &dyn Bytes) -> Self {
        let data = ReadCache::new(Positioned::new(file));
        let Some(header) = header(&data) else {
            return Self::default();
        };
        let mut segments = Self::default();
        let headers = header.program_headers(ENDIAN, &data).unwrap_or_default();
        for header in headers.iter().take(MAX_HEADERS) {
            match header.p_type(ENDIAN) {
                PT_LOAD => segments.parts.push(Part {
                    address: header.p_vaddr(ENDIAN),
                    offset: header.p_offset(ENDIAN),
                    size: header.p_filesz(ENDIAN),
                    memory: header.p_memsz(ENDIAN),
                }),
                PT_TLS => {
                    segments.thread_locals = Some((header.p_memsz(ENDIAN), header.p_align(ENDIAN)));
                }
                _ => {}
            }
        }
        segments
    }

    /// What is added to an address as linked where the file's `offset` is at `address`.
    pub fn bias(&self, offset: u64, address: u64) -> Option<u64> {
        let shows = |part: &&Part| {
            let end = part.offset.saturating_add(part.size);
            (part.offset / PAGE * PAGE..end).contains(&offset)
        };
        let part = self.parts.iter().rev().find(shows)?;
        let linked = part.address.wrapping_add(offset.wrapping_sub(part.offset));
        Some(address.wrapping_sub(linked))
    }

    /// Where in the file what has an address as linked is, bytes, if it is in the file.
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        self.parts.iter().find_map(|part| {
            let into = address.checked_sub(part.address)?;
            (into < part.size).then(|| part.offset.wrapping_add(into))
        })
    }

    /// The end of its last page as linked: what follows in memory is not the file's.
    pub fn end(&self) -> Option<u64> {
        let ends = self.parts.iter();
        let ends = ends.map(|part| part.address.saturating_add(part.memory));
        ends.max()?.checked_next_multiple_of(PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::file::ModuleFiles;
    use crate::process::handle::ProcessHandle;
    use crate::process::mappings;

    static LAST: [u8; 5000] = [0; 5000];

    /// As the files of its mappings are named, and behind its variables.
    #[test]
    fn this_program_ends_behind_its_variables() {
        let mut files = ModuleFiles::new();
        let code = CodeSpace::attach(std::process::id(), 0, &mut files).unwrap();
        let ends = ends_of(&code);
        let process = ProcessHandle::open(std::process::id()).unwrap();
        let mappings = mappings::read(&process).unwrap();
        let here = &raw const LAST as u64;
        let mapping = mappings.iter().find(|it| it.range.contains(&here)).unwrap();
        let end = ends[&mapping.file].last().unwrap();
        assert!(*end >= here + 5000, "{end:#x} of {here:#x}");
    }
}
