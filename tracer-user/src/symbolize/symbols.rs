//! The functions of an ELF file's symbol tables, by address.
//!
//! A name is given to an address only if the symbol says that it covers the
//! address. A symbol without a size (hand-written assembly such as `_start`)
//! covers what follows it up to the next symbol or the end of its section.
//!
//! Names stay in the file until they are asked for: they may overlap, so that
//! together they are much longer than the file. A function takes 24 bytes.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

use object::Endianness;
use object::elf::{STB_LOCAL, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, Sym64};
use object::read::elf::Sym;

use crate::process::address::ElfAddress;
use crate::process::bytes::Bytes;
use crate::process::pclntab::Pclntab;
use crate::process::symtab;

/// Functions of a file that are kept: four million take 96 MiB. Chromium has
/// half of that.
const MAX_FUNCTIONS: usize = 4 << 20;

/// A larger symbol table is not read to its end, bytes.
const MAX_TABLE: u64 = 512 << 20;

/// A name longer than this is cut.
const MAX_NAME: usize = 16 << 10;

/// As much of a name decides which of several is preferred.
const MAX_COMPARED: usize = 512;

/// Labels of code whose names are looked at while the table is read.
const MAX_LABELS: usize = 1 << 20;

/// How many functions may be in one another.
const MAX_NESTED: usize = 64;

/// How many names of one function are compared.
const MAX_ALIASES: usize = 32;

/// No symbol.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: u64,
    /// The first address that is not covered.
    end: u64,
    name: NameAt,
    /// The nearest symbol before this one that ends after it.
    around: u32,
}

/// Where a symbol's name is, and what else makes it preferred: 28 bits of the
/// offset, two for the string table, and two marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NameAt(u32);

impl NameAt {
    const OFFSET: u32 = (1 << 28) - 1;
    const UNSIZED: u32 = 1 << 30;
    const LOCAL: u32 = 1 << 31;

    /// None if the string table is too large.
    fn new(offset: u32, table: usize, marks: u32) -> Option<Self> {
        let table = u32::try_from(table).ok().filter(|table| *table < 4)?;
        (offset <= Self::OFFSET).then_some(Self(offset | table << 28 | marks))
    }

    fn offset(self) -> u64 {
        (self.0 & Self::OFFSET).into()
    }

    fn table(self) -> usize {
        (self.0 >> 28 & 3) as usize
    }

    fn is(self, mark: u32) -> bool {
        self.0 & mark != 0
    }
}

/// The names of a symbol table.
#[derive(Debug)]
enum Strings {
    /// Their place in the file.
    InFile(Range<u64>),
    /// Of a table that was packed.
    Unpacked(Box<[u8]>),
}

/// Where a symbol table is in a file.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The symbols.
    pub symbols: Range<u64>,
    /// Their names.
    pub names: Range<u64>,
}

/// The address ranges of sections with code, by index. Debug files keep the
/// headers of sections whose content was moved.
pub(super) type CodeSections = HashMap<usize, Range<u64>>;

/// Functions by address.
#[derive(Debug, Default)]
pub struct SymbolTable {
    /// By start.
    symbols: Vec<Symbol>,
    strings: Vec<Strings>,
    /// Labels whose names were looked at.
    labels: usize,
    is_cut: bool,
}

impl SymbolTable {
    /// Adds the functions of a table of the file.
    pub(super) fn add(
        &mut self,
        bytes: &dyn Bytes,
        place: &Place,
        code: &CodeSections,
        endian: Endianness,
    ) {
        self.strings.push(Strings::InFile(place.names.clone()));
        self.collect(bytes, place, code, endian);
    }

    /// The same of a table that is in memory, for a while.
    pub(super) fn add_unpacked(
        &mut self,
        image: &[u8],
        place: &Place,
        code: &CodeSections,
        endian: Endianness,
    ) {
        let names = usize::try_from(place.names.start)
            .ok()
            .zip(usize::try_from(place.names.end).ok())
            .and_then(|(start, end)| image.get(start..end.min(image.len())));
        let names = names.unwrap_or_default();
        self.strings.push(Strings::Unpacked(names.into()));
        self.collect(&image, place, code, endian);
    }

