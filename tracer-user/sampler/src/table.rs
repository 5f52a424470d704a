//! The sampled blocks that are live, by address: a fixed table without locks, and before
//! it a small filter that most frees end at.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Counters of the filter.
const COUNTERS: usize = 1 << 16;
/// Places of the table: with a sample in 512 KiB they are of 512 GiB of live blocks, and
/// what was never used of them is no memory.
const PLACES: usize = 1 << 20;
/// How far a block may be from its place.
const REACH: usize = 128;
/// A place that was used before. It stays one, since others may be behind it.
const GONE: usize = 1;
/// A counter that has lost count, and stays.
const STUCK: u8 = u8::MAX;

/// How many blocks there are, or were, by a few bits of their addresses.
pub static FILTER: [AtomicU8; COUNTERS] = [const { AtomicU8::new(0) }; COUNTERS];

static BLOCKS: [AtomicUsize; PLACES] = [const { AtomicUsize::new(0) }; PLACES];

static SIZES: [AtomicUsize; PLACES] = [const { AtomicUsize::new(0) }; PLACES];

/// The filter's counter of an address. Neighbours have counters beside each other. The
/// operators compute the same ([`crate::operators`]).
#[inline(always)]
const fn counter(block: usize) -> usize {
    ((block >> 4) ^ (block >> 20)) % COUNTERS
}

/// Whether a block may be in the table.
#[inline(always)]
pub fn may_have(block: usize) -> bool {
    FILTER[counter(block)].load(Ordering::Relaxed) != 0
}

/// Has [`may_have`] say yes of an address for good.
pub fn suspect(block: usize) {
    FILTER[counter(block)].store(STUCK, Ordering::Relaxed);
}

fn place(block: usize, distance: usize) -> usize {
    (block.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).wrapping_add(distance) % PLACES
}

/// Enters a block, which is in nobody else's hands. Whether there is room.
pub fn insert(block: usize, size: usize) -> bool {
    for distance in 0..REACH {
        let at = place(block, distance);
        let known = BLOCKS[at].load(Ordering::Relaxed);
        if known > GONE {
            continue;
        }
        let taken = BLOCKS[at].compare_exchange(known, block, Ordering::AcqRel, Ordering::Relaxed);
        if taken.is_ok() {
            SIZES[at].store(size, Ordering::Release);
            count(block, |count| count + 1);
            return true;
        }
    }
    false
}

/// Takes a block out; its size, if it was there.
pub fn remove(block: usize) -> Option<usize> {
    for distance in 0..REACH {
        let at = place(block, distance);
        let known = BLOCKS[at].load(Ordering::Acquire);
        if known == 0 {
            return None;
        }
        if known == block {
            let size = SIZES[at].load(Ordering::Acquire);
            let taken =
                BLOCKS[at].compare_exchange(block, GONE, Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_err() {
                return None;
            }
            count(block, |count| count - 1);
            return Some(size);
        }
    }
    None
}

fn count(block: usize, change: fn(u8) -> u8) {
    let counter = &FILTER[counter(block)];
    let change = |count| (count != STUCK).then(|| change(count));
    // One that is stuck stays so.
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_until_they_are_removed() {
        let blocks = (1..5000).map(|number| 0x7f12_3456_0000 + number * 16 * (1 + number % 7));
        let blocks: std::collections::BTreeSet<usize> = blocks.collect();
        for _ in 0..3 {
            for block in &blocks {
                assert!(insert(*block, *block % 1000));
            }
            for block in &blocks {
                assert!(may_have(*block));
                assert_eq!(remove(*block), Some(*block % 1000));
                assert_eq!(remove(*block), None);
            }
        }
        assert!(!may_have(0x7f12_3456_0010));
        suspect(0x1000);
        assert!(may_have(0x1000));
    }
}
