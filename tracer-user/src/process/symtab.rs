//! Symbol tables and their names, read piece by piece: a table may have
//! millions of symbols, and its file may be anybody's.

use std::ops::{ControlFlow, Range};

use object::Endianness;
use object::elf::Sym64;
use object::pod::slice_from_bytes;

use super::bytes::Bytes;

/// Symbols that are read at once.
const PIECE: usize = 4096;

/// What one symbol takes in its table, bytes.
pub const SYMBOL: usize = size_of::<Sym64<Endianness>>();

/// Hands on all symbols of a table, whose place in the file is given, until one
/// breaks. A table that ends before its section does is not an error.
pub fn each(
    bytes: &dyn Bytes,
    place: Range<u64>,
    mut take: impl FnMut(&Sym64<Endianness>) -> ControlFlow<()>,
) {
    let mut piece = vec![0; PIECE * SYMBOL];
    let mut at = place.start;
    while at < place.end {
        let wanted = usize::try_from(place.end - at).unwrap_or(usize::MAX);
        let wanted = wanted.min(piece.len());
        let filled = bytes.fill(&mut piece[..wanted], at);
        let count = filled / SYMBOL;
        let Ok((symbols, _)) = slice_from_bytes(&piece[..filled], count) else {
            return;
        };
        if count == 0 || symbols.iter().try_for_each(&mut take).is_break() {
            return;
        }
        at += (count * SYMBOL) as u64;
    }
}

/// The string at an offset of a string table, without the zero at its end; cut
/// at the buffer's length. Empty if there is none.
pub fn string<'a>(
    bytes: &dyn Bytes,
    table: &Range<u64>,
    offset: u64,
    buffer: &'a mut [u8],
) -> &'a [u8] {
    let start = table.start.saturating_add(offset);
    let left = usize::try_from(table.end.saturating_sub(start)).unwrap_or(usize::MAX);
    let room = buffer.len().min(left);
    let filled = bytes.fill(&mut buffer[..room], start);
    let end = memchr::memchr(0, &buffer[..filled]).unwrap_or(filled);
    &buffer[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_symbols_come_and_none_of_what_is_cut_off() {
        let bytes = vec![7_u8; 10_000 * SYMBOL + 5];
        for (end, expected) in [
            (u64::MAX, 10_000),
            (10_000 * SYMBOL as u64, 10_000),
            (SYMBOL as u64 * 3 + 1, 3),
            (0, 0),
        ] {
            let mut count = 0;
            each(&&bytes[..], 0..end, |symbol| {
                assert_eq!(symbol.st_name.get(Endianness::Little), 0x0707_0707);
                count += 1;
                ControlFlow::Continue(())
            });
            assert_eq!(count, expected);
        }
        let mut count = 0;
        each(&&bytes[..], 0..u64::MAX, |_| {
            count += 1;
            ControlFlow::Break(())
        });
        assert_eq!(count, 1);
    }

    #[test]
    fn strings_end_with_their_table() {
        let bytes = &b"xx\0main\0long"[..];
        let of = |table: Range<u64>, offset: u64| {
            let mut buffer = [0; 4];
            String::from_utf8(string(&bytes, &table, offset, &mut buffer).to_vec()).unwrap()
        };
        assert_eq!(of(2..12, 1), "main");
        assert_eq!(of(2..12, 0), "");
        assert_eq!(of(2..5, 1), "ma", "the table ends");
        assert_eq!(of(2..12, 6), "long");
        assert_eq!(of(0..u64::MAX, 11), "g");
        assert_eq!(of(2..12, u64::MAX), "");
    }
}
