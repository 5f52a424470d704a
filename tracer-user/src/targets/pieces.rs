//! Ranges of addresses that do not overlap: cut, taken out and put back.

use std::collections::BTreeMap;
use std::ops::Range;

/// A range's end, and the number of the mapping that it is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// First address after it.
    pub end: u64,
    /// The mapping.
    pub mapping: u64,
}

/// Pieces by their first address.
#[derive(Debug, Clone, Default)]
pub struct Pieces(BTreeMap<u64, Piece>);

impl Pieces {
    /// Adds a range where none is.
    pub fn insert(&mut self, start: u64, piece: Piece) {
        self.0.insert(start, piece);
    }

    /// Puts back what was taken.
    pub fn put_back(&mut self, pieces: Vec<(u64, Piece)>) {
        self.0.extend(pieces);
    }

    /// Cuts `start..end` out and returns what was there.
    pub fn take(&mut self, start: u64, end: u64) -> Vec<(u64, Piece)> {
        if start >= end {
            return Vec::new();
        }
        self.cut(start);
        self.cut(end);
        let inside = self.0.range(start..end);
        let taken: Vec<_> = inside.map(|(at, piece)| (*at, *piece)).collect();
        for (at, _) in &taken {
            self.0.remove(at);
        }
        taken
    }

    /// Makes `address` a border.
    fn cut(&mut self, address: u64) {
        if let Some((_, piece)) = self.0.range_mut(..address).next_back()
            && piece.end > address
        {
            let upper = *piece;
            piece.end = address;
            self.0.insert(address, upper);
        }
    }

    /// The piece that an address is in.
    pub fn at(&self, address: u64) -> Option<Piece> {
        let (_, piece) = self.0.range(..=address).next_back()?;
        (address < piece.end).then_some(*piece)
    }

    /// All of them, by address.
    pub fn iter(&self) -> impl Iterator<Item = (Range<u64>, u64)> + '_ {
        let pieces = self.0.iter();
        pieces.map(|(start, piece)| (*start..piece.end, piece.mapping))
    }
}
