//! The sections with call frame information: `.eh_frame` (psABI, section
//! 4.2.4), and `.debug_frame` for the code that it leaves out.

use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use flate2::read::ZlibDecoder;
use gimli::{BaseAddresses, EhFrameHdr, LittleEndian};
use object::elf::{self, SectionHeader64};
use object::read::elf::{CompressionHeader, ProgramHeader, SectionHeader};
use object::{Endianness, ReadRef};

use super::image::{ENDIAN, Image};
use super::omitted::Omitted;
use crate::process::bytes::Bytes;
use crate::process::pclntab::Pclntab;

/// A larger section, or one that unpacks to more, is not read: that of the
/// largest library at hand (`librustc_driver`) has 6 MB, Chromium's some 30.
const MAX_SECTION: u64 = 256 << 20;

/// Bytes read of `.eh_frame_hdr`: its head alone.
const HEAD: u64 = 64;

/// What kind of section it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `.eh_frame`.
    Eh,
    /// `.debug_frame`.
    Debug,
}

/// A section's content.
pub struct Section<'a> {
    pub kind: Kind,
    pub data: Cow<'a, [u8]>,
    /// Where it and others are, for pointers relative to them.
    pub bases: BaseAddresses,
    /// How many functions it describes, if its length is not known.
    pub count: Option<u64>,
}

impl Section<'_> {
    /// The same, apart from the file.
    pub fn into_owned(self) -> Section<'static> {
        Section {
            data: Cow::Owned(self.data.into_owned()),
            ..self
        }
    }
}