    /// Adds the functions of Go's own table, whose code begins at `text`.
    pub(super) fn add_go(&mut self, bytes: &dyn Bytes, table: &Pclntab, text: u64) {
        self.strings.push(Strings::InFile(table.names()));
        let strings = self.strings.len() - 1;
        table.each(bytes, |function| {
            if self.symbols.len() >= MAX_FUNCTIONS {
                self.is_cut = true;
                return ControlFlow::Break(());
            }
            let name = NameAt::new(function.name, strings, 0);
            self.symbols.extend(name.map(|name| Symbol {
                start: text.saturating_add(function.start.into()),
                end: text.saturating_add(function.end.into()),
                name,
                around: NONE,
            }));
            ControlFlow::Continue(())
        });
    }

    /// Makes it ready to be looked up in.
    pub(super) fn arrange(&mut self) {
        self.symbols
            .sort_unstable_by_key(|symbol| (symbol.start, symbol.name));
        self.end_unsized();
        self.symbols.retain(|symbol| symbol.start < symbol.end);
        self.symbols.shrink_to_fit();
        self.nest();
    }

    /// Whether there are no functions.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// Whether the file has more functions than were read.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// What it takes, bytes.
    pub fn bytes(&self) -> usize {
        let unpacked = self.strings.iter().map(|strings| match strings {
            Strings::Unpacked(names) => names.len(),
            Strings::InFile(_) => 0,
        });
        self.symbols.capacity() * size_of::<Symbol>() + unpacked.sum::<usize>()
    }

    /// The name of the innermost function that covers an address, as the
    /// linker knows it (mangled). `file` is the one that the table is of.
    pub fn find(&self, address: ElfAddress, file: &dyn Bytes) -> Option<String> {
        let after = self
            .symbols
            .partition_point(|symbol| symbol.start <= address.0);
        let covers = |symbol: &&Symbol| address.0 < symbol.end;
        let last = self.symbols[..after].last();
        let around = |symbol: &&Symbol| self.symbols.get(symbol.around as usize);
        let innermost = std::iter::successors(last, around)
            .take(MAX_NESTED)
            .find(covers)?;
        let first = self
            .symbols
            .partition_point(|symbol| symbol.start < innermost.start);
        let aliases = self.symbols[first..after]
            .iter()
            .take_while(|symbol| symbol.start == innermost.start)
            .filter(covers);
        let name = aliases
            .take(MAX_ALIASES)
            .map(|symbol| symbol.name)
            .filter_map(|name| Some((rank(name, &self.name::<MAX_COMPARED>(name, file))?, name)))
            .min()?
            .1;
        let name = self.name::<MAX_NAME>(name, file);
        Some(String::from_utf8_lossy(&name).into_owned())
    }

    /// Calls `each` with the linker's name of every function and its addresses. `file` is
    /// the one that the table is of.
    pub fn each(&self, file: &dyn Bytes, each: &mut dyn FnMut(&[u8], Range<u64>)) {
        let mut buffer = vec![0; MAX_NAME];
        for symbol in &self.symbols {
            let (name, range) = (symbol.name, symbol.start..symbol.end);
            match self.strings.get(name.table()) {
                Some(Strings::InFile(table)) => {
                    each(
                        symtab::string(file, table, name.offset(), &mut buffer),
                        range,
                    );
                }
                Some(Strings::Unpacked(names)) => {
                    let table = 0..names.len() as u64;
                    let names = &&names[..];
                    each(
                        symtab::string(names, &table, name.offset(), &mut buffer),
                        range,
                    );
                }
                None => {}
            }
        }
    }

    /// At most so many bytes of a name.
    fn name<const LIMIT: usize>(&self, name: NameAt, file: &dyn Bytes) -> Vec<u8> {
        let mut buffer = vec![0; LIMIT];
        let name = match self.strings.get(name.table()) {
            Some(Strings::InFile(table)) => symtab::string(file, table, name.offset(), &mut buffer),
            Some(Strings::Unpacked(names)) => {
                let table = 0..names.len() as u64;
                symtab::string(&&names[..], &table, name.offset(), &mut buffer)
            }
            None => &[],
        };
        name.to_vec()
    }

    /// Adds the functions of a table whose strings were added last. Until they
    /// are [arranged](Self::arrange), those without a size end with their
    /// section.
    fn collect(
        &mut self,
        bytes: &dyn Bytes,
        place: &Place,
        code: &CodeSections,
        endian: Endianness,
    ) {
        let end = place
            .symbols
            .end
            .min(place.symbols.start.saturating_add(MAX_TABLE));
        self.is_cut |= end < place.symbols.end;
        let table = self.strings.len() - 1;
        symtab::each(bytes, place.symbols.start..end, |symbol| {
            let section = code.get(&usize::from(symbol.st_shndx(endian).0));
            let Some(found) = section.and_then(|section| found(symbol, section, table, endian))
            else {
                return ControlFlow::Continue(());
            };
            if symbol.st_type() == STT_NOTYPE {
                self.labels += 1;
                if self.labels > MAX_LABELS || is_mark(bytes, place, found.name) {
                    return ControlFlow::Continue(());
                }
            }
            if self.symbols.len() >= MAX_FUNCTIONS {
                self.is_cut = true;
                return ControlFlow::Break(());
            }
            self.symbols.push(found);
            ControlFlow::Continue(())
        });
    }

