//! The addresses of the symbols that operands name.

use std::collections::{HashMap, HashSet};

use object::elf::{FileHeader64, SHT_DYNSYM, SHT_SYMTAB, STT_TLS, Sym64};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use object::{Endianness, ReadCache, StringTable};

use crate::process::address::ElfAddress;
use crate::process::bytes::{Bytes, Positioned};

/// Larger symbol tables are not read.
const MAX_TABLE: u64 = 64 << 20;

/// The addresses of those `wanted` symbols that the file has once; of two
/// local ones with the same name neither is meant for sure.
pub fn addresses(bytes: &dyn Bytes, wanted: &HashSet<&str>) -> HashMap<String, ElfAddress> {
    if wanted.is_empty() {
        return HashMap::new();
    }
    let mut found = HashMap::new();
    for kind in [SHT_SYMTAB, SHT_DYNSYM] {
        for (name, address) in in_table(bytes, kind, wanted).unwrap_or_default() {
            let known = found.entry(name).or_insert(Some(address));
            if *known != Some(address) {
                *known = None;
            }
        }
    }
    found
        .into_iter()
        .filter_map(|(name, address)| Some((name, ElfAddress(address?))))
        .collect()
}

fn in_table(
    bytes: &dyn Bytes,
    kind: object::elf::SectionType,
    wanted: &HashSet<&str>,
) -> Option<Vec<(String, u64)>> {
    let cache = ReadCache::new(Positioned::new(bytes));
    let data = &cache;
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    let section = sections.iter().find(|s| s.sh_type(endian) == kind)?;
    let strings = sections.section(section.link(endian)).ok()?;
    if section.sh_size(endian) > MAX_TABLE || strings.sh_size(endian) > MAX_TABLE {
        return None;
    }
    let symbols: &[Sym64<_>] = section.data_as_array(endian, data).ok()?;
    let strings = strings.data(endian, data).ok()?;
    let strings = StringTable::new(strings, 0, strings.len() as u64);
    let found = symbols.iter().filter_map(|symbol| {
        let name = symbol.name(endian, strings).ok()?;
        let name = wanted.get(std::str::from_utf8(name).ok()?)?;
        let usable = !symbol.is_undefined(endian) && symbol.st_type() != STT_TLS;
        usable.then(|| ((*name).to_owned(), symbol.st_value(endian)))
    });
    Some(found.collect())
}
