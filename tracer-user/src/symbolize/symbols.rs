//! The functions of an ELF file's symbol tables, by address.
//!
//! A name is given to an address only if the symbol says that it covers the
//! address. A symbol without a size (hand-written assembly such as `_start`)
//! covers what follows it up to the next symbol or the end of its section.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use object::elf;
use object::read::elf::{ElfFile64, ElfSymbolTable64};
use object::{
    Endianness, Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, ReadRef, SectionFlags,
    SymbolFlags,
};

use crate::process::address::ElfAddress;

/// Symbols beyond this many are not kept.
const MAX_SYMBOLS: usize = 8 << 20;

/// A name longer than this is cut.
const MAX_NAME: usize = 16 << 10;

#[derive(Debug, Clone)]
struct Symbol {
    start: u64,
    /// The first address that is not covered.
    end: u64,
    /// The greatest `end` of this and all symbols before it.
    reach: u64,
    name: Arc<str>,
}

/// Functions by address.
#[derive(Debug, Clone, Default)]
pub struct SymbolTable {
    /// By start; of several at one address the preferred is last.
    symbols: Vec<Symbol>,
}

impl SymbolTable {
    /// The functions in `.symtab` and `.dynsym`.
    pub(super) fn of_file<'data, R: ReadRef<'data>>(
        file: &ElfFile64<'data, Endianness, R>,
    ) -> Self {
        let sections = code_sections(file);
        let mut found = Vec::new();
        for table in [file.symbol_table(), file.dynamic_symbol_table()]
            .into_iter()
            .flatten()
        {
            collect(&table, &sections, &mut found);
        }
        SymbolTable::arrange(found)
    }

    /// Adds the functions of another table of the same file.
    pub(super) fn add(&mut self, other: SymbolTable) {
        self.symbols.extend(other.symbols);
        self.symbols.sort_by_key(|symbol| symbol.start);
        self.set_reach();
    }

    /// Whether there are no functions.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// The name of the innermost function that covers an address, as the
    /// linker knows it (mangled).
    pub fn find(&self, address: ElfAddress) -> Option<&str> {
        let after = self
            .symbols
            .partition_point(|symbol| symbol.start <= address.0);
        self.symbols[..after]
            .iter()
            .rev()
            .take_while(|symbol| address.0 < symbol.reach)
            .find(|symbol| address.0 < symbol.end)
            .map(|symbol| &*symbol.name)
    }

    fn arrange(mut found: Vec<Found<'_>>) -> Self {
        found.sort_by_cached_key(|symbol| (symbol.start, Reverse(symbol.rank())));
        let next_starts = next_starts(&found);
        let mut table = SymbolTable::default();
        for (symbol, next) in found.iter().zip(next_starts) {
            let end = match symbol.size {
                0 => next.min(symbol.section_end),
                size => symbol.start.saturating_add(size),
            };
            if symbol.start < end {
                let name = String::from_utf8_lossy(symbol.name).into();
                table.symbols.push(Symbol {
                    start: symbol.start,
                    end,
                    reach: end,
                    name,
                });
            }
        }
        table.set_reach();
        table
    }

    fn set_reach(&mut self) {
        let mut reach = 0;
        for symbol in &mut self.symbols {
            reach = reach.max(symbol.end);
            symbol.reach = reach;
        }
    }
}

/// A function as a symbol table tells it.
struct Found<'data> {
    start: u64,
    size: u64,
    section_end: u64,
    local: bool,
    name: &'data [u8],
}

impl<'data> Found<'data> {
    /// Of several names for one address, the least is preferred: the public
    /// one (`malloc` before `__libc_malloc`), then the shorter.
    fn rank(&self) -> (bool, usize, bool, usize, &'data [u8]) {
        let underscores = self.name.iter().take_while(|&&byte| byte == b'_').count();
        // `_Z` and `_R` begin C++'s and Rust's mangled names.
        let mangled = self.name.starts_with(b"_Z") || self.name.starts_with(b"_R");
        let underscores = if mangled { 0 } else { underscores };
        (
            self.size == 0,
            underscores,
            self.local,
            self.name.len(),
            self.name,
        )
    }
}

