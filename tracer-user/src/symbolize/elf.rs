//! What names need from an ELF file (elf(5)): its build id, where its segments
//! are loaded, its symbols, and where its debug information is.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use object::read::elf::ElfFile64;
use object::read::{ReadCache, ReadCacheOps};
use object::{Endianness, Object, ObjectSection, ObjectSegment, ReadRef, SegmentFlags, elf};

use super::symbols::SymbolTable;
use crate::process::address::{ElfAddress, FileOffset};

/// No single piece of a file beyond this is read: files are made by others,
/// and a sparse one may claim to be of any size.
const MAX_PIECE: u64 = 512 << 20;

/// Nor are all pieces of one file together beyond this.
const MAX_TOTAL: u64 = 1 << 30;

/// A build id longer than this is not one (sha1 has 20 bytes).
const MAX_BUILD_ID: usize = 64;

/// More of a compressed symbol table than this is not unpacked.
const MAX_UNPACKED: u64 = 256 << 20;

/// Nor with a dictionary beyond this, KiB.
const MAX_DICTIONARY: u32 = 64 << 10;

/// The identity that the linker gave a file (`NT_GNU_BUILD_ID`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildId(Vec<u8>);

impl BuildId {
    /// Where its debug file is kept below a debug folder: the first byte is
    /// the folder's name.
    pub fn debug_path(&self) -> Option<String> {
        let name = self.to_string();
        let (folder, rest) = name.split_at_checked(2)?;
        (!rest.is_empty()).then(|| format!(".build-id/{folder}/{rest}.debug"))
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The section `.gnu_debuglink`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugLink {
    /// The debug file's name, without folders.
    pub name: Vec<u8>,
    /// The CRC-32 of its whole content.
    pub crc: u32,
}

/// A part of the file that the loader maps.
#[derive(Debug, Clone)]
struct Segment {
    file: Range<u64>,
    address: u64,
    executable: bool,
}

/// The facts of one ELF file.
#[derive(Debug)]
pub struct ElfImage {
    /// Its identity, if it has one.
    pub build_id: Option<BuildId>,
    /// The file that its debug information was moved to.
    pub debug_link: Option<DebugLink>,
    /// Whether it has line and inline information itself.
    pub has_dwarf: bool,
    /// Whether it names further files that a DWARF reader would open.
    pub names_files: bool,
    /// Its functions' names.
    pub symbols: SymbolTable,
    segments: Vec<Segment>,
}

impl ElfImage {
    /// Reads an open file. The file may change meanwhile; it is read, never
    /// mapped.
    ///
    /// # Errors
    /// The reason why it cannot be read as a 64-bit ELF file.
    pub fn read(file: &File) -> Result<Self, String> {
        let file = file.try_clone().map_err(|error| error.to_string())?;
        let cache = ReadCache::new(Positioned { file, position: 0 });
        let read = Cell::new(0);
        parse(Bounded {
            cache: &cache,
            read: &read,
        })
    }

    /// Parses an image in memory.
    ///
    /// # Errors
    /// See [`read`](Self::read).
    pub fn parse(data: &[u8]) -> Result<Self, String> {
        parse(data)
    }

    /// Where the linker put what is at an offset of the file. Pages between
    /// segments are mapped with both; there the executable one counts.
    pub fn address(&self, offset: FileOffset) -> Option<ElfAddress> {
        let holds = |segment: &&Segment| segment.file.contains(&offset.0);
        let segment = self
            .segments
            .iter()
            .filter(|segment| segment.executable)
            .find(holds)
            .or_else(|| self.segments.iter().find(holds))?;
        Some(ElfAddress(
            segment.address.wrapping_add(offset.0 - segment.file.start),
        ))
    }
}

fn parse<'data, R: ReadRef<'data>>(data: R) -> Result<ElfImage, String> {
    let file = ElfFile64::<Endianness, R>::parse(data)
        .map_err(|error| format!("not a 64-bit ELF file ({error})"))?;
    let debug_link = file.gnu_debuglink().ok().flatten();
    let debug_link = debug_link.map(|(name, crc)| DebugLink {
        name: name.to_vec(),
        crc,
    });
    let build_id = file
        .build_id()
        .ok()
        .flatten()
        .filter(|id| id.len() <= MAX_BUILD_ID);
    let has = |name: &str| file.section_by_name(name).is_some();
    let mut symbols = SymbolTable::of_file(&file);
    if !has(".symtab")
        && let Some(packed) = file.section_by_name(".gnu_debugdata")
        && let Some(image) = packed.data().ok().and_then(unpack)
        && let Ok(inner) = ElfFile64::<Endianness>::parse(&*image)
    {
        symbols.add(SymbolTable::of_file(&inner));
    }
    Ok(ElfImage {
        build_id: build_id.map(|id| BuildId(id.to_vec())),
        has_dwarf: has_content(&file, ".debug_info") || has_content(&file, ".zdebug_info"),
        names_files: debug_link.is_some() || has(".gnu_debugaltlink") || has(".debug_sup"),
        debug_link,
        symbols,
        segments: segments(&file),
    })
}

fn has_content<'data, R: ReadRef<'data>>(
    file: &ElfFile64<'data, Endianness, R>,
    name: &str,
) -> bool {
    let size = |section| ObjectSection::file_range(&section).map_or(0, |(_, size)| size);
    file.section_by_name(name)
        .is_some_and(|section| size(section) > 0)
}

fn segments<'data, R: ReadRef<'data>>(file: &ElfFile64<'data, Endianness, R>) -> Vec<Segment> {
    let segment = |part: object::read::elf::ElfSegment64<'data, '_, Endianness, R>| {
        let (start, size) = part.file_range();
        let SegmentFlags::Elf { p_flags, .. } = part.flags() else {
            return None;
        };
        Some(Segment {
            file: start..start.checked_add(size)?,
            address: part.address(),
            executable: p_flags.contains(elf::PF_X),
        })
    };
    file.segments().filter_map(segment).collect()
}

/// Unpacks `.gnu_debugdata`: a symbol table of local functions as an ELF
/// file, compressed as xz.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut image = Vec::new();
    let reader = lzma_rust2::XzReader::new_mem_limit(packed, false, MAX_DICTIONARY);
    reader.take(MAX_UNPACKED).read_to_end(&mut image).ok()?;
    Some(image)
}

/// A file with a position of its own: that of the descriptor is shared.
struct Positioned {
    file: File,
    position: u64,
}

impl ReadCacheOps for Positioned {
    fn len(&mut self) -> Result<u64, ()> {
        self.file.metadata().map(|data| data.len()).map_err(drop)
    }

