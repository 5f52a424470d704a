//! What names need from an ELF file (elf(5)): its build id, where its segments
//! are loaded, its symbols, and where its debug information is.

use std::cell::Cell;
use std::fmt;
use std::io::Read;
use std::ops::Range;

use object::Endianness;
use object::elf::{
    ELF_NOTE_GNU, FileHeader64, NT_GNU_BUILD_ID, PF_X, PN_XNUM, PT_LOAD, ProgramHeader64,
    SHF_COMPRESSED, SHF_EXECINSTR, SHT_DYNSYM, SHT_NOBITS, SHT_NOTE, SHT_SYMTAB, SectionHeader64,
};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable};
use object::read::{ReadCache, ReadRef};

use super::symbols::{CodeSections, Place, SymbolTable};
use crate::process::address::{ElfAddress, FileOffset};
use crate::process::bytes::{Bytes, Positioned};
use crate::process::pclntab::{CodePart, Pclntab};

/// Nothing of a file beyond this is read at once: files are made by others, and
/// a sparse one may claim to be of any size. Symbols are read piece by piece.
const MAX_PIECE: u64 = 16 << 20;

/// Nor are all pieces of one file together beyond this.
const MAX_TOTAL: u64 = 48 << 20;

/// A build id longer than this is not one (sha1 has 20 bytes).
const MAX_BUILD_ID: usize = 64;

/// A file's name in a link is not longer than this.
const MAX_LINK: usize = 4096;

/// More of a compressed symbol table than this is not unpacked.
const MAX_UNPACKED: u64 = 64 << 20;

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
    /// Sections of debug information that are compressed: where each is in the
    /// file, with its header.
    pub packed: Vec<Range<u64>>,
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
    pub fn read(bytes: &dyn Bytes) -> Result<Self, String> {
        let cache = ReadCache::new(Positioned::new(bytes));
        let read = Cell::new(0);
        let data = Bounded {
            cache: &cache,
            read: &read,
        };
        let headers = Headers::parse(data)?;
        let mut symbols = SymbolTable::default();
        for place in headers.symbol_tables() {
            symbols.add(bytes, &place, &headers.code(), headers.endian);
        }
        if headers.named(".symtab").is_none()
            && let Some(image) = headers.unpacked(data)
        {
            let inner = Headers::parse(&*image)?;
            for place in inner.symbol_tables() {
                symbols.add_unpacked(&image, &place, &inner.code(), inner.endian);
            }
        }
        if headers.named(".symtab").is_none()
            && let Some((table, text)) = headers.go_functions(bytes)
        {
            symbols.add_go(bytes, &table, text);
        }
        symbols.arrange();
        Ok(headers.image(data, symbols))
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

impl ElfImage {
    /// Where what the linker put at an address is in the file.
    pub fn offset(&self, address: u64) -> Option<u64> {
        let segments = self.segments.iter();
        segments
            .filter(|segment| segment.executable)
            .find_map(|segment| {
                let into = address.checked_sub(segment.address)?;
                let offset = segment.file.start.checked_add(into)?;
                (offset < segment.file.end).then_some(offset)
            })
    }
}

/// A file's headers.
struct Headers<'data> {
    endian: Endianness,
    segments: &'data [ProgramHeader64<Endianness>],
    /// Each with its name.
    sections: Vec<(&'data [u8], &'data SectionHeader64<Endianness>)>,
}

