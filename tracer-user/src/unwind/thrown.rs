//! The function that allocates the objects of C++'s exceptions: what it asks an
//! allocator for within a call of `operator new` is no part of that call.

use std::ops::{ControlFlow, Range};

use object::read::elf::Sym;

use super::image::{ENDIAN, Image};
use crate::process::address::FileOffset;
use crate::process::bytes::Bytes;
use crate::process::symtab;
use crate::process::window::places;

/// Its name in the C++ ABI for Itanium, 2.4.2, with the zero at its end.
const NAME: &[u8] = b"__cxa_allocate_exception\0";

/// More bytes of symbols or of their names are not read.
const MAX_TABLE: u64 = 256 << 20;

/// So many places of the name in a table of names are looked at.
const MAX_PLACES: usize = 16;

/// Where the function is in the file, if the file has it.
pub fn find(bytes: &dyn Bytes, image: &Image) -> Option<Range<FileOffset>> {
    let (symbols, names) = image.symbols()?;
    let size = names.end.checked_sub(names.start)?.min(MAX_TABLE);
    let found = places(bytes, (names.start, size), NAME).take(MAX_PLACES);
    let at: Vec<u64> = found.map(|(place, _)| place - names.start).collect();
    if at.is_empty() {
        return None;
    }
    let mut code = None;
    let end = symbols.end.min(symbols.start.saturating_add(MAX_TABLE));
    symtab::each(bytes, symbols.start..end, |symbol| {
        let is_it = at.contains(&u64::from(symbol.st_name(ENDIAN))) && symbol.st_size(ENDIAN) > 0;
        if !is_it {
            return ControlFlow::Continue(());
        }
        code = image.file_range(symbol.st_value(ENDIAN), symbol.st_size(ENDIAN));
        match code {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    });
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::bytes::Positioned;
    use object::read::ReadCache;

    #[test]
    fn the_c_plus_plus_library_has_it_and_the_c_library_has_not() {
        let folder = std::path::Path::new("/usr/lib/x86_64-linux-gnu");
        for (library, expected) in [("libstdc++.so.6", true), ("libc.so.6", false)] {
            let content = std::fs::read(folder.join(library)).unwrap();
            let bytes = &&content[..];
            let cache = ReadCache::new(Positioned::new(bytes));
            let image = Image::parse(&cache).unwrap();
            let found = find(bytes, &image);
            assert_eq!(found.is_some(), expected, "{library}");
            assert!(found.is_none_or(|code| code.start < code.end));
        }
    }
}
