//! The variables of a file, by its symbol tables.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

use object::Endianness;
use object::elf::{SHT_DYNSYM, SHT_SYMTAB, STT_COMMON, STT_OBJECT, STT_TLS, SectionHeader64};
use object::read::ReadCache;
use object::read::elf::{FileHeader, SectionHeader};

use super::segments::{ENDIAN, MAX_HEADERS, Segments, header};
use crate::process::bytes::{Bytes, Positioned};
use crate::process::symtab;

/// Variables that are kept.
const MAX_VARIABLES: usize = 1 << 20;
/// Bytes of a name that are read.
const MAX_NAME: usize = 4096;

/// A variable: its addresses as linked, or its offsets in the thread-locals, and where its
/// name is.
#[derive(Debug, Clone)]
struct Variable {
    range: Range<u64>,
    table: Range<u64>,
    name: u64,
}

/// What of a file is data.
#[derive(Debug, Default)]
pub struct Variables {
    globals: Vec<Variable>,
    locals: Vec<Variable>,
    /// Where its parts are.
    pub segments: Segments,
}

impl Variables {
    /// Reads those of a file; none of what is no 64-bit ELF file.
    pub fn read(file: &dyn Bytes) -> Self {
        let data = ReadCache::new(Positioned::new(file));
        let Some(header) = header(&data) else {
            return Self::default();
        };
        let mut variables = Self {
            segments: Segments::read(file),
            ..Self::default()
        };
        let sections = header.section_headers(ENDIAN, &data).unwrap_or_default();
        for section in sections.iter().take(MAX_HEADERS) {
            let kind = section.sh_type(ENDIAN);
            let names = sections.get(section.sh_link(ENDIAN) as usize);
            if let Some(names) = names.filter(|_| [SHT_SYMTAB, SHT_DYNSYM].contains(&kind)) {
                variables.add_table(file, section, names);
            }
        }
        let by_place = |variable: &Variable| (variable.range.start, variable.range.end);
        variables.globals.sort_by_key(by_place);
        variables.locals.sort_by_key(by_place);
        variables
    }

    fn add_table(
        &mut self,
        file: &dyn Bytes,
        section: &SectionHeader64<Endianness>,
        names: &SectionHeader64<Endianness>,
    ) {
        let place = |section: &SectionHeader64<Endianness>| {
            let start = section.sh_offset(ENDIAN);
            start..start.saturating_add(section.sh_size(ENDIAN))
        };
        let table = place(names);
        symtab::each(file, place(section), |symbol| {
            let start = symbol.st_value.get(ENDIAN);
            let size = symbol.st_size.get(ENDIAN);
            let list = match symbol.st_type() {
                STT_OBJECT | STT_COMMON => &mut self.globals,
                STT_TLS => &mut self.locals,
                _ => return ControlFlow::Continue(()),
            };
            if size > 0 {
                list.push(Variable {
                    range: start..start.saturating_add(size),
                    table: table.clone(),
                    name: symbol.st_name.get(ENDIAN).into(),
                });
            }
            match list.len() < MAX_VARIABLES {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
    }

    /// The addresses as linked of variables with these names, as far as there are such.
    pub fn addresses(
        &self,
        file: &dyn Bytes,
        names: &[&'static str],
    ) -> HashMap<&'static str, u64> {
        let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
        // One more, so that a longer name is not taken for its beginning.
        let mut buffer = vec![0; longest + 1];
        let mut found = HashMap::new();
        for variable in &self.globals {
            let name = symtab::string(file, &variable.table, variable.name, &mut buffer);
            if let Some(name) = names.iter().find(|wanted| wanted.as_bytes() == name) {
                found.entry(*name).or_insert(variable.range.start);
            }
        }
        found
    }

    /// The variable that holds an address as linked: the linker's name, and where it begins.
    pub fn global(&self, file: &dyn Bytes, address: u64) -> Option<(String, u64)> {
        find(&self.globals, file, address)
    }

    /// The same of a thread-local, by its offset in the file's.
    pub fn local(&self, file: &dyn Bytes, offset: u64) -> Option<String> {
        Some(find(&self.locals, file, offset)?.0)
    }
}

fn find(variables: &[Variable], file: &dyn Bytes, at: u64) -> Option<(String, u64)> {
    /// Variables that begin before it and are looked at: some have several names, or others
    /// in them.
    const NEAR: usize = 8;
    let after = variables.partition_point(|variable| variable.range.start <= at);
    let near = variables.get(after.saturating_sub(NEAR)..after)?;
    let variable = near.iter().rev().find(|it| it.range.contains(&at))?;
    let mut buffer = vec![0; MAX_NAME];
    let name = symtab::string(file, &variable.table, variable.name, &mut buffer);
    let name = String::from_utf8_lossy(name).into_owned();
    (!name.is_empty()).then_some((name, variable.range.start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[unsafe(no_mangle)]
    static A_VARIABLE_OF_THIS_TEST: [AtomicU64; 2] = [AtomicU64::new(1), AtomicU64::new(2)];

    fn own() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn variables_of_this_program_have_names() {
        A_VARIABLE_OF_THIS_TEST[1].fetch_add(1, Ordering::SeqCst);
        let content = own();
        let file = &content[..];
        let variables = Variables::read(&file);
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let program = std::env::current_exe().unwrap();
        let all = crate::process::maps::parse_all(&maps);
        let code = all
            .iter()
            .find(|it| it.is_executable && it.range.name.path() == Some(&*program))
            .unwrap();
        let (offset, start) = (code.range.file_offset.0, code.range.start.0);
        let bias = variables.segments.bias(offset, start).unwrap();
        let address = &raw const A_VARIABLE_OF_THIS_TEST as u64 + 8;
        let found = variables.global(&file, address - bias);
        let start = address - 8 - bias;
        assert_eq!(found, Some(("A_VARIABLE_OF_THIS_TEST".to_owned(), start)));
        let names = [
            "A_VARIABLE_OF_THIS_TEST",
            "A_VARIABLE_OF_THIS",
            "A_VARIABLE_OF_NOBODY",
        ];
        let addresses = variables.addresses(&file, &names);
        assert_eq!(addresses, HashMap::from([(names[0], address - 8 - bias)]));
        let place =
            usize::try_from(variables.segments.file_offset(address - bias).unwrap()).unwrap();
        assert_eq!(content[place..place + 8], 2_u64.to_le_bytes());
        assert!(variables.segments.thread_locals.is_some());
        let end = variables.segments.end().unwrap();
        let last = variables.globals.iter().map(|it| it.range.end).max();
        assert!(end >= last.unwrap());
    }

    #[test]
    fn every_prefix_of_a_file_is_safe_to_read() {
        let content = std::fs::read("/bin/true").unwrap();
        for length in (0..2048).chain([content.len() / 2, content.len()]) {
            let file = &content[..length];
            let variables = Variables::read(&file);
            let _none = variables.global(&file, 0x4000);
        }
    }
}