impl<'data> Headers<'data> {
    fn parse<R: ReadRef<'data>>(data: R) -> Result<Self, String> {
        let failed = |error| format!("not a 64-bit ELF file ({error})");
        let header = FileHeader64::<Endianness>::parse(data).map_err(failed)?;
        let endian = header.endian().map_err(failed)?;
        let elsewhere = header.e_shnum.get(endian) == 0 && header.e_shoff.get(endian) != 0;
        if header.e_phnum.get(endian) == PN_XNUM || elsewhere {
            return Err("it has too many segments or sections".to_owned());
        }
        let segments = header.program_headers(endian, data).map_err(failed)?;
        let table: SectionTable<'data, FileHeader64<Endianness>, R> =
            header.sections(endian, data).map_err(failed)?;
        let name = |section| table.section_name(endian, section).unwrap_or_default();
        let sections = table.iter().map(|section| (name(section), section));
        Ok(Headers {
            endian,
            segments,
            sections: sections.collect(),
        })
    }

    fn named(&self, name: &str) -> Option<&'data SectionHeader64<Endianness>> {
        let is_it = |(found, _): &&(&[u8], _)| *found == name.as_bytes();
        self.sections
            .iter()
            .find(is_it)
            .map(|(_, section)| *section)
    }

    fn of_kind(
        &self,
        kind: object::elf::SectionType,
    ) -> impl Iterator<Item = &'data SectionHeader64<Endianness>> {
        let sections = self.sections.iter().map(|(_, section)| *section);
        sections.filter(move |section| section.sh_type(self.endian) == kind)
    }

    /// Where a section is in the file.
    fn place(&self, section: &SectionHeader64<Endianness>) -> Range<u64> {
        let start = section.sh_offset(self.endian);
        match section.sh_type(self.endian) {
            SHT_NOBITS => start..start,
            _ => start..start.saturating_add(section.sh_size(self.endian)),
        }
    }

    /// The first table of each kind.
    fn symbol_tables(&self) -> impl Iterator<Item = Place> {
        [SHT_SYMTAB, SHT_DYNSYM].into_iter().filter_map(|kind| {
            let table = self.of_kind(kind).next()?;
            let (_, names) = self.sections.get(table.sh_link(self.endian) as usize)?;
            Some(Place {
                symbols: self.place(table),
                names: self.place(names),
            })
        })
    }

    fn code(&self) -> CodeSections {
        let sections = self.sections.iter().enumerate();
        sections
            .filter(|(_, (_, section))| section.sh_flags(self.endian).contains(SHF_EXECINSTR))
            .filter_map(|(index, (_, section))| {
                let start = section.sh_addr(self.endian);
                let end = start.checked_add(section.sh_size(self.endian))?;
                Some((index, start..end))
            })
            .collect()
    }

    /// A symbol table of local functions, unpacked.
    fn unpacked<R: ReadRef<'data>>(&self, data: R) -> Option<Vec<u8>> {
        let packed = self.named(".gnu_debugdata")?;
        unpack(packed.data(self.endian, data).ok()?)
    }

    /// Go's table of functions, and the address that it counts from.
    fn go_functions(&self, bytes: &dyn Bytes) -> Option<(Pclntab, u64)> {
        let place = |name: &str| Some(self.place(self.named(name)?));
        let table = Pclntab::find(bytes, place)?;
        let segments = self.segments();
        let code: Vec<CodePart> = segments
            .iter()
            .filter(|segment| segment.executable)
            .map(|segment| CodePart {
                offset: segment.file.start,
                address: segment.address,
                size: segment.file.end - segment.file.start,
            })
            .collect();
        let text = table.text(bytes, &code)?;
        Some((table, text))
    }

    fn build_id<R: ReadRef<'data>>(&self, data: R) -> Option<BuildId> {
        self.of_kind(SHT_NOTE).find_map(|section| {
            let mut notes = section.notes(self.endian, data).ok()??;
            while let Ok(Some(note)) = notes.next() {
                if note.name() == ELF_NOTE_GNU && note.n_type(self.endian) == NT_GNU_BUILD_ID {
                    let id = note.desc();
                    return (id.len() <= MAX_BUILD_ID).then(|| BuildId(id.to_vec()));
                }
            }
            None
        })
    }

    /// The name, a zero, zeros up to a multiple of four, the checksum.
    fn debug_link<R: ReadRef<'data>>(&self, data: R) -> Option<DebugLink> {
        let link = self.named(".gnu_debuglink")?;
        let link = link.data(self.endian, data).ok()?;
        let end = memchr::memchr(0, link).filter(|end| *end <= MAX_LINK)?;
        let crc = link.get((end + 1).next_multiple_of(4)..)?.first_chunk()?;
        Some(DebugLink {
            name: link[..end].to_vec(),
            crc: match self.endian {
                Endianness::Little => u32::from_le_bytes(*crc),
                Endianness::Big => u32::from_be_bytes(*crc),
            },
        })
    }

    /// Compressed sections of debug information.
    fn packed(&self) -> Vec<Range<u64>> {
        let is_packed = |name: &[u8], section: &SectionHeader64<Endianness>| {
            let flagged = section.sh_flags(self.endian).contains(SHF_COMPRESSED);
            name.starts_with(b".zdebug_") || (flagged && name.starts_with(b".debug_"))
        };
        let sections = self.sections.iter();
        let packed = sections.filter(|(name, section)| is_packed(name, section));
        packed.map(|(_, section)| self.place(section)).collect()
    }

    fn segments(&self) -> Vec<Segment> {
        let loaded = self.segments.iter();
        loaded
            .filter(|part| part.p_type(self.endian) == PT_LOAD)
            .filter_map(|part| {
                let (start, size) = part.file_range(self.endian);
                Some(Segment {
                    file: start..start.checked_add(size)?,
                    address: part.p_vaddr(self.endian),
                    executable: part.p_flags(self.endian).0 & PF_X.0 != 0,
                })
            })
            .collect()
    }

    fn image<R: ReadRef<'data>>(&self, data: R, symbols: SymbolTable) -> ElfImage {
        let has = |name| self.named(name).is_some();
        let has_content = |name| {
            let section = self.named(name);
            section.is_some_and(|section| !self.place(section).is_empty())
        };
        let debug_link = self.debug_link(data);
        ElfImage {
            build_id: self.build_id(data),
            has_dwarf: has_content(".debug_info") || has_content(".zdebug_info"),
            names_files: has(".gnu_debuglink") || has(".gnu_debugaltlink") || has(".debug_sup"),
            debug_link,
            packed: self.packed(),
            symbols,
            segments: self.segments(),
        }
    }
}

