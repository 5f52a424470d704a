//! Mappings of the run that are charged to no call path: what allocators map within
//! their calls, whose blocks have paths of their own; and what loaders map, or what is
//! below `--min-size`.

use std::ops::Range;

use super::pieces::{Piece, Pieces};

/// The ranges of one process image.
#[derive(Debug, Clone, Default)]
pub struct Uncharged {
    allocators: Pieces,
    others: Pieces,
}

impl Uncharged {
    /// An allocator has mapped a range in which nothing is known.
    pub fn allocators_mapped(&mut self, start: u64, end: u64) {
        if start < end {
            self.allocators.insert(start, Piece { end, mapping: 0 });
        }
    }

    /// Somebody else has.
    pub fn others_mapped(&mut self, start: u64, end: u64) {
        self.others.insert(start, Piece { end, mapping: 0 });
    }

    /// A range is unmapped, or something else is mapped there.
    pub fn forget(&mut self, start: u64, end: u64) {
        self.allocators.take(start, end);
        self.others.take(start, end);
    }

    /// What allocators have mapped, in order.
    pub fn allocators(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.allocators.iter().map(|(range, _)| range)
    }

    /// What others have, in order.
    pub fn others(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.others.iter().map(|(range, _)| range)
    }
}
