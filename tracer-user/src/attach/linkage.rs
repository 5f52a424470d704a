//! What a file's headers tell of the ways through its code: where functions
//! begin, and where jumps through pointers lead.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use anyhow::{Context, Result, bail};
use object::elf::{
    FileHeader64, PF_X, PN_XNUM, PT_GNU_EH_FRAME, PT_LOAD, R_X86_64_GLOB_DAT, R_X86_64_IRELATIVE,
    R_X86_64_JUMP_SLOT, R_X86_64_RELATIVE, Rela64, SHT_DYNSYM, SHT_RELA, SHT_SYMTAB,
};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};
use object::{Endianness, ReadCache, ReadRef};

use super::symbols::Symbols;
use crate::process::bytes::{Bytes, Positioned};

/// Bytes of relocations that are read, at most.
const MAX_RELOCATIONS: u64 = 32 << 20;

/// Functions that a file tells the beginning of, at most.
const MAX_STARTS: u32 = 4 << 20;

/// Head and entries of `.eh_frame_hdr` in the form that linkers write: a table
/// of 32-bit offsets from the section itself, sorted by function.
const SORTED_TABLE: [u8; 4] = [1, 0x1b, 0x03, 0x3b];

/// Functions of C that return their first argument. They are called by all and
/// sundry, so that their own returns are no place for probes.
const RETURN_FIRST: [&str; 3] = ["memset", "memcpy", "memmove"];

/// Functions that allocate, in whichever file they are.
const ALLOCATING: [&str; 13] = [
    "malloc",
    "calloc",
    "realloc",
    "aligned_alloc",
    "memalign",
    "posix_memalign",
    "_Znwm",
    "_Znam",
    "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t",
    "_ZnwmRKSt9nothrow_t",
    "_ZnamRKSt9nothrow_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t",
];

/// Functions that free.
const FREEING: [&str; 6] = [
    "free",
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t",
];

/// Where a jump leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Code of the same file, an offset.
    Code(u64),
    /// A function that returns its first argument.
    ReturnsFirst,
    /// A function that allocates, in a file that the dynamic linker finds.
    Allocates,
    /// One that frees.
    Frees,
}

/// An executable segment.
#[derive(Debug, Clone)]
struct Segment {
    /// In the file.
    offsets: Range<u64>,
    /// The linked address of its beginning.
    address: u64,
}

/// What is known of a file's code. Code is named by its offset in the file.
#[derive(Debug, Default)]
pub struct Linkage {
    segments: Vec<Segment>,
    /// Where functions begin, sorted.
    starts: Vec<u64>,
    /// Where the pointers lead that code jumps through, by linked address.
    pointers: HashMap<u64, Destination>,
    /// Functions that return their first argument.
    return_first: HashSet<u64>,
}

impl Linkage {
    /// Reads a file's headers.
    ///
    /// # Errors
    /// Fails if it is no ELF file, or its tables are too large.
    pub fn read(file: &dyn Bytes) -> Result<Self> {
        let cache = ReadCache::new(Positioned::new(file));
        let data = &cache;
        let header = FileHeader64::<Endianness>::parse(data).context("not a 64-bit ELF file")?;
        let endian = header.endian()?;
        if header.e_phnum.get(endian) == PN_XNUM {
            bail!("it has too many segments");
        }
        let headers = header
            .program_headers(endian, data)
            .context("its program headers cannot be read")?;
        let mut linkage = Self::default();
        for header in headers {
            if header.p_type(endian) == PT_LOAD && header.p_flags(endian).0 & PF_X.0 != 0 {
                let (start, length) = header.file_range(endian);
                linkage.segments.push(Segment {
                    offsets: start..start.saturating_add(length),
                    address: header.p_vaddr(endian),
                });
            }
        }
        for header in headers {
            if header.p_type(endian) == PT_GNU_EH_FRAME {
                linkage.read_starts(file, header.p_offset(endian), header.p_vaddr(endian));
            }
        }
        let sections = header
            .sections(endian, data)
            .context("its section headers cannot be read")?;
        linkage.read_pointers(endian, data, &sections)?;
        Ok(linkage)
    }

    /// Of a file that is all code.
    #[cfg(test)]
    pub fn of(length: u64, starts: &[u64]) -> Self {
        Self {
            segments: vec![Segment {
                offsets: 0..length,
                address: 0x1000,
            }],
            starts: starts.to_vec(),
            ..Self::default()
        }
    }

    /// The executable segment that an offset is in.
    pub fn segment(&self, offset: u64) -> Option<Range<u64>> {
        let mut segments = self.segments.iter();
        segments
            .find(|segment| segment.offsets.contains(&offset))
            .map(|segment| segment.offsets.clone())
    }

    /// Whether a function begins at an offset. Not all are known.
    pub fn is_start(&self, offset: u64) -> bool {
        self.starts.binary_search(&offset).is_ok()
    }

    /// The function that an offset is in, as far as its beginning and the next one's are
    /// known.
    pub fn extent(&self, offset: u64) -> Option<Range<u64>> {
        let next = self.starts.partition_point(|start| *start <= offset);
        let start = *self.starts.get(next.checked_sub(1)?)?;
        Some(start..*self.starts.get(next)?)
    }

    /// Where a function is known to lead: one that only returns its first
    /// argument.
    pub fn function(&self, offset: u64) -> Option<Destination> {
        let is_known = self.return_first.contains(&offset);
        is_known.then_some(Destination::ReturnsFirst)
    }

