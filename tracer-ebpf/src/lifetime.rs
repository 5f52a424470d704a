//! The histogram of lifetimes: powers of two of nanoseconds.

use crate::limits::LIFETIME_BUCKETS;

/// log2 of the first bucket's upper bound in nanoseconds (1,024 ns).
pub const FIRST_BUCKET_LOG2: u32 = 10;

/// The bucket that a lifetime falls into. Bucket `i` holds lifetimes below
/// `2^(10 + i)` ns and not below the bucket before; the last one is open.
///
/// BPF has no instruction that counts leading zeros; halving the range five
/// times is shorter than what the compiler makes of one.
#[inline(always)]
pub const fn bucket(nanoseconds: u64) -> usize {
    let mut rest = nanoseconds >> FIRST_BUCKET_LOG2;
    if rest >= 1 << (LIFETIME_BUCKETS - 2) {
        return LIFETIME_BUCKETS - 1;
    }
    let mut bits = 0;
    let mut step = 32;
    while step > 0 {
        if rest >> step != 0 {
            rest >>= step;
            bits += step;
        }
        step >>= 1;
    }
    if rest != 0 { bits + 1 } else { 0 }
}

/// The upper bound of a bucket in nanoseconds; `None` for the open one.
pub const fn upper_bound(bucket: usize) -> Option<u64> {
    if bucket + 1 < LIFETIME_BUCKETS {
        Some(1 << (FIRST_BUCKET_LOG2 as usize + bucket))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_below_its_bound_and_not_below_the_one_before() {
        for shift in 0..63 {
            for nanoseconds in [(1u64 << shift) - 1, 1 << shift, (1 << shift) + 1] {
                let at = bucket(nanoseconds);
                assert!(
                    upper_bound(at).is_none_or(|bound| nanoseconds < bound),
                    "{nanoseconds}"
                );
                assert!(at == 0 || upper_bound(at - 1).is_some_and(|b| nanoseconds >= b));
            }
        }
        assert_eq!(bucket(u64::MAX), LIFETIME_BUCKETS - 1);
    }
}
