//! A method's line numbers, compressed, as they are behind its bytecodes.

use super::stream::{Encoding, Stream};

/// The byte that numbers with signs follow.
const ESCAPE: u8 = 0xff;

/// Line numbers by bytecode index.
#[derive(Debug, Clone)]
pub struct LineTable {
    bytes: Vec<u8>,
    encoding: Encoding,
}

impl LineTable {
    /// What follows the end of the table does not matter.
    pub fn new(bytes: Vec<u8>, encoding: Encoding) -> Self {
        LineTable { bytes, encoding }
    }

    /// The line of a bytecode: of the entry with the greatest index that is
    /// not greater, as the VM itself finds it. Entries need not be sorted.
    pub fn line(&self, bci: u32) -> Option<u32> {
        let mut best: Option<(i64, i64)> = None;
        for (at, line) in self.entries() {
            if at == i64::from(bci) {
                return u32::try_from(line).ok();
            }
            if at < i64::from(bci) && best.is_none_or(|(before, _)| at >= before) {
                best = Some((at, line));
            }
        }
        best.and_then(|(_, line)| u32::try_from(line).ok())
    }

    /// Index and line of each entry.
    fn entries(&self) -> impl Iterator<Item = (i64, i64)> {
        let mut stream = Stream::new(&self.bytes, self.encoding);
        let (mut bci, mut line) = (0, 0);
        std::iter::from_fn(move || {
            let (forward, down) = match stream.byte()? {
                0 => return None,
                ESCAPE => (stream.signed()?, stream.signed()?),
                both => (i32::from(both >> 3), i32::from(both & 7)),
            };
            bci += i64::from(forward);
            line += i64::from(down);
            Some((bci, line))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(bytes: &[u8]) -> LineTable {
        LineTable::new(bytes.to_vec(), Encoding::WithoutZero)
    }

    #[test]
    fn a_bytecode_has_the_line_of_the_entry_before_it() {
        // 0: line 40 (escaped: signed 0 is 1, 40 is 81), 4: 41, 9: 39.
        let table = table(&[0xff, 1, 81, 4 << 3 | 1, 0xff, 11, 4, 0, 0xff]);
        let lines: Vec<_> = [0, 3, 4, 8, 9, 500].map(|bci| table.line(bci)).into();
        let expected = [40, 40, 41, 41, 39, 39].map(Some);
        assert_eq!(lines, expected);
    }

    #[test]
    fn entries_may_come_in_any_order() {
        // 8: line 10, then 2: line 11.
        let table = table(&[0xff, 17, 21, 0xff, 12, 3, 0]);
        assert_eq!(table.line(1), None);
        assert_eq!(table.line(5), Some(11));
        assert_eq!(table.line(8), Some(10));
    }

    #[test]
    fn a_broken_table_gives_what_it_has() {
        assert_eq!(table(&[]).line(0), None);
        assert_eq!(table(&[0]).line(0), None);
        assert_eq!(table(&[5, 0xff, 200]).line(9), Some(5));
        // A line below zero is none.
        assert_eq!(table(&[0xff, 1, 4, 0]).line(0), None);
    }
}
