//! How old live blocks are: the same histogram as that of the lifetimes of freed ones, so
//! that both together tell how long a site's blocks live.

use tracer_ebpf::lifetime;
use tracer_ebpf::limits::LIFETIME_BUCKETS;

/// Live blocks by age; see [`lifetime::bucket`]. Of samples: the blocks that they stand for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LiveAges([f64; LIFETIME_BUCKETS]);

impl Default for LiveAges {
    fn default() -> Self {
        Self([0.0; LIFETIME_BUCKETS])
    }
}

impl LiveAges {
    /// Adds blocks of an age in nanoseconds.
    pub fn add(&mut self, age: u64, blocks: f64) {
        self.0[lifetime::bucket(age)] += blocks;
    }

    /// Adds other blocks.
    pub fn merge(&mut self, other: &Self) {
        for (sum, blocks) in self.0.iter_mut().zip(other.0) {
            *sum += blocks;
        }
    }

    /// The blocks of each bucket, rounded.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of blocks"
    )]
    pub fn counts(&self) -> [u64; LIFETIME_BUCKETS] {
        self.0.map(|blocks| blocks.round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_by_age() {
        let mut ages = LiveAges::default();
        ages.add(1, 2.0);
        let mut others = LiveAges::default();
        others.add(1500, 1.4);
        others.add(u64::MAX, 1.0);
        ages.merge(&others);
        let counts = ages.counts();
        assert_eq!(
            (counts[0], counts[1], counts[LIFETIME_BUCKETS - 1]),
            (2, 1, 1)
        );
        assert_eq!(counts.iter().sum::<u64>(), 4);
    }
}
