//! Where a file's segments are, in memory as linked and in the file.

use anyhow::{Context, Result};
use object::Endianness;
use object::elf::{FileHeader64, PF_X, PT_LOAD};
use object::read::ReadRef;
use object::read::elf::{FileHeader, ProgramHeader};

use crate::process::address::{ElfAddress, FileOffset};

/// A segment that is loaded.
#[derive(Debug, Clone, Copy)]
struct Segment {
    address: u64,
    offset: u64,
    /// Bytes in the file.
    size: u64,
    executable: bool,
}

/// The loaded segments of a file.
#[derive(Debug, Clone, Default)]
pub struct Segments(Vec<Segment>);

impl Segments {
    /// Those of an ELF file.
    ///
    /// # Errors
    /// Fails if its program headers cannot be read.
    pub fn of<'data, R: ReadRef<'data>>(
        header: &FileHeader64<Endianness>,
        endian: Endianness,
        data: R,
    ) -> Result<Self> {
        let headers = header
            .program_headers(endian, data)
            .context("its program headers cannot be read")?;
        let loaded = headers
            .iter()
            .filter(|segment| segment.p_type(endian) == PT_LOAD);
        let segment = |segment: &object::elf::ProgramHeader64<Endianness>| Segment {
            address: segment.p_vaddr(endian),
            offset: segment.p_offset(endian),
            size: segment.p_filesz(endian),
            executable: segment.p_flags(endian).0 & PF_X.0 != 0,
        };
        Ok(Self(loaded.map(segment).collect()))
    }

    /// Where an instruction is in the file.
    pub fn code(&self, address: ElfAddress) -> Option<FileOffset> {
        self.find(address, true)
    }

    /// Where data is in the file.
    pub fn data(&self, address: ElfAddress) -> Option<FileOffset> {
        self.find(address, false)
    }

    fn find(&self, address: ElfAddress, executable: bool) -> Option<FileOffset> {
        let offset = |segment: &Segment| {
            let into = address.0.checked_sub(segment.address)?;
            let holds = segment.executable == executable && into < segment.size;
            holds.then(|| segment.offset.checked_add(into).map(FileOffset))?
        };
        self.0.iter().find_map(offset)
    }
}
