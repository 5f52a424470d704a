//! A file's table in the kernel, and where it counts from in a mapping.

use std::time::Duration;

use tracer_ebpf::file::{FileTable, MAX_PARTS, Part, TableKind};
use tracer_ebpf::table::{Range, RangeKind};

use super::extents::Extent;
use crate::process::address::{CodeAddress, FileOffset};
use crate::process::maps::MappedRange;
use crate::unwind::{Omitted, Segment};

/// What is known of a file's table.
#[derive(Debug)]
pub enum Module {
    /// It is in the kernel.
    Loaded(Loaded),
    /// The file has no call frame information.
    Bare,
    /// It cannot be had; for people to read.
    Failed(String),
}

/// A table in the kernel.
#[derive(Debug)]
pub struct Loaded {
    /// The file's executable segments.
    pub segments: Vec<Segment>,
    /// The address as linked that rows count from.
    pub base: u64,
    /// Rows for return addresses.
    pub returns: Extent,
    /// Rows for any instruction.
    pub full: Extent,
    /// How long it took to build.
    pub time: Duration,
    /// What the rows do not say.
    pub omitted: Omitted,
    /// The function that allocates exceptions, if the file has it.
    pub thrower: Option<std::ops::Range<FileOffset>>,
}

impl Module {
    /// A mapping of the file as the kernel side knows it.
    pub fn range(&self, mapped: &MappedRange) -> Range {
        match self {
            Self::Loaded(loaded) => loaded.range(mapped),
            Self::Bare => range(mapped, RangeKind::Bare),
            Self::Failed(_) => range(mapped, RangeKind::Pending),
        }
    }
}

impl Module {
    /// The file's table as the kernel side finds it by the file.
    pub fn file_table(&self) -> FileTable {
        match self {
            Self::Loaded(loaded) => loaded.file_table(),
            Self::Bare => FileTable {
                kind: TableKind::Bare as u32,
                ..FileTable::default()
            },
            Self::Failed(_) => FileTable::default(),
        }
    }
}

impl Loaded {
    fn file_table(&self) -> FileTable {
        let mut parts = [Part::default(); MAX_PARTS];
        let mut segments: Vec<&Segment> = self.segments.iter().collect();
        // What is left out is missed least.
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.size));
        for (part, segment) in parts.iter_mut().zip(segments) {
            let start = segment.offset.0;
            *part = Part {
                start,
                end: start.saturating_add(segment.size),
                shift: segment
                    .address
                    .0
                    .wrapping_sub(start)
                    .wrapping_sub(self.base),
            };
        }
        let thrower = self.thrower.as_ref().and_then(|code| {
            let len = code.end.0.checked_sub(code.start.0)?;
            Some((code.start.0, u32::try_from(len).ok()?))
        });
        FileTable {
            parts,
            returns: self.returns.first,
            returns_len: self.returns.len,
            full: self.full.first,
            full_len: self.full.len,
            kind: TableKind::Table as u32,
            thrower_len: thrower.map_or(0, |(_, len)| len),
            thrower: thrower.map_or(0, |(start, _)| start),
        }
    }

    fn range(&self, mapped: &MappedRange) -> Range {
        let Some(base) = self.base_in(mapped) else {
            // Executable, but in no executable segment: nothing is known.
            return range(mapped, RangeKind::Pending);
        };
        Range {
            base,
            returns: self.returns.first,
            returns_len: self.returns.len,
            full: self.full.first,
            full_len: self.full.len,
            ..range(mapped, RangeKind::Table)
        }
    }

    /// Where the table's base is in a process: by the segment that the
    /// mapping shows most of.
    fn base_in(&self, mapped: &MappedRange) -> Option<u64> {
        let first = mapped.file_offset.0;
        let end = first.saturating_add(mapped.end.0 - mapped.start.0);
        let shown = |segment: &&Segment| {
            let segment_end = segment.offset.0.saturating_add(segment.size);
            end.min(segment_end)
                .saturating_sub(first.max(segment.offset.0))
        };
        let segment = self.segments.iter().max_by_key(shown)?;
        if shown(&segment) == 0 {
            return None;
        }
        let FileOffset(offset) = segment.offset;
        let linked = segment.address.0.wrapping_sub(offset).wrapping_add(first);
        Some(mapped.start.0.wrapping_sub(linked).wrapping_add(self.base))
    }
}

/// A range without a table.
pub fn range(mapped: &MappedRange, kind: RangeKind) -> Range {
    let (CodeAddress(start), CodeAddress(end)) = (mapped.start, mapped.end);
    Range {
        start,
        end,
        kind: kind as u32,
        origin: start.wrapping_sub(mapped.file_offset.0),
        ..Range::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::address::ElfAddress;
    use crate::process::maps::parse_executable;

    fn loaded() -> Loaded {
        let segment = |offset, address, size| Segment {
            offset: FileOffset(offset),
            address: ElfAddress(address),
            size,
        };
        Loaded {
            segments: vec![
                segment(0x1234, 0x40_1234, 0x1000),
                segment(0x8000, 0x60_8000, 0x4000),
            ],
            base: 0x40_1000,
            returns: Extent { first: 7, len: 3 },
            full: Extent::EMPTY,
            time: Duration::ZERO,
            omitted: Omitted::default(),
            thrower: None,
        }
    }

    fn range_of(line: &str) -> Range {
        let mapped = parse_executable(line.as_bytes());
        Module::Loaded(loaded()).range(&mapped[0])
    }

    #[test]
    fn the_base_is_found_by_the_segment_that_is_mapped() {
        let first = range_of("555500001000-555500003000 r-xp 00001000 08:01 5 /lib\n");
        assert_eq!(first.base, 0x5555_0000_1000);
        assert_eq!((first.returns, first.returns_len), (7, 3));
        let second = range_of("555500208000-55550020c000 r-xp 00008000 08:01 5 /lib\n");
        assert_eq!(second.base, 0x5555_0000_1000);
    }

    #[test]
    fn both_ways_to_a_row_agree() {
        let table = Module::Loaded(loaded()).file_table();
        let mapped = "555500208000-55550020c000 r-xp 00008000 08:01 5 /lib\n";
        let range = range_of(mapped);
        for address in [0x5555_0020_8000, 0x5555_0020_bfff] {
            let offset = address - range.origin;
            assert_eq!(table.row_offset(offset), Some(address - range.base));
        }
    }

    #[test]
    fn a_mapping_of_no_segment_has_no_table() {
        let range = range_of("555500001000-555500003000 r-xp 00100000 08:01 5 /lib\n");
        assert_eq!(range.kind, RangeKind::Pending as u32);
    }
}
