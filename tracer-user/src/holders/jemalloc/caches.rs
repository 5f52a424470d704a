//! What threads keep of jemalloc's blocks to use again (`cache_bin_t` in cache_bin.h, of 5.3):
//! for each class a stack of addresses, whose heads are among a thread's variables.

use std::ops::Range;

use super::super::memory::Words;
use crate::process::pagemap::PAGE;

/// A `cache_bin_t`, bytes, and where in it three places of the stack are, by their lowest 16
/// bits.
const BIN: u64 = 24;
const PLACES: u64 = 16;

/// What threads keep.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Caches {
    /// Blocks, by address and class: they look as if they were in use.
    pub blocks: Vec<(u64, u64)>,
    /// The stacks. What is in them and was taken out again is there still.
    pub stacks: Vec<Range<u64>>,
}

/// A class's stack, which grows down.
#[derive(Debug, Clone, Copy)]
struct Stack {
    head: u64,
    full: u64,
    empty: u64,
}

impl Stack {
    fn read(words: &mut Words<'_>, place: u64) -> Option<Self> {
        let head = words.get(place)?;
        if head < PAGE || head >> 47 != 0 || !head.is_multiple_of(8) {
            return None;
        }
        let places = words.get(place.checked_add(PLACES)?)?;
        let part = |bit: u32| places >> bit & 0xffff;
        // The head is no further from the full end than the empty one is.
        let above = |low: u64, than: u64| low.wrapping_sub(than) & 0xffff;
        let full = head.checked_sub(above(head & 0xffff, part(16)))?;
        let empty = head + above(part(32), head & 0xffff);
        let holds = empty - full == above(part(32), part(16))
            && empty > full
            && (empty - full).is_multiple_of(8)
            && above(part(32), part(0)) <= empty - full;
        holds.then_some(Self { head, full, empty })
    }

    /// Those of all classes, if the first is here: each begins where the one before ends.
    fn all(words: &mut Words<'_>, place: u64, least: usize) -> Option<Vec<Self>> {
        let mut stacks = vec![Self::read(words, place)?];
        let mut at = place;
        while let Some(next) = at.checked_add(BIN)
            && let Some(stack) = Self::read(words, next)
            && stacks.last().is_some_and(|last| last.empty == stack.full)
        {
            stacks.push(stack);
            at = next;
        }
        (stacks.len() >= least).then_some(stacks)
    }
}

impl Caches {
    /// Those whose heads are in a range; there are at least so many classes.
    pub fn find(
        &mut self,
        words: &mut Words<'_>,
        of_stacks: &mut Words<'_>,
        range: &Range<u64>,
        least: usize,
    ) {
        let mut place = range.start.next_multiple_of(8);
        while place < range.end {
            match Stack::all(words, place, least) {
                Some(stacks) => {
                    self.take(of_stacks, &stacks);
                    place += stacks.len() as u64 * BIN;
                }
                None => place += 8,
            }
        }
    }

    fn take(&mut self, words: &mut Words<'_>, stacks: &[Stack]) {
        for (class, stack) in (0..).zip(stacks) {
            let blocks = (stack.head..stack.empty).step_by(8);
            let blocks = blocks.filter_map(|place| words.get(place));
            self.blocks.extend(blocks.map(|block| (block, class)));
        }
        if let (Some(first), Some(last)) = (stacks.first(), stacks.last()) {
            self.stacks.push(first.full..last.empty);
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::super::memory::tests::Written;
    use super::*;

    /// Stacks of two blocks each at most, of which the last class has one.
    pub fn put_stacks(memory: &mut Written, place: u64, (stack, classes): (u64, u64), block: u64) {
        for class in 0..classes {
            let (full, empty) = (stack + class * 16, stack + class * 16 + 16);
            let has_one = class + 1 == classes;
            let head = if has_one { empty - 8 } else { empty };
            let low = |address: u64| address & 0xffff;
            let places = low(empty) | low(full) << 16 | low(empty) << 32;
            memory.put(place + class * BIN, head);
            memory.put(place + class * BIN + 8, 4711);
            memory.put(place + class * BIN + PLACES, places);
            if has_one {
                memory.put(head, block);
            }
        }
    }

    const HEADS: u64 = 16 * PAGE;
    /// The lowest 16 bits come to their end in it.
    const STACKS: u64 = 32 * PAGE - 40;

    fn found(memory: &Written, least: usize) -> Caches {
        let present = memory.present();
        let mut caches = Caches::default();
        caches.find(
            &mut Words::new(memory, &present),
            &mut Words::new(memory, &present),
            &(HEADS..HEADS + PAGE),
            least,
        );
        caches
    }

    #[test]
    fn blocks_of_stacks_are_found() {
        let mut memory = Written::new(HEADS..HEADS + 32 * PAGE);
        put_stacks(&mut memory, HEADS + 72, (STACKS, 8), 0x7777_0000);
        let expected = Caches {
            blocks: vec![(0x7777_0000, 7)],
            stacks: std::iter::once(STACKS..STACKS + 128).collect(),
        };
        assert_eq!(found(&memory, 8), expected);
        assert_eq!(found(&memory, 9), Caches::default(), "too few");
        // One that begins elsewhere.
        memory.put(HEADS + 72 + 3 * BIN, STACKS + 800);
        assert_eq!(found(&memory, 8), Caches::default());
    }
}
