//! Function symbols of an ELF file and their machine code, read with bounds:
//! the file may belong to anybody.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};

use anyhow::{Context, Result, bail};
use object::elf::{
    FileHeader64, PN_XNUM, PT_INTERP, ProgramHeader64, SHT_DYNSYM, SHT_SYMTAB, STB_GLOBAL,
    STB_WEAK, STT_FUNC, SectionHeader64, Sym64,
};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{Endianness, ReadCache};

use crate::process::bytes::{Bytes, Positioned};
use crate::process::file::RegularFile;
use crate::process::symtab;

/// Larger symbol tables are not read: Chromium's, with debug symbols, is
/// below half of it.
const MAX_TABLE: u64 = 256 << 20;

/// Larger tables of names are not read as a whole.
const MAX_NAMES: u64 = 64 << 20;

/// No allocator's function has a longer name, bytes.
const MAX_NAME: usize = 256;

/// Functions of the wanted names, at most: a file has few versions of each.
const MAX_FUNCTIONS: usize = 1024;

/// Machine code read of a function, at most.
const MAX_CODE: u64 = 16 << 10;

/// Functions by which a file finds others by their names, and glibc's `malloc` by
/// another name.
const SEARCHERS: [&[u8]; 3] = [b"dlsym", b"dlvsym", b"__libc_malloc"];

/// A function of malloc(3) that no other C library has.
const GLIBC: &[u8] = b"malloc_info";

/// A function that a file defines.
#[derive(Debug)]
pub struct FunctionSymbol {
    /// The symbol.
    pub name: String,
    /// Whether its file's parts see it, if not others.
    pub is_global: bool,
    /// Whether other files can see it.
    pub is_exported: bool,
    /// Where the function is in the file.
    pub file_offset: u64,
    /// Its first bytes.
    pub code: Vec<u8>,
}

/// The functions of a file.
#[derive(Debug, Default)]
pub struct Functions {
    /// Those that were looked for.
    pub found: Vec<FunctionSymbol>,
    /// Such names that it takes from other files, and by what it may look for more.
    pub imported: HashSet<String>,
    /// Whether it is glibc, or has it in it.
    pub is_glibc: bool,
    /// Whether the file is a program that is linked statically.
    pub is_static: bool,
    /// Whether functions that are not exported have names.
    pub has_symbols: bool,
}