    /// A symbol without a size ends where the next one at a greater address
    /// starts.
    fn end_unsized(&mut self) {
        let mut next = u64::MAX;
        let mut current = u64::MAX;
        for symbol in self.symbols.iter_mut().rev() {
            if symbol.start != current {
                next = current;
                current = symbol.start;
            }
            if symbol.name.is(NameAt::UNSIZED) {
                symbol.end = symbol.end.min(next);
            }
        }
    }

    /// Finds out which functions are around others.
    fn nest(&mut self) {
        let mut open: Vec<u32> = Vec::new();
        for index in 0..self.symbols.len() {
            let end = self.symbols[index].end;
            let is_over = |other: &u32| self.symbols[*other as usize].end <= end;
            while open.last().is_some_and(is_over) {
                open.pop();
            }
            self.symbols[index].around = open.last().copied().unwrap_or(NONE);
            // There are far fewer than 2^32.
            open.push(u32::try_from(index).unwrap_or(NONE));
        }
    }
}

/// Of several names for one address, the least is preferred: the public one
/// (`malloc` before `__libc_malloc`), then the shorter. None if there is none.
fn rank(at: NameAt, name: &[u8]) -> Option<(bool, usize, bool, usize, Vec<u8>)> {
    let underscores = name.iter().take_while(|&&byte| byte == b'_').count();
    // `_Z` and `_R` begin C++'s and Rust's mangled names.
    let mangled = name.starts_with(b"_Z") || name.starts_with(b"_R");
    let underscores = if mangled { 0 } else { underscores };
    let is_unsized = at.is(NameAt::UNSIZED);
    let rank = (
        is_unsized,
        underscores,
        at.is(NameAt::LOCAL),
        name.len(),
        name.to_vec(),
    );
    (!name.is_empty()).then_some(rank)
}

/// A function, or a label, of a section.
fn found(
    symbol: &Sym64<Endianness>,
    section: &Range<u64>,
    table: usize,
    endian: Endianness,
) -> Option<Symbol> {
    let (start, size) = (symbol.st_value(endian), symbol.st_size(endian));
    let is_code = matches!(symbol.st_type(), STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE);
    if !is_code || symbol.st_name(endian) == 0 || !section.contains(&start) {
        return None;
    }
    let mut marks = 0;
    let end = match size {
        0 => section.end,
        size => start.saturating_add(size),
    };
    if size == 0 {
        marks |= NameAt::UNSIZED;
    }
    if symbol.st_bind() == STB_LOCAL {
        marks |= NameAt::LOCAL;
    }
    Some(Symbol {
        start,
        end,
        name: NameAt::new(symbol.st_name(endian), table, marks)?,
        around: NONE,
    })
}

