//! Areas: memory that may hold pointers, and that nobody has to hold.

use std::collections::HashMap;
use std::ops::Range;

use super::segments::FileEnds;
use crate::process::mappings::{Mapping, MappingKind};
use crate::process::maps::FileId;
use crate::process::owner::data_of_files;

/// What an area is. The order is that in which they are searched: what says most first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Variables of a file, by its place in the list of mappings.
    Data(usize),
    /// A thread's stack and thread-locals, by its number.
    Thread(u32),
    /// Another mapping, by its place in the list of mappings.
    Mapping(usize),
    /// Where a JVM keeps its objects.
    Java,
    /// The stack of a thread that runs, by its number: what of it is in use is not known.
    Running(u32),
    /// A part of a heap that could not be gone through.
    Heap,
}

impl Kind {
    /// Whether all of it is in use: else it may have pointers that nobody uses any more.
    pub const fn is_in_use(&self) -> bool {
        !matches!(self, Self::Running(_) | Self::Heap)
    }
}

/// Memory of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// Its addresses.
    pub range: Range<u64>,
    /// What it is; `None` if it holds nothing.
    pub kind: Option<Kind>,
}

impl Area {
    /// One that may hold pointers.
    pub const fn new(range: Range<u64>, kind: Kind) -> Self {
        Self {
            range,
            kind: Some(kind),
        }
    }

    /// One that holds nothing, or is searched otherwise.
    pub const fn none(range: Range<u64>) -> Self {
        Self { range, kind: None }
    }
}

/// Cuts all writable mappings into areas: what is known otherwise has its own kind, where two
/// of these overlap the one that begins first. In the order in which they are searched.
pub fn cut(mappings: &[Mapping], mut known: Vec<Area>, ends: &FileEnds) -> Vec<(Range<u64>, Kind)> {
    known.sort_by_key(|area| area.range.start);
    let mut areas = Vec::new();
    let mut next = known.into_iter().peekable();
    for (mapping, kind) in kinds(mappings, ends) {
        let mut at = mapping.start;
        while at < mapping.end {
            while next.peek().is_some_and(|area| area.range.end <= at) {
                next.next();
            }
            let area = next.peek().filter(|area| area.range.start < mapping.end);
            let (end, kind) = match area {
                Some(area) if area.range.start <= at => (area.range.end, area.kind.clone()),
                Some(area) => (area.range.start, Some(kind.clone())),
                None => (mapping.end, Some(kind.clone())),
            };
            let range = at..end.min(mapping.end);
            at = range.end;
            areas.extend(kind.map(|kind| (range, kind)));
        }
    }
    areas.sort_by_key(|(range, kind)| (order(kind), range.start));
    areas
}

const fn order(kind: &Kind) -> u8 {
    match kind {
        Kind::Data(_) => 0,
        Kind::Thread(_) => 1,
        Kind::Mapping(_) => 2,
        Kind::Java => 3,
        Kind::Running(_) => 4,
        Kind::Heap => 5,
    }
}

/// The writable mappings, with what they are if nothing else is known. What the kernel made one with
/// a file's variables is cut off where the file ends: nobody knows who holds that.
fn kinds(mappings: &[Mapping], ends: &FileEnds) -> Vec<(Range<u64>, Kind)> {
    let data: HashMap<u64, FileId> = data_of_files(mappings)
        .map(|(mapping, file)| (mapping.range.start, file.file))
        .collect();
    let mut kinds = Vec::new();
    for (at, mapping) in mappings.iter().enumerate() {
        if !mapping.is_writable || mapping.kind == MappingKind::Kernel {
            continue;
        }
        let Range { start, end } = mapping.range;
        let kind = match mapping.kind {
            MappingKind::Heap => Kind::Heap,
            _ => Kind::Mapping(at),
        };
        let file = data.get(&start);
        let of_file = file.map_or(start, |file| end_of(ends, *file, mapping));
        kinds.push((start..of_file, Kind::Data(at)));
        kinds.push((of_file..end, kind));
    }
    kinds.retain(|(range, _)| range.start < range.end);
    kinds
}

