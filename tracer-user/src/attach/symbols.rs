//! Symbols of a file that are looked for by name.

use anyhow::{Context, Result, bail};
use object::elf::{
    FileHeader64, PN_XNUM, PT_LOAD, SHT_DYNSYM, SHT_SYMTAB, STT_FUNC, SectionHeader64, Sym64,
};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};
use object::{Endianness, ReadCache, ReadRef};

use crate::process::bytes::{Bytes, Positioned};

/// Larger symbol tables are not read.
const MAX_TABLE: u64 = 256 << 20;

/// A symbol that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: &'static str,
    /// Its linked address.
    pub address: u64,
}

/// Those of the symbols that a file defines.
///
/// # Errors
/// Fails if it is no ELF file, or its tables are too large.
pub fn find(file: &dyn Bytes, names: &[&'static str]) -> Result<Vec<Named>> {
    let cache = ReadCache::new(Positioned::new(file));
    let data = &cache;
    let header = FileHeader64::<Endianness>::parse(data).context("not a 64-bit ELF file")?;
    let endian = header.endian()?;
    let sections = header
        .sections(endian, data)
        .context("its section headers cannot be read")?;
    let mut found: Vec<Named> = Vec::new();
    for kind in [SHT_DYNSYM, SHT_SYMTAB] {
        if let Some(section) = sections.iter().find(|s| s.sh_type(endian) == kind) {
            let symbols = Symbols::read(endian, data, &sections, section)?;
            for symbol in symbols.named(endian, names) {
                if !found.contains(&symbol) {
                    found.push(symbol);
                }
            }
        }
    }
    Ok(found)
}

/// What is added to a linked address to make one of a process, which has the
/// file's code from `offset` on mapped at `start`.
pub fn bias(file: &dyn Bytes, start: u64, offset: u64) -> Option<u64> {
    let cache = ReadCache::new(Positioned::new(file));
    let header = FileHeader64::<Endianness>::parse(&cache).ok()?;
    let endian = header.endian().ok()?;
    if header.e_phnum.get(endian) == PN_XNUM {
        return None;
    }
    let segments = header.program_headers(endian, &cache).ok()?;
    segments.iter().find_map(|segment| {
        let into = offset.checked_sub(segment.p_offset(endian) & !4095)?;
        let is_it = segment.p_type(endian) == PT_LOAD && into < segment.p_filesz(endian);
        let address = (segment.p_vaddr(endian) & !4095).wrapping_add(into);
        is_it.then(|| start.wrapping_sub(address))
    })
}

/// Where a linked address is in the file, bytes, if it is in it at all.
pub fn file_offset(file: &dyn Bytes, address: u64) -> Option<u64> {
    let cache = ReadCache::new(Positioned::new(file));
    let header = FileHeader64::<Endianness>::parse(&cache).ok()?;
    let endian = header.endian().ok()?;
    if header.e_phnum.get(endian) == PN_XNUM {
        return None;
    }
    let segments = header.program_headers(endian, &cache).ok()?;
    segments.iter().find_map(|segment| {
        let into = address.checked_sub(segment.p_vaddr(endian))?;
        let is_it = segment.p_type(endian) == PT_LOAD && into < segment.p_filesz(endian);
        is_it.then(|| segment.p_offset(endian).wrapping_add(into))
    })
}

/// A symbol table.
pub(super) struct Symbols<'a> {
    pub(super) symbols: &'a [Sym64<Endianness>],
    names: &'a [u8],
}

impl<'a> Symbols<'a> {
    pub(super) fn read<R: ReadRef<'a>>(
        endian: Endianness,
        data: R,
        sections: &SectionTable<'a, FileHeader64<Endianness>, R>,
        section: &SectionHeader64<Endianness>,
    ) -> Result<Self> {
        let names = sections
            .section(section.link(endian))
            .context("its symbols have no names")?;
        for size in [section.sh_size(endian), names.sh_size(endian)] {
            if size > MAX_TABLE {
                bail!("its symbol table of {size} bytes is larger than {MAX_TABLE}");
            }
        }
        Ok(Self {
            symbols: section
                .data_as_array(endian, data)
                .context("its symbol table cannot be read")?,
            names: names
                .data(endian, data)
                .context("its symbols' names cannot be read")?,
        })
    }

    /// The linked addresses of all functions.
    pub(super) fn functions(&self, endian: Endianness) -> impl Iterator<Item = u64> {
        self.symbols
            .iter()
            .filter(move |symbol| symbol.st_type() == STT_FUNC && !symbol.is_undefined(endian))
            .map(move |symbol| symbol.st_value(endian))
    }

    /// The symbols of these names that are defined.
    pub(super) fn named<'n>(
        &self,
        endian: Endianness,
        names: &'n [&'static str],
    ) -> impl Iterator<Item = Named> + use<'_, 'a, 'n> {
        let defined = self.symbols.iter();
        let defined = defined.filter(move |symbol| !symbol.is_undefined(endian));
        defined.filter_map(move |symbol| {
            let name = self.name_of(endian, symbol, names)?;
            let address = symbol.st_value(endian);
            Some(Named { name, address })
        })
    }

    /// Which of these names a symbol has. Its name's end is not searched for:
    /// names may overlap.
    pub(super) fn name_of(
        &self,
        endian: Endianness,
        symbol: &Sym64<Endianness>,
        names: &[&'static str],
    ) -> Option<&'static str> {
        let at = usize::try_from(symbol.st_name.get(endian)).ok()?;
        let text = self.names.get(at..)?;
        let is_it = |name: &&&str| {
            text.strip_prefix(name.as_bytes())
                .is_some_and(|rest| rest.first() == Some(&0))
        };
        names.iter().find(is_it).copied()
    }
}