    /// Where a pointer leads that code at `offset` finds `distance` bytes from
    /// there.
    pub fn pointer(&self, offset: u64, pointer: u64) -> Option<Destination> {
        let mut segments = self.segments.iter();
        let segment = segments.find(|segment| segment.offsets.contains(&offset))?;
        let address = pointer
            .wrapping_sub(segment.offsets.start)
            .wrapping_add(segment.address);
        self.pointers.get(&address).copied()
    }

    /// The offset of code at a linked address.
    fn offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let offset = address
                .checked_sub(segment.address)?
                .checked_add(segment.offsets.start)?;
            segment.offsets.contains(&offset).then_some(offset)
        })
    }

    fn read_starts(&mut self, file: &dyn Bytes, at: u64, address: u64) {
        let mut head = [0; 12];
        if file.fill(&mut head, at) < head.len() || head[..4] != SORTED_TABLE {
            return;
        }
        let count = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        let mut table = vec![0; count.min(MAX_STARTS) as usize * 8];
        let filled = file.fill(&mut table, at.saturating_add(12));
        let starts = table[..filled].as_chunks::<8>().0.iter().map(|entry| {
            let distance = i32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            address.wrapping_add_signed(i64::from(distance))
        });
        self.starts = starts.filter_map(|start| self.offset(start)).collect();
    }

    /// What the dynamic loader writes into pointers that code jumps through.
    fn read_pointers<'a, R: ReadRef<'a>>(
        &mut self,
        endian: Endianness,
        data: R,
        sections: &SectionTable<'a, FileHeader64<Endianness>, R>,
    ) -> Result<()> {
        let mut return_first = HashSet::new();
        // A static program exports nothing; a library's other table may be large.
        for kind in [SHT_DYNSYM, SHT_SYMTAB] {
            let Some(section) = sections.iter().find(|s| s.sh_type(endian) == kind) else {
                continue;
            };
            let symbols = Symbols::read(endian, data, sections, section)?;
            let returning = symbols.named(endian, &RETURN_FIRST);
            return_first.extend(returning.map(|symbol| symbol.address));
            let functions = symbols.functions(endian);
            let starts: Vec<_> = functions.filter_map(|at| self.offset(at)).collect();
            self.starts.extend(&starts);
            if !starts.is_empty() {
                break;
            }
        }
        let offsets = return_first.iter();
        self.return_first = offsets.filter_map(|at| self.offset(*at)).collect();
        self.starts.sort_unstable();
        self.starts.dedup();
        let table = table(endian, sections);
        let mut bytes = 0;
        for section in sections.iter().filter(|s| s.sh_type(endian) == SHT_RELA) {
            bytes = section.sh_size(endian).saturating_add(bytes);
            if bytes > MAX_RELOCATIONS {
                bail!("its relocations are larger than {MAX_RELOCATIONS} bytes");
            }
            let Ok(Some((entries, link))) = section.rela(endian, data) else {
                continue;
            };
            let linked = sections.section(link).ok();
            let linked =
                linked.and_then(|section| Symbols::read(endian, data, sections, section).ok());
            for entry in entries {
                let destination = match entry.r_type(endian, false) {
                    // A function chooses the code; it is known by its name alone.
                    R_X86_64_IRELATIVE => return_first
                        .contains(&entry.r_addend.get(endian).cast_unsigned())
                        .then_some(Destination::ReturnsFirst),
                    R_X86_64_JUMP_SLOT | R_X86_64_GLOB_DAT => linked
                        .as_ref()
                        .and_then(|symbols| self.resolve(endian, symbols, entry)),
                    R_X86_64_RELATIVE if table.contains(&entry.r_offset.get(endian)) => self
                        .offset(entry.r_addend.get(endian).cast_unsigned())
                        .map(Destination::Code),
                    _ => None,
                };
                if let Some(destination) = destination {
                    let pointer = entry.r_offset.get(endian);
                    self.pointers.insert(pointer, destination);
                }
            }
        }
        Ok(())
    }

    /// Where a pointer to a symbol leads: to the file's own definition, if it
    /// has one.
    fn resolve(
        &self,
        endian: Endianness,
        symbols: &Symbols<'_>,
        entry: &Rela64<Endianness>,
    ) -> Option<Destination> {
        let number = entry.r_sym(endian, false) as usize;
        let symbol = symbols.symbols.get(number)?;
        if symbols.name_of(endian, symbol, &RETURN_FIRST).is_some() {
            return Some(Destination::ReturnsFirst);
        }
        if symbol.is_undefined(endian) {
            let is_one = |names: &[&'static str]| symbols.name_of(endian, symbol, names).is_some();
            return match () {
                () if is_one(&ALLOCATING) => Some(Destination::Allocates),
                () if is_one(&FREEING) => Some(Destination::Frees),
                () => None,
            };
        }
        self.offset(symbol.st_value(endian)).map(Destination::Code)
    }
}

/// Where the file's global offset table is, by linked address. Nothing but the dynamic linker
/// writes there.
fn table<'a, R: ReadRef<'a>>(
    endian: Endianness,
    sections: &SectionTable<'a, FileHeader64<Endianness>, R>,
) -> Range<u64> {
    sections
        .section_by_name(endian, b".got")
        .map_or(0..0, |(_, section)| {
            let start = section.sh_addr(endian);
            start..start.saturating_add(section.sh_size(endian))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_in_the_function_that_begins_before_it() {
        let linkage = Linkage::of(100, &[10, 30, 60]);
        assert_eq!(linkage.extent(10), Some(10..30));
        assert_eq!(linkage.extent(59), Some(30..60));
        assert_eq!(linkage.extent(9), None);
        assert_eq!(linkage.extent(60), None);
    }
}