/// Where of a mapping with a file's variables these end.
fn end_of(ends: &FileEnds, file: FileId, mapping: &Mapping) -> u64 {
    let Range { start, end } = mapping.range;
    let is_of_file = mapping.kind == MappingKind::File;
    let Some(ends) = ends
        .get(&file)
        .filter(|ends| !is_of_file && !ends.is_empty())
    else {
        return end;
    };
    let first = ends.iter().find(|it| **it >= start);
    first.map_or(start, |first| end.min(*first))
}

/// The file whose variables a mapping has.
pub fn file_of(mappings: &[Mapping], at: usize) -> Option<FileId> {
    let start = mappings.get(at)?.range.start;
    let mut data = data_of_files(mappings);
    let (_, file) = data.find(|(mapping, _)| mapping.range.start == start)?;
    Some(file.file)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::process::maps::Device;

    /// One that can be written to, of no file that has a name.
    pub fn mapping(range: Range<u64>, kind: MappingKind) -> Mapping {
        let device = Device { major: 0, minor: 0 };
        Mapping {
            range,
            kind,
            is_writable: true,
            name: String::new(),
            file: FileId::new(device, 0),
        }
    }

    #[test]
    fn what_is_known_is_cut_out() {
        let mappings = [
            mapping(0x1000..0x2000, MappingKind::Anonymous),
            mapping(0x4000..0x5000, MappingKind::File),
            mapping(0x5000..0x6000, MappingKind::Anonymous),
            mapping(0x8000..0x9000, MappingKind::Heap),
        ];
        let known = vec![
            Area::none(0x1800..0x1900),
            Area::new(0x1900..0x4000, Kind::Thread(7)),
            Area::none(0x8000..0x9000),
        ];
        let expected = [
            (0x4000..0x5000, Kind::Data(1)),
            (0x5000..0x6000, Kind::Data(2)),
            (0x1900..0x2000, Kind::Thread(7)),
            (0x1000..0x1800, Kind::Mapping(0)),
        ];
        assert_eq!(cut(&mappings, known, &FileEnds::new()), expected);
    }

    #[test]
    fn areas_that_overlap_are_searched_once() {
        let mappings = [mapping(0x1000..0x9000, MappingKind::Anonymous)];
        let known = vec![
            Area::new(0x0..0x3000, Kind::Thread(1)),
            Area::none(0x2000..0x5000),
            Area::none(0x2500..0x2600),
            Area::none(0x8000..0xa000),
        ];
        let expected = [
            (0x1000..0x3000, Kind::Thread(1)),
            (0x5000..0x8000, Kind::Mapping(0)),
        ];
        assert_eq!(cut(&mappings, known, &FileEnds::new()), expected);
    }

    /// An arena that the kernel made one mapping with a library's variables is none of them.
    #[test]
    fn what_is_behind_a_file_is_none_of_its_variables() {
        let mappings = [
            mapping(0x4000..0x5000, MappingKind::File),
            mapping(0x5000..0x9000, MappingKind::Anonymous),
        ];
        let file = mappings[0].file;
        let cut_at = |ends: &[u64]| {
            let ends = FileEnds::from([(file, ends.to_vec())]);
            cut(&mappings, vec![Area::none(0x8000..0x8800)], &ends)
        };
        let data = (0x4000..0x5000, Kind::Data(0));
        let expected = [
            data.clone(),
            (0x5000..0x6000, Kind::Data(1)),
            (0x6000..0x8000, Kind::Mapping(1)),
            (0x8800..0x9000, Kind::Mapping(1)),
        ];
        assert_eq!(cut_at(&[0x1000, 0x6000]), expected);
        // It has no memory beside what is in the file, here or elsewhere.
        for ends in [&[0x5000][..], &[0x1000]] {
            let (first, others) = cut_at(ends)
                .split_first()
                .map(|(it, all)| (it.clone(), all.to_vec()))
                .unwrap();
            assert_eq!(first, data);
            assert!(others.iter().all(|(_, kind)| *kind == Kind::Mapping(1)));
        }
        assert_eq!(cut_at(&[]).last().unwrap().1, Kind::Data(1));
    }
}