impl<'a> Image<'a> {
    /// The sections with call frame information, the one that counts first.
    ///
    /// # Errors
    /// Fails if `.eh_frame` is beyond the limits.
    pub fn call_frame_sections(&self, omitted: &mut Omitted) -> Result<Vec<Section<'a>>> {
        let mut sections = Vec::new();
        let named = self.eh_frame()?;
        sections.extend(named.or_else(|| self.eh_frame_by_header()));
        match self.debug_frame() {
            Ok(section) => sections.extend(section),
            Err(_) => omitted.sections += 1,
        }
        Ok(sections)
    }

    fn section(&self, name: &[u8]) -> Option<&'a SectionHeader64<Endianness>> {
        let (_, header) = self.sections.section_by_name(ENDIAN, name)?;
        (header.sh_type(ENDIAN) != elf::SHT_NOBITS && header.sh_size(ENDIAN) > 0).then_some(header)
    }

    /// Where sections are that pointers may be relative to.
    fn bases(&self) -> BaseAddresses {
        let address = |name: &[u8]| Some(self.section(name)?.sh_addr(ENDIAN));
        let mut bases = BaseAddresses::default();
        if let Some(text) = address(b".text") {
            bases = bases.set_text(text);
        }
        if let Some(got) = address(b".got") {
            bases = bases.set_got(got);
        }
        bases
    }

    fn eh_frame(&self) -> Result<Option<Section<'a>>> {
        let Some(header) = self.section(b".eh_frame") else {
            return Ok(None);
        };
        let size = header.sh_size(ENDIAN);
        ensure!(
            size <= MAX_SECTION,
            "its .eh_frame of {size} bytes is larger than {MAX_SECTION}"
        );
        let data = header
            .data(ENDIAN, self.data)
            .context("its .eh_frame cannot be read")?;
        Ok(Some(Section {
            kind: Kind::Eh,
            data: Cow::Borrowed(data),
            bases: self.bases().set_eh_frame(header.sh_addr(ENDIAN)),
            count: None,
        }))
    }

    /// `.eh_frame` in a file without section headers, by `PT_GNU_EH_FRAME`.
    fn eh_frame_by_header(&self) -> Option<Section<'a>> {
        let header = self
            .headers
            .iter()
            .find(|header| header.p_type(ENDIAN) == elf::PT_GNU_EH_FRAME)?;
        let address = header.p_vaddr(ENDIAN);
        let bases = BaseAddresses::default().set_eh_frame_hdr(address);
        let head = self.at(address, HEAD)?;
        let head = EhFrameHdr::new(head, LittleEndian).parse(&bases, 8).ok()?;
        let address = head.eh_frame_ptr().direct().ok()?;
        let data = self.at(address, MAX_SECTION)?;
        Some(Section {
            kind: Kind::Eh,
            data: Cow::Borrowed(data),
            bases: bases.set_eh_frame(address),
            count: Some(fde_count(self.at(header.p_vaddr(ENDIAN), 12)?)?),
        })
    }

    /// Go's table of functions.
    pub fn go_functions(&self, bytes: &dyn Bytes) -> Option<Pclntab> {
        Pclntab::find(bytes, |name| {
            let section = self.section(name.as_bytes())?;
            let (start, size) = section.file_range(ENDIAN)?;
            Some(start..start.saturating_add(size))
        })
    }

    /// The name of the file that debug information was moved to, and its checksum.
    pub fn debug_link(&self, limit: u64) -> Option<(Vec<u8>, u32)> {
        let header = self.section(b".gnu_debuglink")?;
        if header.sh_size(ENDIAN) > limit {
            return None;
        }
        let link = header.data(ENDIAN, self.data).ok()?;
        let end = memchr::memchr(0, link)?;
        let crc = link.get((end + 1).next_multiple_of(4)..)?.first_chunk()?;
        Some((link[..end].to_vec(), u32::from_le_bytes(*crc)))
    }

    /// Where symbols and their names are in the file: all, or those for others.
    pub fn symbols(&self) -> Option<(Range<u64>, Range<u64>)> {
        let table = self.section(b".symtab");
        self.places_of(table.or_else(|| self.section(b".dynsym"))?)
    }

    /// The same of those for others.
    pub fn dynamic_symbols(&self) -> Option<(Range<u64>, Range<u64>)> {
        self.places_of(self.section(b".dynsym")?)
    }

    fn places_of(&self, table: &SectionHeader64<Endianness>) -> Option<(Range<u64>, Range<u64>)> {
        let place = |header: &SectionHeader64<_>| {
            let (start, size) = header.file_range(ENDIAN)?;
            Some(start..start.checked_add(size)?)
        };
        let names = object::SectionIndex(table.sh_link(ENDIAN) as usize);
        let names = self.sections.section(names).ok()?;
        Some((place(table)?, place(names)?))
    }

    /// `.debug_frame`, unpacked.
    ///
    /// # Errors
    /// It is too large, or packed in an unknown way.
    pub fn debug_frame(&self) -> Result<Option<Section<'a>>> {
        let Some(header) = self.section(b".debug_frame") else {
            return Ok(None);
        };
        ensure!(header.sh_size(ENDIAN) <= MAX_SECTION, "too large");
        let data = match header.compression(ENDIAN, self.data)? {
            None => Cow::Borrowed(header.data(ENDIAN, self.data)?),
            Some((packing, offset, size)) => {
                ensure!(packing.ch_type(ENDIAN) == elf::ELFCOMPRESS_ZLIB, "unknown");
                let packed = self.data.read_bytes_at(offset, size);
                Cow::Owned(unpack(packed.ok().context("cut")?)?)
            }
        };
        Ok(Some(Section {
            kind: Kind::Debug,
            data,
            bases: BaseAddresses::default(),
            count: None,
        }))
    }
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    ZlibDecoder::new(packed)
        .take(MAX_SECTION + 1)
        .read_to_end(&mut data)?;
    ensure!(data.len() as u64 <= MAX_SECTION, "too large");
    Ok(data)
}

/// The number of functions in `.eh_frame_hdr`, in the form that all linkers
/// write: three bytes of encodings after the version, two 32-bit numbers.
fn fde_count(head: &[u8]) -> Option<u64> {
    let form = head.get(1..3)?;
    if form != [0x1b, 0x03] {
        return None;
    }
    let count = head.get(8..12)?.try_into().ok()?;
    Some(u64::from(u32::from_le_bytes(count)))
}