    fn seek(&mut self, position: u64) -> Result<u64, ()> {
        self.position = position;
        Ok(position)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ()> {
        let count = self.file.read_at(buffer, self.position).map_err(drop)?;
        self.position += u64::try_from(count).map_err(drop)?;
        Ok(count)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ()> {
        self.file.read_exact_at(buffer, self.position).map_err(drop)
    }
}

/// A file of which only so much is read.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    cache: &'a ReadCache<Positioned>,
    read: &'a Cell<u64>,
}

impl Bounded<'_> {
    fn charge(&self, size: u64) -> Result<(), ()> {
        let total = self.read.get().saturating_add(size);
        if size > MAX_PIECE || total > MAX_TOTAL {
            return Err(());
        }
        self.read.set(total);
        Ok(())
    }
}

impl<'a> ReadRef<'a> for Bounded<'a> {
    fn len(self) -> Result<u64, ()> {
        self.cache.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.charge(size)?;
        self.cache.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        // What is kept of a string is at most this long.
        self.charge(4096)?;
        self.cache.read_bytes_at_until(range, delimiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_executable_is_read() {
        let path = std::env::current_exe().unwrap();
        let image = ElfImage::read(&File::open(&path).unwrap()).unwrap();
        assert!(image.has_dwarf);
        assert!(!image.symbols.is_empty());
        assert!(image.address(FileOffset(0)).is_some());
        assert!(image.address(FileOffset(u64::MAX)).is_none());
        let bytes = std::fs::read(&path).unwrap();
        let in_memory = ElfImage::parse(&bytes).unwrap();
        assert_eq!(in_memory.build_id, image.build_id);
    }

    #[test]
    fn what_is_not_elf_is_said_to_be() {
        let reason = ElfImage::parse(b"#!/bin/sh\n").unwrap_err();
        assert!(reason.starts_with("not a 64-bit ELF file"), "{reason}");
        assert!(ElfImage::parse(b"").is_err());
    }

    /// Neither a cut file nor one with any single byte changed may panic.
    #[test]
    fn broken_files_are_safe_to_parse() {
        let whole = std::fs::read("/bin/true").unwrap();
        for length in (0..whole.len()).step_by(97) {
            let _ = ElfImage::parse(&whole[..length]);
        }
        let headers = (0..1024).chain(whole.len() - 2048..whole.len());
        for position in headers {
            for value in [0, 0xff] {
                let mut broken = whole.clone();
                broken[position] = value;
                let _ = ElfImage::parse(&broken);
            }
        }
    }

    #[test]
    fn a_file_that_claims_too_much_is_not_read() {
        let path = std::env::temp_dir().join(format!("unfreed-sparse-{}", std::process::id()));
        let mut head = std::fs::read("/bin/true").unwrap()[..64].to_vec();
        let entries = 60_000_u16;
        // e_shoff: section headers of a huge size in a sparse file.
        head[0x28..0x30].copy_from_slice(&4096_u64.to_le_bytes());
        head[0x3c..0x3e].copy_from_slice(&entries.to_le_bytes());
        let file = File::options()
            .create(true)
            .write(true)
            .read(true)
            .truncate(true)
            .open(&path);
        let file = file.unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all_at(&head, 0).unwrap();
        file.set_len(1 << 40).unwrap();
        let mut section = [0_u8; 64];
        section[4..8].copy_from_slice(&elf::SHT_NOTE.0.to_le_bytes());
        section[0x20..0x28].copy_from_slice(&(1_u64 << 39).to_le_bytes());
        for index in 0..u64::from(entries) {
            file.write_all_at(&section, 4096 + index * 64).unwrap();
        }
        let image = ElfImage::read(&file);
        assert!(image.is_err() || image.is_ok_and(|image| image.build_id.is_none()));
    }

    #[test]
    fn debug_paths_follow_the_build_id() {
        let id = BuildId(vec![0xab, 0x01, 0xff]);
        assert_eq!(id.debug_path().as_deref(), Some(".build-id/ab/01ff.debug"));
        assert_eq!(BuildId(vec![0xab]).debug_path(), None);
        assert_eq!(BuildId(vec![]).debug_path(), None);
    }
}
