//! Reading many pieces of memory, each of which is something's: those that lie in one page are read
//! at once, since the kernel looks up pages for each piece that it is asked for.

use std::ops::Range;

use super::mark::Holder;
use super::memory::{MAX_PIECES, Memory, length};
use crate::process::pagemap::PAGE;

/// Bytes that are read at once.
const AT_ONCE: usize = 1 << 20;
/// What is between two pieces of a page, at most, bytes.
const BETWEEN: usize = 4 << 10;

/// A piece, where in the buffer it comes, and what it is of.
struct Piece {
    range: Range<u64>,
    at: usize,
    holder: Holder,
}

/// What is to be read next.
pub struct Reader<'a> {
    memory: &'a dyn Memory,
    pieces: Vec<Piece>,
    /// What the kernel is asked for: pieces, and what is between those of one page.
    asked: Vec<Range<u64>>,
    /// Bytes of that.
    filled: usize,
    buffer: Vec<u8>,
}

impl<'a> Reader<'a> {
    /// Nothing is to be read yet.
    pub fn new(memory: &'a dyn Memory) -> Self {
        Self {
            memory,
            pieces: Vec::new(),
            asked: Vec::new(),
            filled: 0,
            // With room for what is between the last two pieces.
            buffer: vec![0; AT_ONCE + BETWEEN],
        }
    }

    /// Adds as much of a range as there is room for, if it is not full; returns where the rest
    /// begins.
    pub fn add(&mut self, range: Range<u64>, holder: Holder) -> u64 {
        let room = AT_ONCE.saturating_sub(self.filled) as u64;
        let range = range.start..range.end.min(range.start + room);
        let end = range.end;
        match self.asked.last_mut() {
            Some(last) if range.start >= last.end && is_in_page(&range, last.end - 1) => {
                self.filled += length(&(last.end..range.start));
                last.end = end;
            }
            _ => self.asked.push(range.clone()),
        }
        self.pieces.push(Piece {
            at: self.filled,
            range: range.clone(),
            holder,
        });
        self.filled += length(&range);
        end
    }

    /// Whether what waits has to be read before more is added.
    pub const fn is_full(&self) -> bool {
        self.filled >= AT_ONCE || self.asked.len() >= MAX_PIECES
    }

    /// Reads what waits, and hands each piece over: its range, the bytes from its start on that
    /// could be read, and what it is of.
    pub fn read(&mut self, mut take: impl FnMut(&Range<u64>, &[u8], Holder)) {
        let mut pieces = std::mem::take(&mut self.pieces).into_iter().peekable();
        let asked = std::mem::take(&mut self.asked);
        let (mut rest, mut from) = (&asked[..], 0);
        self.filled = 0;
        while !rest.is_empty() {
            let buffer = self.buffer.get_mut(from..).unwrap_or_default();
            let read = from + self.memory.read(rest, buffer);
            // What can be read ends within the first that is not whole, which is left out.
            while let [first, others @ ..] = rest {
                let is_whole = from + length(first) <= read;
                from += length(first);
                rest = others;
                if !is_whole {
                    break;
                }
            }
            while let Some(piece) = pieces.next_if(|piece| piece.at < from) {
                let end = (piece.at + length(&piece.range)).min(read);
                let bytes = self.buffer.get(piece.at..end).unwrap_or_default();
                take(&piece.range, bytes, piece.holder);
            }
        }
    }
}

/// Whether a range begins in the page of an address.
const fn is_in_page(range: &Range<u64>, address: u64) -> bool {
    range.start / PAGE == address / PAGE
}

#[cfg(test)]
mod tests {
    use super::super::memory::tests::Written;
    use super::*;

    const BASE: u64 = 16 * PAGE;

    fn read(memory: &Written, ranges: &[Range<u64>]) -> (Vec<(u64, usize, u8)>, usize) {
        let mut reader = Reader::new(memory);
        for (number, range) in (0..).zip(ranges) {
            assert_eq!(reader.add(range.clone(), Holder::Node(number)), range.end);
        }
        let asked = reader.asked.len();
        let mut found = Vec::new();
        reader.read(|piece, bytes, _| {
            let first = bytes.first().copied().unwrap_or_default();
            found.push((piece.start, bytes.len(), first));
        });
        assert!(reader.pieces.is_empty() && !reader.is_full());
        (found, asked)
    }

    #[test]
    fn pieces_of_one_page_are_asked_for_at_once() {
        let mut memory = Written::new(BASE..BASE + 4 * PAGE);
        for (at, byte) in [(8, 1), (64, 2), (PAGE - 8, 3), (PAGE, 4), (PAGE + 800, 5)] {
            memory.put(BASE + at, byte);
        }
        let ranges = [
            BASE + 8..BASE + 24,
            BASE + 64..BASE + 72,
            BASE + PAGE - 8..BASE + PAGE,
            BASE + PAGE..BASE + PAGE + 16,
            BASE + PAGE + 800..BASE + PAGE + 808,
        ];
        let (found, asked) = read(&memory, &ranges);
        let expected = [
            (BASE + 8, 16, 1),
            (BASE + 64, 8, 2),
            (BASE + PAGE - 8, 8, 3),
            (BASE + PAGE, 16, 4),
            (BASE + PAGE + 800, 8, 5),
        ];
        assert_eq!((&found[..], asked), (&expected[..], 2));
    }

    #[test]
    fn what_cannot_be_read_comes_without_bytes() {
        let mut memory = Written::new(BASE..BASE + PAGE);
        memory.put(BASE, 7);
        let gone = BASE + 8 * PAGE;
        let ranges = [
            gone..gone + 8,
            gone + 16..gone + 24,
            BASE..BASE + 8,
            gone..gone + 8,
        ];
        let (found, _) = read(&memory, &ranges);
        let expected = [(gone, 0, 0), (gone + 16, 0, 0), (BASE, 8, 7), (gone, 0, 0)];
        assert_eq!(found, expected);
    }

    #[test]
    fn no_more_is_added_than_there_is_room_for() {
        let memory = Written::new(BASE..BASE + PAGE);
        let mut reader = Reader::new(&memory);
        let large = BASE..BASE + 3 * AT_ONCE as u64;
        assert_eq!(reader.add(large, Holder::Area(0)), BASE + AT_ONCE as u64);
        assert!(reader.is_full());
    }
}
