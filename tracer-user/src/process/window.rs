//! Files read piece by piece: a part that is kept, and a search.

use memchr::memmem;

use super::bytes::Bytes;

/// Bytes searched at once.
const PIECE: u64 = 1 << 20;

/// A part of a file that was read last.
pub struct Window<'a> {
    bytes: &'a dyn Bytes,
    data: Vec<u8>,
    start: u64,
    size: usize,
}

impl<'a> Window<'a> {
    /// Nothing is read yet; so many bytes will be at once.
    pub fn new(bytes: &'a dyn Bytes, size: usize) -> Self {
        Self {
            bytes,
            data: Vec::new(),
            start: 0,
            size,
        }
    }

    /// So many bytes, if all are before `end`.
    pub fn get(&mut self, at: u64, length: usize, end: u64) -> Option<&[u8]> {
        if at.checked_add(length as u64)? > end {
            return None;
        }
        let holds = at
            .checked_sub(self.start)
            .is_some_and(|into| into.saturating_add(length as u64) <= self.data.len() as u64);
        if !holds {
            self.data.resize(self.size.max(length), 0);
            let filled = self.bytes.fill(&mut self.data, at);
            self.data.truncate(filled);
            self.start = at;
        }
        let into = usize::try_from(at - self.start).ok()?;
        self.data.get(into..into + length)
    }
}

/// Bytes that are told of a place at which some were found.
pub const CONTEXT: usize = 8;

/// Where some bytes stand in a part of a file, which is given with its size, and what
/// follows from there on. They are no more than that.
pub fn places<'a>(
    bytes: &'a dyn Bytes,
    (offset, size): (u64, u64),
    wanted: &'a [u8],
) -> impl Iterator<Item = (u64, [u8; CONTEXT])> + 'a {
    let starts = (0..size).step_by(usize::try_from(PIECE).unwrap_or(usize::MAX));
    starts.flat_map(move |start| {
        let length = (size - start).min(PIECE + CONTEXT as u64);
        let mut piece = vec![0; usize::try_from(length).unwrap_or(0)];
        let filled = bytes.fill(&mut piece, offset + start);
        piece.truncate(filled);
        let found: Vec<_> = memmem::find_iter(&piece, wanted)
            .filter(|into| (*into as u64) < PIECE)
            .map(|into| {
                let mut context = [0; CONTEXT];
                let known = &piece[into..filled.min(into + CONTEXT)];
                context[..known.len()].copy_from_slice(known);
                (offset + start + into as u64, context)
            })
            .collect();
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_across_two_pieces_is_found_once() {
        let mut bytes = vec![0; 3 * usize::try_from(PIECE).unwrap()];
        let ends = [5, PIECE - 1, PIECE, 2 * PIECE - 4, bytes.len() as u64 - 3];
        for at in ends {
            let at = usize::try_from(at).unwrap();
            bytes[at..at + 3].copy_from_slice(b"abc");
        }
        let found = |size| places(&&bytes[..], (0, size), b"bc").collect::<Vec<_>>();
        let at: Vec<u64> = found(bytes.len() as u64)
            .iter()
            .map(|(at, _)| *at)
            .collect();
        assert_eq!(at, [6, PIECE + 1, 2 * PIECE - 3, bytes.len() as u64 - 2]);
        assert_eq!(found(u64::MAX >> 30).len(), 4, "a file that is shorter");
        assert_eq!(found(7), []);
        assert_eq!(found(8), [(6, *b"bc\0\0\0\0\0\0")]);
    }

    #[test]
    fn a_window_moves_where_it_must() {
        let bytes: Vec<u8> = (0..=255).collect();
        let bytes = &&bytes[..];
        let mut window = Window::new(bytes, 16);
        assert_eq!(window.get(10, 2, 256), Some(&[10, 11][..]));
        assert_eq!(window.get(25, 2, 256), Some(&[25, 26][..]));
        assert_eq!(window.get(0, 20, 256).map(<[u8]>::len), Some(20));
        assert_eq!(window.get(250, 6, 255), None);
        assert_eq!(window.get(250, 7, 1000), None, "the file ends");
        assert_eq!(window.get(u64::MAX, 7, u64::MAX), None);
    }
}
