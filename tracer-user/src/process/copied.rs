//! Code that a program has copied from its file to memory without one, as some do at
//! their start to have it on large pages (node's `--use-largepages`, for example): at
//! the addresses where the file's segment was, or elsewhere. It is the file's as long as
//! each of its bytes is.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::address::{CodeAddress, FileOffset};
use super::bytes::Bytes;
use super::file::{ModuleFile, ModuleFiles};
use super::handle::ProcessHandle;
use super::loaded::{Segment, code_at, segments};
use super::maps::{AnyMapping, FileId, MappedRange, MappingName};

/// Bytes that are compared at once.
const PIECE: usize = 1 << 16;

/// A copy begins with a page.
const PAGE: usize = 4096;

/// Bytes of a process image that are compared in all: it chooses how often there is
/// something new. The code of node is 26 MB.
const MAX_COMPARED: u64 = 1 << 30;

/// Places of memory without a file that are remembered: few more than a program has.
const MAX_KNOWN: usize = 4096;

/// Code of a file in other memory.
#[derive(Debug, Clone)]
pub struct Copied {
    /// What is mapped there, as if it was the file.
    pub range: MappedRange,
    /// The file.
    pub file: Arc<ModuleFile>,
}

/// What was found to be at some place of memory without a file.
#[derive(Debug, Clone)]
struct Known {
    addresses: Range<u64>,
    name: MappingName,
    copied: Vec<Copied>,
}

/// The copies in one process image.
#[derive(Debug, Clone, Default)]
pub struct Copies {
    known: Vec<Known>,
    compared: u64,
}

impl Copies {
    /// Looks at all of a process's mappings; what is as it was is not looked at again.
    pub fn look(&mut self, process: &ProcessHandle, all: &[AnyMapping], files: &mut ModuleFiles) {
        let found: Vec<usize> = (0..all.len()).filter(|at| may_be_one(&all[*at])).collect();
        if found.is_empty() {
            self.known.clear();
            return;
        }
        let mut before = std::mem::take(&mut self.known);
        let mut memory = None;
        for at in found.into_iter().take(MAX_KNOWN) {
            let range = &all[at].range;
            let is_it = |known: &Known| {
                known.addresses == (range.start.0..range.end.0) && known.name == range.name
            };
            let known = match before.iter().position(is_it) {
                Some(index) => before.swap_remove(index),
                None => {
                    if memory.is_none() {
                        memory = process.open_proc("mem").ok();
                    }
                    let Some(memory) = &memory else {
                        return;
                    };
                    let copied = self.find((process, memory), all, at, files);
                    Known {
                        addresses: range.start.0..range.end.0,
                        name: range.name.clone(),
                        copied,
                    }
                }
            };
            self.known.push(known);
        }
    }

    /// Those that there are, by address.
    pub fn found(&self) -> impl Iterator<Item = &Copied> {
        self.known.iter().flat_map(|known| &known.copied)
    }

    /// What of files the mapping has copies of.
    fn find(
        &mut self,
        (process, memory): (&ProcessHandle, &File),
        all: &[AnyMapping],
        at: usize,
        files: &mut ModuleFiles,
    ) -> Vec<Copied> {
        let range = &all[at].range;
        let mut found = Vec::new();
        for neighbour in neighbours(all, at) {
            let Ok(file) = files.open(process, neighbour) else {
                continue;
            };
            let parts = segments(&file.content);
            let (start, offset) = (neighbour.start.0, neighbour.file_offset.0);
            for (address, segment) in code_at(&parts, start, offset) {
                let shared = shared(range, address, &segment);
                if let Some((addresses, offset)) = shared
                    && self.is_same(memory, &file, &addresses, (offset, segment.end()))
                {
                    found.push(copied(addresses, offset, &file, &neighbour.name));
                }
            }
            if !found.is_empty() {
                found.sort_by_key(|copied| copied.range.start);
                return found;
            }
        }
        self.find_elsewhere(memory, range).into_iter().collect()
    }

    /// The same where code of a file that has a copy at its place already has another
    /// one, as V8's own functions have near the code that it compiles.
    fn find_elsewhere(&mut self, memory: &File, range: &MappedRange) -> Option<Copied> {
        let mut first = vec![0; PAGE];
        let copied_before: Vec<Copied> = self.found().cloned().collect();
        if copied_before.is_empty() || memory.read_exact_at(&mut first, range.start.0).is_err() {
            return None;
        }
        for before in copied_before {
            let parts = segments(&before.file.content);
            for segment in parts.iter().filter(|segment| segment.is_code) {
                let Some(offset) = self.place_of(&first, &before.file, segment) else {
                    continue;
                };
                let size = (segment.end() - offset).min(range.end.0 - range.start.0);
                let addresses = range.start.0..range.start.0 + size;
                if self.is_same(memory, &before.file, &addresses, (offset, segment.end())) {
                    return Some(copied(addresses, offset, &before.file, &before.range.name));
                }
            }
        }
        None
    }

    /// Where the only page of a segment is that has these bytes.
    fn place_of(&mut self, page: &[u8], file: &ModuleFile, segment: &Segment) -> Option<u64> {
        let step = PAGE as u64;
        let mut piece = vec![0; PIECE];
        let mut found = None;
        for offset in (segment.offset.next_multiple_of(step)..segment.end()).step_by(PIECE) {
            self.compared += PIECE as u64;
            if self.compared > MAX_COMPARED {
                return None;
            }
            let filled = file.content.fill(&mut piece, offset);
            let pages = piece[..filled].chunks_exact(PAGE);
            for (index, _) in pages.enumerate().filter(|(_, other)| *other == page) {
                let place = offset + index as u64 * step;
                if found.replace(place).is_some() {
                    return None;
                }
            }
        }
        found
    }

