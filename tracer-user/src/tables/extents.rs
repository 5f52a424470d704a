//! Parts of an array: which are in use, and where there is room.

/// A part of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its first element.
    pub first: u32,
    /// How many.
    pub len: u32,
}

impl Extent {
    /// No elements.
    pub const EMPTY: Self = Self { first: 0, len: 0 };

    fn end(self) -> u32 {
        self.first + self.len
    }
}

/// The free parts of an array, sorted; no two touch.
#[derive(Debug)]
pub struct Extents {
    free: Vec<Extent>,
}

impl Extents {
    /// All elements of an array, free.
    pub fn new(len: u32) -> Self {
        Self {
            free: vec![Extent { first: 0, len }],
        }
    }

    /// Takes `len` elements from the first part that has them; `None` if none
    /// has.
    pub fn take(&mut self, len: u32) -> Option<Extent> {
        if len == 0 {
            return Some(Extent::EMPTY);
        }
        let index = self.free.iter().position(|part| part.len >= len)?;
        let part = self.free.get_mut(index)?;
        let taken = Extent {
            first: part.first,
            len,
        };
        part.first += len;
        part.len -= len;
        if part.len == 0 {
            self.free.remove(index);
        }
        Some(taken)
    }

    /// Gives back what was taken.
    pub fn give(&mut self, extent: Extent) {
        if extent.len == 0 {
            return;
        }
        let index = self.free.partition_point(|part| part.first < extent.first);
        self.free.insert(index, extent);
        self.join(index);
        if let Some(before) = index.checked_sub(1) {
            self.join(before);
        }
    }

    /// How many elements are free.
    pub fn room(&self) -> u32 {
        self.free.iter().map(|part| part.len).sum()
    }

    /// Makes one of a part and the next, if they touch.
    fn join(&mut self, index: usize) {
        let (Some(part), Some(next)) = (self.free.get(index), self.free.get(index + 1)) else {
            return;
        };
        if part.end() == next.first {
            let len = part.len + next.len;
            self.free.remove(index + 1);
            self.free[index].len = len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again() {
        let mut extents = Extents::new(10);
        let a = extents.take(4).unwrap();
        let b = extents.take(4).unwrap();
        assert_eq!(extents.take(3), None);
        let c = extents.take(2).unwrap();
        assert_eq!((a.first, b.first, c.first), (0, 4, 8));
        extents.give(a);
        extents.give(c);
        assert_eq!(extents.room(), 6);
        assert_eq!(extents.take(5), None, "the free parts do not touch");
        extents.give(b);
        assert_eq!(extents.take(10), Some(Extent { first: 0, len: 10 }));
    }

    #[test]
    fn nothing_takes_no_room() {
        let mut extents = Extents::new(1);
        assert_eq!(extents.take(0), Some(Extent::EMPTY));
        extents.give(Extent::EMPTY);
        assert_eq!(extents.room(), 1);
    }
}