/// Marks such as `$x` and `.Ltmp1` name no function.
fn is_mark(bytes: &dyn Bytes, place: &Place, name: NameAt) -> bool {
    let first = symtab::string(bytes, &place.names, name.offset(), &mut [0])
        .first()
        .copied();
    matches!(first, None | Some(b'$' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symbols and their names as a file has them.
    fn file(symbols: &[(u64, u64, &str)]) -> (Vec<u8>, Place) {
        let mut names = vec![0];
        let mut table = Vec::new();
        for (start, size, name) in symbols {
            table.extend_from_slice(&u32::try_from(names.len()).unwrap().to_le_bytes());
            // A global function of section 1.
            table.extend_from_slice(&[0x12, 0, 1, 0]);
            table.extend_from_slice(&start.to_le_bytes());
            table.extend_from_slice(&size.to_le_bytes());
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        let at = table.len() as u64;
        table.extend_from_slice(&names);
        let place = Place {
            symbols: 0..at,
            names: at..table.len() as u64,
        };
        (table, place)
    }

    /// A table, and the file that its names are in.
    fn table(symbols: &[(u64, u64, &str)]) -> (SymbolTable, Vec<u8>) {
        let (bytes, place) = file(symbols);
        let code = HashMap::from([(1, 0..u64::MAX)]);
        let mut table = SymbolTable::default();
        let sections = HashMap::from([(1, 0..0x2000)]);
        let small = symbols.iter().all(|(start, ..)| *start < 0x2000);
        let sections = if small { sections } else { code };
        table.add(&&bytes[..], &place, &sections, Endianness::Little);
        table.arrange();
        (table, bytes)
    }

    #[track_caller]
    fn check((table, file): &(SymbolTable, Vec<u8>), names: &[(u64, Option<&str>)]) {
        for &(address, name) in names {
            let found = table.find(ElfAddress(address), &&file[..]);
            assert_eq!(found.as_deref(), name, "{address:#x}");
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

    #[test]
    fn aliases_of_other_sizes_count_where_they_reach() {
        let table = table(&[
            (0x1000, 0x10, "a"),
            (0x1000, 0x20, "long_b"),
            (0x1008, 4, "c"),
        ]);
        check(
            &table,
            &[
                (0x1000, Some("a")),
                (0x1008, Some("c")),
                (0x100c, Some("a")),
                (0x1010, Some("long_b")),
                (0x1020, None),
            ],
        );
    }

    /// The same as the definition says, by looking at all of them.
    #[test]
    fn the_innermost_is_found_however_functions_overlap() {
        let mut state = 1_u64;
        let mut random = |limit: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % limit
        };
        for _ in 0..200 {
            let symbols: Vec<(u64, u64, String)> = (0..30)
                .map(|number| (random(100), 1 + random(30), format!("f{number:02}")))
                .collect();
            let borrowed: Vec<_> = symbols
                .iter()
                .map(|(a, b, c)| (*a, *b, c.as_str()))
                .collect();
            let (table, file) = table(&borrowed);
            for address in 0..140 {
                let covers = |s: &&(u64, u64, &str)| s.0 <= address && address < s.0 + s.1;
                let best = borrowed.iter().filter(covers);
                let best = best.min_by_key(|s| (std::cmp::Reverse(s.0), s.2));
                let found = table.find(ElfAddress(address), &&file[..]);
                assert_eq!(found.as_deref(), best.map(|s| s.2), "{address}");
            }
        }
    }

    /// A file of any number of symbols whose names all point into one string,
    /// and of which one covers all.
    struct Hostile {
        symbols: u64,
        names: u64,
    }

    impl Bytes for Hostile {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
            for (byte, at) in buffer.iter_mut().zip(offset..) {
                let index = at / symtab::SYMBOL as u64;
                if index >= self.symbols {
                    *byte = b'n';
                    continue;
                }
                let mut symbol = [0; symtab::SYMBOL];
                // Into the long string, at every byte of it.
                symbol[..8].copy_from_slice(&(1 + index % self.names).to_le_bytes());
                (symbol[4], symbol[6]) = (0x12, 1);
                let (start, size) = match index {
                    0 => (1, 1_u64 << 40),
                    index => (index * 16, 1),
                };
                symbol[8..16].copy_from_slice(&start.to_le_bytes());
                symbol[16..].copy_from_slice(&size.to_le_bytes());
                let place = usize::try_from(at % symtab::SYMBOL as u64).unwrap();
                *byte = symbol[place];
            }
            Ok(buffer.len())
        }

        fn size(&self) -> u64 {
            self.symbols * symtab::SYMBOL as u64 + self.names
        }
    }

    #[test]
    fn eight_million_symbols_with_one_long_name_take_100_mib() {
        let file = Hostile {
            symbols: 8 << 20,
            names: 64 << 20,
        };
        let at = file.symbols * symtab::SYMBOL as u64;
        let place = Place {
            symbols: 0..at,
            names: at..file.size(),
        };
        let mut table = SymbolTable::default();
        let code = HashMap::from([(1, 0..u64::MAX)]);
        table.add(&file, &place, &code, Endianness::Little);
        table.arrange();
        assert!(table.is_cut() && table.symbols.len() == MAX_FUNCTIONS);
        assert!(table.bytes() <= 100 << 20, "{}", table.bytes());
        // Only the first covers this; walking back to it is one step.
        let began = std::time::Instant::now();
        for step in 0..10_000_u64 {
            let found = table.find(ElfAddress((step * 401 + 1) * 16 + 8), &file);
            assert_eq!(found.unwrap().len(), MAX_NAME);
        }
        // 10,000 walks over half of the table would take minutes.
        assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    }
}