    /// Whether memory has the file's bytes from an offset on, as far as the segment goes.
    fn is_same(
        &mut self,
        memory: &File,
        file: &ModuleFile,
        addresses: &Range<u64>,
        (offset, end): (u64, u64),
    ) -> bool {
        let size = (addresses.end - addresses.start).min(end - offset);
        let (mut stored, mut found) = (vec![0; PIECE], vec![0; PIECE]);
        for at in (0..size).step_by(PIECE) {
            let length = usize::try_from(size - at).map_or(PIECE, |rest| rest.min(PIECE));
            self.compared += length as u64;
            let (stored, found) = (&mut stored[..length], &mut found[..length]);
            let is_read = file.content.fill(stored, offset + at) == length
                && memory.read_exact_at(found, addresses.start + at).is_ok();
            if self.compared > MAX_COMPARED || !is_read || stored != found {
                return false;
            }
        }
        size > 0
    }
}

/// Whether a mapping may be code that was copied: it can be executed and not written to,
/// and has no file, or one that has no name (large pages and shared memory have such).
fn may_be_one(mapping: &AnyMapping) -> bool {
    let is_nameless = match &mapping.range.name {
        MappingName::Anonymous => true,
        MappingName::Special(name) => name.starts_with("[anon"),
        name @ MappingName::File(path) => name.path() != Some(path),
    };
    mapping.is_executable && !mapping.is_writable && is_nameless
}

/// The mappings of files around a mapping, of which it may be a copy: the nearest below,
/// and the nearest above, of a file whose first bytes are mapped too, as of all that a
/// loader has mapped.
fn neighbours(all: &[AnyMapping], at: usize) -> impl Iterator<Item = &MappedRange> {
    let own = all[at].range.file;
    let is_file =
        move |mapping: &&AnyMapping| mapping.range.file.inode != 0 && mapping.range.file != own;
    let below = all[..at].iter().rev().find(is_file);
    let above = all[at + 1..].iter().find(is_file);
    let has_head = |mapping: &&AnyMapping| has_head(all, mapping.range.file);
    below
        .into_iter()
        .chain(above)
        .filter(has_head)
        .map(|mapping| &mapping.range)
}

fn has_head(all: &[AnyMapping], file: FileId) -> bool {
    all.iter().any(|mapping| {
        mapping.range.file == file && mapping.range.file_offset.0 == 0 && !mapping.is_writable
    })
}

/// What of a mapping is where a segment would be, page by page, and its offset in the
/// file.
fn shared(range: &MappedRange, address: u64, segment: &Segment) -> Option<(Range<u64>, u64)> {
    let page = PAGE as u64;
    let end = address.checked_add(segment.size)?;
    let last = end.checked_next_multiple_of(page)?.min(range.end.0);
    let first = range.start.0.max(address / page * page);
    let offset = segment.offset.checked_sub(address.saturating_sub(first))?;
    let offset = offset.checked_add(first.saturating_sub(address))?;
    (first < last && offset < segment.end()).then_some((first..last, offset))
}

fn copied(
    addresses: Range<u64>,
    offset: u64,
    file: &Arc<ModuleFile>,
    name: &MappingName,
) -> Copied {
    Copied {
        range: MappedRange {
            start: CodeAddress(addresses.start),
            end: CodeAddress(addresses.end),
            file_offset: FileOffset(offset),
            file: file.mapped,
            name: name.clone(),
        },
        file: Arc::clone(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::maps::parse_all;

    fn all(text: &str) -> Vec<AnyMapping> {
        parse_all(text.as_bytes())
    }

    #[test]
    fn what_cannot_be_a_copy_is_not_looked_at() {
        let maps = all("\
1000-2000 r-xp 00000000 00:00 0
2000-3000 rwxp 00000000 00:00 0
3000-4000 rw-p 00000000 00:00 0
4000-5000 r-xp 00000000 08:01 7      /bin/true
5000-6000 r-xp 00000000 00:01 8      /memfd:code (deleted)
6000-7000 r-xp 00000000 00:00 0      [vdso]
7000-8000 r-xp 00000000 00:00 0      [anon:code]
");
        let found: Vec<u64> = maps
            .iter()
            .filter(|mapping| may_be_one(mapping))
            .map(|mapping| mapping.range.start.0)
            .collect();
        assert_eq!(found, [0x1000, 0x5000, 0x7000]);
    }

    #[test]
    fn files_beside_it_are_those_that_a_loader_mapped() {
        let maps = all("\
1000-2000 r--p 00000000 08:01 7      /bin/program
2000-3000 r-xp 00000000 00:00 0
3000-4000 rw-p 00000000 00:00 0
4000-5000 rw-p 00003000 08:01 9      /var/data
");
        let beside: Vec<u64> = neighbours(&maps, 1).map(|range| range.start.0).collect();
        assert_eq!(beside, [0x1000]);
    }

    #[test]
    fn only_what_is_where_the_segment_would_be_is_compared() {
        let segment = Segment {
            address: 0x1120,
            offset: 0x120,
            size: 0x2000,
            is_code: true,
        };
        let shared_by = |line: &str| shared(&all(line)[0].range, 0x50_1120, &segment);
        let whole = shared_by("501000-504000 r-xp 00000000 00:00 0\n");
        assert_eq!(whole, Some((0x50_1000..0x50_4000, 0)));
        let part = shared_by("502000-600000 r-xp 00000000 00:00 0\n");
        assert_eq!(part, Some((0x50_2000..0x50_4000, 0x1000)));
        let behind = shared_by("504000-600000 r-xp 00000000 00:00 0\n");
        assert_eq!(behind, None);
    }
}