/// The functions whose symbol is `wanted`, exported or not. Of a local and a
/// global one of the same name the global one is taken.
///
/// # Errors
/// Fails if the file is not a readable 64-bit little-endian ELF file.
pub fn functions(
    file: &RegularFile,
    is_program: bool,
    mut wanted: impl FnMut(&[u8]) -> bool,
) -> Result<Functions> {
    let cache = ReadCache::new(Positioned::new(file));
    let data = &cache;
    let header = FileHeader64::<Endianness>::parse(data).context("not a 64-bit ELF file")?;
    let endian = header.endian()?;
    let counts_sections_elsewhere =
        header.e_shnum.get(endian) == 0 && header.e_shoff.get(endian) != 0;
    // Then the numbers are elsewhere, and have 32 or 64 bits: no program has
    // so many.
    if header.e_phnum.get(endian) == PN_XNUM || counts_sections_elsewhere {
        bail!("it has too many segments or sections");
    }
    let segments = header
        .program_headers(endian, data)
        .context("its program headers cannot be read")?;
    let sections = header
        .sections(endian, data)
        .context("its section headers cannot be read")?;
    let mut found = Vec::new();
    let mut imported = HashSet::new();
    let mut is_glibc = false;
    for kind in [SHT_DYNSYM, SHT_SYMTAB] {
        let Some(section) = sections.iter().find(|s| s.sh_type(endian) == kind) else {
            continue;
        };
        check_size(section.sh_size(endian))?;
        let names = sections
            .section(section.link(endian))
            .context("its symbols have no names")?;
        check_size(names.sh_size(endian))?;
        let names = Names::of(file, place(names, endian));
        let mut take = |symbol: &Sym64<Endianness>| {
            let mut buffer = [0; MAX_NAME];
            let name = names.at(symbol.st_name(endian), &mut buffer);
            is_glibc |= name == GLIBC && !symbol.is_undefined(endian);
            let is_searcher = SEARCHERS.contains(&name);
            if name.is_empty() || name.len() == MAX_NAME || !(is_searcher || wanted(name)) {
                return Ok(());
            }
            if symbol.is_undefined(endian) {
                imported.insert(String::from_utf8_lossy(name).into_owned());
                return Ok(());
            }
            if is_searcher || symbol.st_type() != STT_FUNC {
                return Ok(());
            }
            let address = symbol.st_value(endian);
            let place = segments.iter().find_map(|s| offset_in(s, endian, address));
            let Some((file_offset, room)) = place else {
                return Ok(());
            };
            if found.len() >= MAX_FUNCTIONS {
                bail!("it has more than {MAX_FUNCTIONS} functions of these names");
            }
            let length = match symbol.st_size(endian) {
                0 => 64,
                size => size,
            };
            let is_global = matches!(symbol.st_bind(), STB_GLOBAL | STB_WEAK);
            found.push(FunctionSymbol {
                is_global,
                is_exported: is_global && kind == SHT_DYNSYM,
                name: String::from_utf8_lossy(name).into_owned(),
                file_offset,
                code: read_code(file, file_offset, length.min(room).min(MAX_CODE)),
            });
            Ok(())
        };
        let mut result = Ok(());
        symtab::each(file, place(section, endian), |symbol| {
            if symbol.st_type() != STT_FUNC && !symbol.is_undefined(endian) {
                return ControlFlow::Continue(());
            }
            result = take(symbol);
            match result {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        result?;
    }
    forget_shadowed(&mut found);
    let needs_loader = |s: &ProgramHeader64<Endianness>| s.p_type(endian) == PT_INTERP;
    Ok(Functions {
        found,
        imported,
        is_glibc,
        has_symbols: sections.iter().any(|s| s.sh_type(endian) == SHT_SYMTAB),
        is_static: is_program && !segments.iter().any(needs_loader),
    })
}

/// Leaves out local functions of the name of a global one, and what is in both
/// tables.
fn forget_shadowed(found: &mut Vec<FunctionSymbol>) {
    let global = found.iter().filter(|function| function.is_global);
    let global: HashSet<String> = global.map(|function| function.name.clone()).collect();
    let mut seen = HashSet::new();
    found.retain(|function| {
        let is_shadowed = !function.is_global && global.contains(&function.name);
        !is_shadowed && seen.insert((function.name.clone(), function.file_offset))
    });
}

fn place(section: &SectionHeader64<Endianness>, endian: Endianness) -> Range<u64> {
    let start = section.sh_offset(endian);
    start..start.saturating_add(section.sh_size(endian))
}

/// Symbols' names: in memory if they are not many, so that each need not be
/// read by itself.
struct Names<'a> {
    file: &'a RegularFile,
    table: Range<u64>,
    read: Vec<u8>,
}

impl<'a> Names<'a> {
    fn of(file: &'a RegularFile, table: Range<u64>) -> Self {
        let size = table.end - table.start;
        let mut read = Vec::new();
        if size <= MAX_NAMES {
            // It is not larger than that.
            read.resize(usize::try_from(size).unwrap_or(0), 0);
            let filled = file.fill(&mut read, table.start);
            read.truncate(filled);
        }
        Names { file, table, read }
    }

    fn at<'b>(&self, offset: u32, buffer: &'b mut [u8]) -> &'b [u8] {
        if self.table.end - self.table.start > MAX_NAMES {
            return symtab::string(self.file, &self.table, offset.into(), buffer);
        }
        let table = 0..self.read.len() as u64;
        symtab::string(&&self.read[..], &table, offset.into(), buffer)
    }
}

fn check_size(size: u64) -> Result<()> {
    if size > MAX_TABLE {
        bail!("its symbol table of {size} bytes is larger than {MAX_TABLE}");
    }
    Ok(())
}

