//! What unwinding needs from an ELF file (elf(5)): its code, and where its
//! call frame information is.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::ReadCache;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionTable};
use object::{Endianness, ReadRef};
use tracer_ebpf::limits::USER_END;

use super::Segment;
use crate::process::address::{ElfAddress, FileOffset};
use crate::process::bytes::Positioned;

/// Files with more sections are treated like those without any. Programs have
/// some forty.
const MAX_SECTIONS: u16 = 4096;

/// More executable code than this is not looked through; the code model of
/// almost all programs ends there too.
const MAX_CODE: u64 = 2 << 30;

/// Bytes of a page; the base of a table is a multiple of it.
const PAGE: u64 = 4096;

/// Larger dynamic sections are not looked at.
const MAX_DYNAMIC: u64 = 1 << 20;

/// How `object` reads.
pub type Data<'a> = &'a ReadCache<Positioned<'a>>;

/// An ELF file.
pub struct Image<'a> {
    pub data: Data<'a>,
    pub headers: &'a [ProgramHeader64<Endianness>],
    pub sections: SectionTable<'a, FileHeader64<Endianness>, Data<'a>>,
    /// Executable segments, sorted by address.
    pub segments: Vec<Segment>,
    /// Where the program begins; 0 if nowhere.
    pub entry: u64,
}

/// Everything that runs here is little-endian.
pub const ENDIAN: Endianness = Endianness::Little;

impl<'a> Image<'a> {
    /// Reads the headers.
    ///
    /// # Errors
    /// Fails if it is not a 64-bit ELF file for x86-64.
    pub fn parse(data: Data<'a>) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(data).context("not a 64-bit ELF file")?;
        ensure!(
            header.endian()? == ENDIAN && header.e_machine(ENDIAN) == elf::EM_X86_64,
            "not an ELF file for x86-64"
        );
        ensure!(
            header.e_phnum.get(ENDIAN) < elf::PN_XNUM,
            "it has more than {} program headers",
            elf::PN_XNUM - 1
        );
        let headers = header
            .program_headers(ENDIAN, data)
            .context("its program headers cannot be read")?;
        let count = header.e_shnum.get(ENDIAN);
        let sections = match count {
            1..=MAX_SECTIONS => header.sections(ENDIAN, data).unwrap_or_default(),
            _ => SectionTable::default(),
        };
        Ok(Image {
            segments: executable_segments(headers)?,
            entry: header.e_entry(ENDIAN),
            data,
            headers,
            sections,
        })
    }

    /// The address that a table counts from; `None` without code.
    pub fn base(&self) -> Option<ElfAddress> {
        let first = self.segments.first()?;
        Some(ElfAddress(first.address.0 & !(PAGE - 1)))
    }

    /// Whether the loader changes the code: then the targets of its calls are
    /// not in the file.
    pub fn has_text_relocations(&self) -> bool {
        let dynamic = |header: &&ProgramHeader64<_>| header.p_type(ENDIAN) == elf::PT_DYNAMIC;
        let Some(header) = self.headers.iter().find(dynamic) else {
            return false;
        };
        if header.p_filesz(ENDIAN) > MAX_DYNAMIC {
            return true;
        }
        let Ok(Some(entries)) = header.dynamic(ENDIAN, self.data) else {
            return true;
        };
        entries.iter().any(|entry| match entry.tag(ENDIAN) {
            elf::DT_TEXTREL => true,
            elf::DT_FLAGS => entry.val(ENDIAN) & elf::DF_TEXTREL.0 != 0,
            _ => false,
        })
    }

    /// Where code is in the file, if it is all in one segment.
    pub fn file_range(&self, address: u64, size: u64) -> Option<Range<FileOffset>> {
        self.segments.iter().find_map(|segment| {
            let into = address.checked_sub(segment.address.0)?;
            let end = into.checked_add(size).filter(|end| *end <= segment.size)?;
            let at = |into| segment.offset.0.checked_add(into).map(FileOffset);
            Some(at(into)?..at(end)?)
        })
    }

    /// Bytes of the file by their address: up to `limit` of them, as many as
    /// their segment has.
    pub fn at(&self, address: u64, limit: u64) -> Option<&'a [u8]> {
        self.headers.iter().find_map(|header| {
            let into = address.checked_sub(header.p_vaddr(ENDIAN))?;
            let rest = header.p_filesz(ENDIAN).checked_sub(into)?;
            if header.p_type(ENDIAN) != elf::PT_LOAD || rest == 0 {
                return None;
            }
            let offset = header.p_offset(ENDIAN).checked_add(into)?;
            self.data.read_bytes_at(offset, rest.min(limit)).ok()
        })
    }
}

/// The executable segments, sorted by address.
fn executable_segments(headers: &[ProgramHeader64<Endianness>]) -> Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = headers
        .iter()
        .filter(|header| {
            let executable = header.p_flags(ENDIAN).0 & elf::PF_X.0 != 0;
            header.p_type(ENDIAN) == elf::PT_LOAD && executable && header.p_filesz(ENDIAN) > 0
        })
        .map(|header| Segment {
            offset: FileOffset(header.p_offset(ENDIAN)),
            address: ElfAddress(header.p_vaddr(ENDIAN)),
            size: header.p_filesz(ENDIAN),
        })
        .collect();
    segments.sort_by_key(|segment| segment.address);
    let mut size = 0_u64;
    let mut last_end = 0;
    for segment in &segments {
        let start = segment.address.0;
        let in_file = segment.offset.0.checked_add(segment.size);
        let in_memory = start.checked_add(segment.size);
        let (Some(_), Some(end @ ..USER_END)) = (in_file, in_memory) else {
            bail!("its segment at {} has no place in memory", segment.address);
        };
        ensure!(
            start >= last_end,
            "its segment at {} overlaps another",
            segment.address
        );
        last_end = end;
        size = size.saturating_add(segment.size);
    }
    ensure!(
        size <= MAX_CODE,
        "its {size} bytes of code are more than {MAX_CODE}"
    );
    Ok(segments)
}
