//! The VM's library in a process: where it is mapped, and its symbols.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use object::elf::{FileHeader64, PF_X, PN_XNUM, PT_LOAD, SHT_DYNSYM, SHT_SYMTAB, Sym64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{Endianness, ReadCache, StringTable};

use crate::process::address::ElfAddress;
use crate::process::bytes::Positioned;
use crate::process::code::{CodeMapping, CodeSpace};
use crate::process::file::ModuleFile;

/// Larger symbol tables are not read: that of a VM with all its symbols is
/// about 15 MiB.
const MAX_TABLE: u64 = 64 << 20;

/// The VM's file name.
pub const NAME: &str = "libjvm.so";

/// The distance that the loader moved a file to, and the file.
#[derive(Debug, Clone)]
pub struct LibJvm {
    file: Arc<ModuleFile>,
    /// Added to an address of the file it is one of the process.
    bias: u64,
}

impl LibJvm {
    /// The library among a process's mappings, if it has one.
    ///
    /// # Errors
    /// Fails if it is mapped, but cannot be read.
    pub fn find(code: &CodeSpace) -> Result<Option<Self>> {
        let Some(mapping) = code.current().find(|mapping| is_libjvm(mapping)) else {
            return Ok(None);
        };
        let file = match &mapping.file {
            Ok(file) => Arc::clone(file),
            Err(reason) => bail!("cannot read the Java VM's library: {reason}"),
        };
        let bias = bias(mapping, &file)?;
        Ok(Some(LibJvm { file, bias }))
    }

    /// The library's file.
    pub fn file(&self) -> &Arc<ModuleFile> {
        &self.file
    }

    /// Where in the process an address of the file is.
    pub fn address(&self, linked: ElfAddress) -> u64 {
        self.bias.wrapping_add(linked.0)
    }

    /// The addresses of exported symbols in the process, those that exist.
    ///
    /// # Errors
    /// Fails if the file's symbols cannot be read.
    pub fn exported(&self, wanted: &[&'static str]) -> Result<HashMap<&'static str, u64>> {
        self.symbols(SHT_DYNSYM, wanted)
    }

    /// As [`exported`](Self::exported), among all symbols, if the file still
    /// has them: a stripped one gives nothing.
    ///
    /// # Errors
    /// Fails if the file's symbols cannot be read.
    pub fn all(&self, wanted: &[&'static str]) -> Result<HashMap<&'static str, u64>> {
        self.symbols(SHT_SYMTAB, wanted)
    }

    /// Where symbols are in the file, bytes: those that exist, among all
    /// symbols, and else among the exported ones. All in one go: the tables
    /// are large.
    ///
    /// # Errors
    /// Fails if the file's symbols cannot be read.
    pub fn file_offsets(&self, wanted: &[&'static str]) -> Result<HashMap<&'static str, u64>> {
        let mut found = self.all(wanted)?;
        if found.len() < wanted.len() {
            for (name, address) in self.exported(wanted)? {
                found.entry(name).or_insert(address);
            }
        }
        let cache = ReadCache::new(Positioned::new(&self.file.content));
        let header = header(&cache)?;
        let endian = header.endian()?;
        let segments = header
            .program_headers(endian, &cache)
            .context("the program headers cannot be read")?;
        let offset = |address: u64| {
            let linked = address.wrapping_sub(self.bias);
            segments.iter().find_map(|segment| {
                let distance = linked.checked_sub(segment.p_vaddr(endian))?;
                let loaded = segment.p_type(endian) == PT_LOAD;
                (loaded && distance < segment.p_filesz(endian))
                    .then(|| segment.p_offset(endian).wrapping_add(distance))
            })
        };
        let inside = |(name, address)| Some((name, offset(address)?));
        Ok(found.into_iter().filter_map(inside).collect())
    }

    fn symbols(
        &self,
        kind: object::elf::SectionType,
        wanted: &[&'static str],
    ) -> Result<HashMap<&'static str, u64>> {
        let cache = ReadCache::new(Positioned::new(&self.file.content));
        let header = header(&cache)?;
        let endian = header.endian()?;
        let sections = header
            .sections(endian, &cache)
            .context("the section headers cannot be read")?;
        let mut found = HashMap::new();
        let Some(section) = sections.iter().find(|s| s.sh_type(endian) == kind) else {
            return Ok(found);
        };
        let names = sections
            .section(section.link(endian))
            .context("the symbols have no names")?;
        if section.sh_size(endian).max(names.sh_size(endian)) > MAX_TABLE {
            bail!("the symbol table is larger than {MAX_TABLE} bytes");
        }
        let symbols: &[Sym64<_>] = section
            .data_as_array(endian, &cache)
            .context("the symbol table cannot be read")?;
        let names = names
            .data(endian, &cache)
            .context("the symbols' names cannot be read")?;
        let names = StringTable::new(names, 0, names.len() as u64);
        for symbol in symbols.iter().filter(|symbol| !symbol.is_undefined(endian)) {
            let name = symbol.name(endian, names).unwrap_or_default();
            if let Some(name) = wanted.iter().find(|wanted| wanted.as_bytes() == name) {
                found.insert(*name, self.bias.wrapping_add(symbol.st_value(endian)));
            }
        }
        Ok(found)
    }
}

/// Whether a mapping is of the VM's library.
pub fn is_libjvm(mapping: &CodeMapping) -> bool {
    let path = mapping.range.name.path();
    path.and_then(|path| path.file_name())
        .is_some_and(|name| name == NAME)
}

fn header<'data>(
    cache: &'data ReadCache<Positioned<'_>>,
) -> Result<&'data FileHeader64<Endianness>> {
    let header = FileHeader64::<Endianness>::parse(cache).context("not a 64-bit ELF file")?;
    let endian = header.endian()?;
    let sections_elsewhere = header.e_shnum.get(endian) == 0 && header.e_shoff.get(endian) != 0;
    if header.e_phnum.get(endian) == PN_XNUM || sections_elsewhere {
        bail!("it has too many segments or sections");
    }
    Ok(header)
}

/// How far the loader moved the file, from its executable mapping.
fn bias(mapping: &CodeMapping, file: &ModuleFile) -> Result<u64> {
    let cache = ReadCache::new(Positioned::new(&file.content));
    let header = header(&cache)?;
    let endian = header.endian()?;
    let offset = mapping.range.file_offset.0;
    let segments = header
        .program_headers(endian, &cache)
        .context("the program headers cannot be read")?;
    let segment = segments.iter().find(|segment| {
        let (start, size) = segment.file_range(endian);
        let code = segment.p_type(endian) == PT_LOAD && segment.p_flags(endian).0 & PF_X.0 != 0;
        // The mapping begins at a whole page, so it may begin before.
        code && start & !0xfff <= offset && offset < start.saturating_add(size)
    });
    let segment = segment.context("the mapped part of the Java VM's library is not code")?;
    let address = segment
        .p_vaddr(endian)
        .wrapping_add(offset)
        .wrapping_sub(segment.p_offset(endian));
    Ok(mapping.range.start.0.wrapping_sub(address))
}