/// The path of the loader that a program asks for (`PT_INTERP`).
pub fn interpreter(file: &RegularFile) -> Option<Vec<u8>> {
    let cache = ReadCache::new(Positioned::new(file));
    let header = FileHeader64::<Endianness>::parse(&cache).ok()?;
    let endian = header.endian().ok()?;
    if header.e_phnum.get(endian) == PN_XNUM {
        return None;
    }
    let segments = header.program_headers(endian, &cache).ok()?;
    let path = segments
        .iter()
        .find(|segment| segment.p_type(endian) == PT_INTERP)?;
    if path.p_filesz(endian) > 4096 {
        return None;
    }
    let path = path.data(endian, &cache).ok()?;
    Some(path.split(|byte| *byte == 0).next()?.to_vec())
}

/// Where an address is in the file, and how many bytes of its segment follow.
fn offset_in(
    segment: &ProgramHeader64<Endianness>,
    endian: Endianness,
    address: u64,
) -> Option<(u64, u64)> {
    let (_, size) = segment.file_range(endian);
    let into = address.checked_sub(segment.p_vaddr(endian))?;
    let executable = segment.p_type(endian) == object::elf::PT_LOAD
        && segment.p_flags(endian).0 & object::elf::PF_X.0 != 0;
    (executable && into < size)
        .then(|| Some((segment.p_offset(endian).checked_add(into)?, size - into)))?
}

/// Up to `length` bytes of the file; fewer if it is shorter.
fn read_code(file: &RegularFile, offset: u64, length: u64) -> Vec<u8> {
    let mut code = vec![0; usize::try_from(length).unwrap_or(0)];
    let filled = file.fill(&mut code, offset);
    code.truncate(filled);
    code
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::process::handle::ProcessHandle;

    #[test]
    fn own_libc_defines_malloc_and_its_code_decodes() {
        let own = ProcessHandle::open(std::process::id()).unwrap();
        let maps = String::from_utf8(std::fs::read("/proc/self/maps").unwrap()).unwrap();
        let libc = maps
            .lines()
            .find(|l| l.contains("libc.so"))
            .unwrap()
            .split_whitespace()
            .last()
            .unwrap();
        let located = own
            .locate_in_root(libc.as_ref(), rustix::fs::OFlags::empty())
            .unwrap();
        let file = RegularFile::open(&located).unwrap();
        let found = functions(&file, false, |name| name == b"malloc" || name == b"free").unwrap();
        assert!(!found.is_static);
        let found = found.found;
        assert_eq!(found.iter().filter(|f| f.name == "malloc").count(), 1);
        assert!(found.iter().all(|f| !f.code.is_empty()));
    }

    /// A file that says that its section headers are without number, and is
    /// sparse, so that they could be there.
    #[test]
    fn a_file_that_claims_too_much_is_not_read() {
        let mut head = std::fs::read("/bin/true").unwrap()[..4096].to_vec();
        // e_shoff, e_shnum.
        head[0x28..0x30].copy_from_slice(&8192_u64.to_le_bytes());
        head[0x3c..0x3e].fill(0);
        let path = std::env::temp_dir().join(format!("unfreed-claims-{}", std::process::id()));
        std::fs::write(&path, &head).unwrap();
        let written = std::fs::File::options().write(true).open(&path).unwrap();
        // The first section header's sh_size is the number of them all.
        written
            .write_all_at(&(1_u64 << 33).to_le_bytes(), 8192 + 32)
            .unwrap();
        written.set_len(1 << 40).unwrap();
        let own = ProcessHandle::open(std::process::id()).unwrap();
        let located = own.locate_in_root(&path, rustix::fs::OFlags::empty());
        std::fs::remove_file(&path).unwrap();
        let file = RegularFile::open(&located.unwrap()).unwrap();
        let error = functions(&file, true, |_| true).unwrap_err();
        assert_eq!(error.to_string(), "it has too many segments or sections");
    }
}
