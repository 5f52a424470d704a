//! What a forked child has of its parent: a copy of each block that was live at
//! the fork. Frees of such copies are told apart from frees of blocks that
//! nobody traced.
//!
//! Each process remembers its ancestors and when it left them
//! ([`Ancestor`]). A block that an ancestor still has is in the map of live
//! blocks, with its age. What the ancestor has freed since the fork is
//! remembered apart ([`FreedSince`]), from then on when it forked.

/// An image that a process is a copy of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Ancestor {
    /// The image; 0 if there is none.
    pub image: u64,
    /// When the fork was that leads from it to the process, nanoseconds of
    /// `CLOCK_MONOTONIC`.
    pub forked: u64,
}

/// How many generations are looked at. An `exec` ends the line.
pub const MAX_ANCESTORS: usize = 4;

/// The line of a child that is forked at a time from a process of this image and
/// line: the nearest ancestor first.
#[inline(always)]
pub fn descend(
    image: u64,
    forked: u64,
    line: &[Ancestor; MAX_ANCESTORS],
) -> [Ancestor; MAX_ANCESTORS] {
    let [first, second, third, _] = *line;
    [Ancestor { image, forked }, first, second, third]
}

/// How many lives of one address are remembered.
pub const MAX_LIVES: usize = 3;

/// Blocks that an image had at an address when it forked, and has freed since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FreedSince {
    /// When each was allocated, the last first; nanoseconds of
    /// `CLOCK_MONOTONIC`.
    pub made: [u64; MAX_LIVES],
    /// When each was freed; 0 if there is none.
    pub freed: [u64; MAX_LIVES],
    /// When the last of those was freed that there is no room for; 0 if none.
    pub forgotten: u64,
    /// When the image freed its own copy of an ancestor's block; 0 if it did
    /// not.
    pub gave_up: u64,
}

// SAFETY: repr(C), eight u64, any bit pattern is valid.
unsafe impl crate::Record for FreedSince {}

impl FreedSince {
    /// Remembers a block.
    #[inline(always)]
    pub fn add(&mut self, made: u64, freed: u64) {
        if self.made[0] == made && self.freed[0] != 0 {
            // A realloc that failed had taken it out for a while.
            self.freed[0] = freed;
            return;
        }
        if self.freed[2] > self.forgotten {
            self.forgotten = self.freed[2];
        }
        self.made = [made, self.made[0], self.made[1]];
        self.freed = [freed, self.freed[0], self.freed[1]];
    }

    /// Whether the image had a block there at a time at which it forked. Of
    /// blocks that are forgotten it is assumed: the address was in use all the
    /// time.
    #[inline(always)]
    pub const fn had_at(&self, forked: u64) -> bool {
        let Self { made, freed, .. } = self;
        (made[0] < forked && forked < freed[0])
            || (made[1] < forked && forked < freed[1])
            || (made[2] < forked && forked < freed[2])
            || forked < self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_nearest_first_and_an_end() {
        let mut line = [Ancestor::default(); MAX_ANCESTORS];
        for image in 1..=6 {
            line = descend(image, image * 10, &line);
        }
        let images = line.map(|ancestor| ancestor.image);
        assert_eq!(images, [6, 5, 4, 3]);
        assert_eq!(line[0].forked, 60);
    }

    #[test]
    fn a_block_was_there_from_its_allocation_until_its_free() {
        let mut since = FreedSince::default();
        assert!(!since.had_at(5));
        since.add(10, 20);
        assert_eq!([9, 15, 25].map(|at| since.had_at(at)), [false, true, false]);
        since.add(30, 40);
        assert_eq!([15, 25, 35].map(|at| since.had_at(at)), [true, false, true]);
    }

    #[test]
    fn a_block_that_came_back_is_one() {
        let mut since = FreedSince::default();
        since.add(10, 20);
        since.add(10, 30);
        assert_eq!((since.freed, since.had_at(25)), ([30, 0, 0], true));
    }

    #[test]
    fn what_there_is_no_room_for_is_assumed() {
        let mut since = FreedSince::default();
        for life in 0..5 {
            since.add(life * 10, life * 10 + 5);
        }
        assert_eq!(since.forgotten, 15);
        assert!(since.had_at(12) && since.had_at(3));
        assert!(since.had_at(22) && !since.had_at(28) && !since.had_at(50));
    }
}