/// For each symbol, where the next one at a greater address starts.
fn next_starts(sorted: &[Found<'_>]) -> Vec<u64> {
    let mut next = u64::MAX;
    let mut current = u64::MAX;
    let mut starts = Vec::with_capacity(sorted.len());
    for symbol in sorted.iter().rev() {
        if symbol.start != current {
            next = current;
            current = symbol.start;
        }
        starts.push(next);
    }
    starts.reverse();
    starts
}

/// The address ranges of sections with code, by index. Debug files keep the
/// headers of sections whose content was moved.
fn code_sections<'data, R: ReadRef<'data>>(
    file: &ElfFile64<'data, Endianness, R>,
) -> HashMap<usize, Range<u64>> {
    let code = |flags| match flags {
        SectionFlags::Elf { sh_flags, .. } => sh_flags.contains(elf::SHF_EXECINSTR),
        _ => false,
    };
    file.sections()
        .filter(|section| code(section.flags()))
        .filter_map(|section| {
            let end = section.address().checked_add(section.size())?;
            Some((section.index().0, section.address()..end))
        })
        .collect()
}

fn collect<'data, R: ReadRef<'data>>(
    table: &ElfSymbolTable64<'data, '_, Endianness, R>,
    sections: &HashMap<usize, Range<u64>>,
    found: &mut Vec<Found<'data>>,
) {
    for symbol in table.symbols() {
        let SymbolFlags::Elf { st_info, .. } = symbol.flags() else {
            continue;
        };
        let function = match st_info.st_type() {
            elf::STT_FUNC | elf::STT_GNU_IFUNC => true,
            elf::STT_NOTYPE => false,
            _ => continue,
        };
        let Some(section) = symbol
            .section_index()
            .and_then(|index| sections.get(&index.0))
        else {
            continue;
        };
        let Ok(name) = symbol.name_bytes() else {
            continue;
        };
        // Marks such as `$x` and `.Ltmp1` name no function.
        let mark = !function && matches!(name.first(), Some(b'$' | b'.'));
        if name.is_empty() || mark || !section.contains(&symbol.address()) {
            continue;
        }
        if found.len() >= MAX_SYMBOLS {
            return;
        }
        found.push(Found {
            start: symbol.address(),
            size: symbol.size(),
            section_end: section.end,
            local: symbol.is_local(),
            name: &name[..name.len().min(MAX_NAME)],
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(symbols: &[(u64, u64, &'static str)]) -> SymbolTable {
        let found = |&(start, size, name): &(u64, u64, &'static str)| Found {
            start,
            size,
            section_end: 0x2000,
            local: false,
            name: name.as_bytes(),
        };
        SymbolTable::arrange(symbols.iter().map(found).collect())
    }

    #[track_caller]
    fn check(table: &SymbolTable, names: &[(u64, Option<&str>)]) {
        for &(address, name) in names {
            assert_eq!(table.find(ElfAddress(address)), name, "{address:#x}");
        }
    }

    #[test]
    fn nothing_past_a_symbols_size_has_its_name() {
        let table = table(&[(0x1000, 0x10, "f"), (0x1040, 0x10, "g")]);
        check(
            &table,
            &[
                (0xfff, None),
                (0x1000, Some("f")),
                (0x100f, Some("f")),
                (0x1010, None),
                (0x103f, None),
                (0x104f, Some("g")),
                (0x1050, None),
            ],
        );
    }

    #[test]
    fn a_symbol_without_size_ends_at_the_next_or_with_its_section() {
        let table = table(&[
            (0x1000, 0, "_start"),
            (0x1030, 0x10, "f"),
            (0x1ff0, 0, "_fini"),
        ]);
        check(
            &table,
            &[
                (0x1000, Some("_start")),
                (0x102f, Some("_start")),
                (0x1030, Some("f")),
                (0x1040, None),
                (0x1fff, Some("_fini")),
                (0x2000, None),
            ],
        );
    }

    #[test]
    fn the_innermost_of_nested_functions_counts() {
        let table = table(&[
            (0x1000, 0x100, "outer"),
            (0x1020, 0x10, "inner"),
            (0x1080, 8, "low"),
        ]);
        check(
            &table,
            &[
                (0x1010, Some("outer")),
                (0x1020, Some("inner")),
                (0x1030, Some("outer")),
                (0x10ff, Some("outer")),
                (0x1100, None),
            ],
        );
    }

    #[test]
    fn the_public_name_of_several_is_preferred() {
        let names = ["__libc_malloc", "malloc", "__malloc", "xmalloc"];
        let mut symbols: Vec<_> = names.iter().map(|&name| (0x1000, 0x10, name)).collect();
        for _ in 0..names.len() {
            check(&table(&symbols), &[(0x1000, Some("malloc"))]);
            symbols.rotate_left(1);
        }
        check(
            &table(&[(0x1000, 0, "a"), (0x1000, 8, "__b")]),
            &[(0x1000, Some("__b"))],
        );
    }

    #[test]
    fn extremes_do_not_overflow() {
        let table = table(&[
            (0, u64::MAX, "all"),
            (0x1000, u64::MAX, "most"),
            (u64::MAX, 9, "x"),
        ]);
        check(
            &table,
            &[(0, Some("all")), (0x1000, Some("most")), (u64::MAX, None)],
        );
    }
}
