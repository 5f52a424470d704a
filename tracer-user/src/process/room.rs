//! Memory that many share: who wants some takes it first, and gives it back
//! with what it was for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A budget of bytes, and perhaps a part of a larger one.
#[derive(Debug, Clone)]
pub struct Room(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    left: AtomicU64,
    whole: Option<Room>,
}

impl Room {
    /// So many bytes.
    pub fn of(bytes: u64) -> Self {
        Room(Arc::new(Budget {
            left: AtomicU64::new(bytes),
            whole: None,
        }))
    }

    /// At most so many bytes of this room, for one of those who share it.
    pub fn part(&self, bytes: u64) -> Self {
        Room(Arc::new(Budget {
            left: AtomicU64::new(bytes),
            whole: Some(self.clone()),
        }))
    }

    /// Another part of the same whole.
    pub fn sibling(&self, bytes: u64) -> Self {
        let whole = self.0.whole.as_ref();
        whole.unwrap_or(self).part(bytes)
    }

    /// Takes bytes, if there are as many.
    pub fn take(&self, bytes: u64) -> Option<Taken> {
        self.change(bytes).then(|| Taken {
            bytes,
            room: self.clone(),
        })
    }

    fn change(&self, bytes: u64) -> bool {
        let left = |left: u64| left.checked_sub(bytes);
        let ordering = Ordering::Relaxed;
        if self.0.left.fetch_update(ordering, ordering, left).is_err() {
            return false;
        }
        let is_there = self
            .0
            .whole
            .as_ref()
            .is_none_or(|whole| whole.change(bytes));
        if !is_there {
            self.0.left.fetch_add(bytes, ordering);
        }
        is_there
    }

    fn give_back(&self, bytes: u64) {
        self.0.left.fetch_add(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.0.whole {
            whole.give_back(bytes);
        }
    }
}

/// Bytes that were taken; they are given back with this value.
#[derive(Debug)]
pub struct Taken {
    bytes: u64,
    room: Room,
}

impl Taken {
    /// How many.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes more of the same room, if there is as much.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let is_there = self.room.change(bytes);
        if is_there {
            self.bytes += bytes;
        }
        is_there
    }

    /// Gives some of it back.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.room.give_back(bytes);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_there_is_and_what_is_dropped_is_there_again() {
        let whole = Room::of(100);
        let (one, other) = (whole.part(80), whole.part(80));
        let mut taken = one.take(50).unwrap();
        assert!(one.take(31).is_none(), "the part is too small");
        assert!(other.take(51).is_none(), "the whole is too small");
        assert!(taken.grow(30) && !taken.grow(1));
        assert!(other.take(21).is_none() && other.take(20).is_some());
        taken.shrink(40);
        assert_eq!(taken.bytes(), 40);
        assert!(other.take(60).is_some());
        drop(taken);
        assert!(whole.take(100).is_some());
    }
}
