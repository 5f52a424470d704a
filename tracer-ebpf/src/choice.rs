//! Comparisons without branches, whose ways the verifier would follow one by one.

#![expect(clippy::cast_possible_truncation, reason = "usize has 64 bits here")]

use crate::volatile::opaque;

/// 1 for a number that is not 0.
#[inline(always)]
pub fn is_not_zero(number: u64) -> u64 {
    // Hidden from the compiler, which would make a branch of it.
    let number = opaque(number as usize) as u64;
    opaque((number | number.wrapping_neg()) as usize) as u64 >> 63
}

/// 1 if both are equal.
#[inline(always)]
pub fn is_equal(one: u64, other: u64) -> u64 {
    is_not_zero(one ^ other) ^ 1
}

/// `one` if `which` is 1, `other` if it is 0.
#[inline(always)]
pub const fn either(which: u64, one: u64, other: u64) -> u64 {
    other ^ ((one ^ other) & which.wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared() {
        for number in [1, 2, 1 << 40, u64::MAX] {
            assert_eq!((is_not_zero(number), is_equal(number, number)), (1, 1));
            assert_eq!(is_equal(number, number ^ 1), 0);
        }
        assert_eq!(is_not_zero(0), 0);
        assert_eq!((either(1, 3, 9), either(0, 3, 9)), (3, 9));
    }
}