/// Unpacks `.gnu_debugdata`: a symbol table of local functions as an ELF
/// file, compressed as xz.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut image = Vec::new();
    let reader = lzma_rust2::XzReader::new_mem_limit(packed, false, MAX_DICTIONARY);
    reader.take(MAX_UNPACKED).read_to_end(&mut image).ok()?;
    Some(image)
}

/// A file of which only so much is read.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    cache: &'a ReadCache<Positioned<'a>>,
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
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{CWD, Mode, OFlags, openat};

    use super::*;
    use crate::process::file::RegularFile;

    fn open(path: &std::path::Path) -> RegularFile {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        RegularFile::open(&openat(CWD, path, flags, Mode::empty()).unwrap()).unwrap()
    }

    #[test]
    fn own_executable_is_read() {
        let path = std::env::current_exe().unwrap();
        let image = ElfImage::read(&open(&path)).unwrap();
        assert!(image.has_dwarf);
        assert!(!image.symbols.is_empty());
        assert!(image.address(FileOffset(0)).is_some());
        assert!(image.address(FileOffset(u64::MAX)).is_none());
        let bytes = std::fs::read(&path).unwrap();
        let in_memory = ElfImage::read(&&bytes[..]).unwrap();
        assert_eq!(in_memory.build_id, image.build_id);
    }

    #[test]
    fn what_is_not_elf_is_said_to_be() {
        let reason = ElfImage::read(&&b"#!/bin/sh\n"[..]).unwrap_err();
        assert!(reason.starts_with("not a 64-bit ELF file"), "{reason}");
        assert!(ElfImage::read(&&b""[..]).is_err());
    }

    /// Neither a cut file nor one with any single byte changed may panic.
    #[test]
    fn broken_files_are_safe_to_parse() {
        let whole = std::fs::read("/bin/true").unwrap();
        for length in (0..whole.len()).step_by(97) {
            let _ = ElfImage::read(&&whole[..length]);
        }
        let headers = (0..1024).chain(whole.len() - 2048..whole.len());
        for position in headers {
            for value in [0, 0xff] {
                let mut broken = whole.clone();
                broken[position] = value;
                let _ = ElfImage::read(&&broken[..]);
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
        file.write_all_at(&head, 0).unwrap();
        file.set_len(1 << 40).unwrap();
        let mut section = [0_u8; 64];
        section[4..8].copy_from_slice(&SHT_NOTE.0.to_le_bytes());
        section[0x20..0x28].copy_from_slice(&(1_u64 << 39).to_le_bytes());
        for index in 0..u64::from(entries) {
            file.write_all_at(&section, 4096 + index * 64).unwrap();
        }
        let read = open(&path);
        std::fs::remove_file(&path).unwrap();
        let image = ElfImage::read(&read);
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
