//! Where a file's code would be in a process, by any of its segments that is mapped:
//! a loader puts all of them as far apart as they are linked (elf(5), `PT_LOAD`).

use object::Endianness;
use object::elf::{FileHeader64, PF_X, PT_LOAD, ProgramHeader64};
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};

use super::bytes::{Bytes, Positioned};

/// Files with more program headers are not looked at; programs have some ten.
const MAX_HEADERS: usize = 256;

const ENDIAN: Endianness = Endianness::Little;

/// A loaded segment of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its address as linked.
    pub address: u64,
    /// Where it is in the file.
    pub offset: u64,
    /// Its bytes in the file.
    pub size: u64,
    /// Whether it is code.
    pub is_code: bool,
}

impl Segment {
    /// Where it ends in the file.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }

    /// What has to be added to an offset of the file to get an address as linked.
    fn shift(&self) -> u64 {
        self.address.wrapping_sub(self.offset)
    }

    /// Whether a loader maps the page of `offset` for this segment.
    fn shows(&self, offset: u64) -> bool {
        const PAGE: u64 = 4096;
        let first = self.offset / PAGE * PAGE;
        (first..self.end()).contains(&offset)
    }
}

/// The loaded segments of an ELF file; none of what is no such file.
pub fn segments(file: &dyn Bytes) -> Vec<Segment> {
    let data = ReadCache::new(Positioned::new(file));
    let Ok(header) = FileHeader64::<Endianness>::parse(&data) else {
        return Vec::new();
    };
    let headers = match header.endian() {
        Ok(ENDIAN) => header.program_headers(ENDIAN, &data).unwrap_or_default(),
        _ => &[],
    };
    let headers = headers.iter().take(MAX_HEADERS);
    let segment = |header: &ProgramHeader64<Endianness>| Segment {
        address: header.p_vaddr(ENDIAN),
        offset: header.p_offset(ENDIAN),
        size: header.p_filesz(ENDIAN),
        is_code: header.p_flags(ENDIAN).0 & PF_X.0 != 0,
    };
    headers
        .filter(|header| header.p_type(ENDIAN) == PT_LOAD)
        .map(segment)
        .collect()
}

/// The segments with code, each with its address in a process that has the file's
/// `offset` at `address`.
pub fn code_at(
    segments: &[Segment],
    address: u64,
    offset: u64,
) -> impl Iterator<Item = (u64, Segment)> + '_ {
    let shown = segments.iter().find(|segment| segment.shows(offset));
    let bias = shown.map(|shown| address.wrapping_sub(shown.shift().wrapping_add(offset)));
    let code = segments.iter().filter(|segment| segment.is_code);
    bias.into_iter().flat_map(move |bias| {
        code.clone()
            .map(move |segment| (segment.address.wrapping_add(bias), *segment))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn this_programs_code_is_found_by_its_first_bytes() {
        let here = this_programs_code_is_found_by_its_first_bytes as *const () as u64;
        let maps = fs::read("/proc/self/maps").unwrap();
        let all = crate::process::maps::parse_all(&maps);
        let program = std::env::current_exe().unwrap();
        let first = all
            .iter()
            .find(|mapping| mapping.range.name.path() == Some(&*program))
            .unwrap();
        assert!(!first.is_executable, "the header");
        let content = fs::read(&program).unwrap();
        let segments = segments(&&content[..]);
        let (start, offset) = (first.range.start.0, first.range.file_offset.0);
        let holds = |(at, segment): &(u64, Segment)| (*at..at + segment.size).contains(&here);
        let (at, segment) = code_at(&segments, start, offset).find(holds).unwrap();
        let mapped = all
            .iter()
            .find(|mapping| (mapping.range.start.0..mapping.range.end.0).contains(&here))
            .unwrap();
        let by_kernel = here - mapped.range.start.0 + mapped.range.file_offset.0;
        assert_eq!(here - at + segment.offset, by_kernel);
    }

    #[test]
    fn every_prefix_of_a_file_is_safe_to_read() {
        let content = fs::read("/bin/true").unwrap();
        for length in (0..1024).chain([content.len()]) {
            let found = segments(&&content[..length]);
            assert!(found.is_empty() || length > 64);
        }
    }
}
