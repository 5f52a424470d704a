//! How many tests passed, failed and were skipped.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

/// Counts of tests. A test that its harness ignores is skipped; one that the
/// name filter leaves out is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// What a line of a test run's output counts: something for the closing line
    /// of libtest, nothing for all others.
    pub(crate) fn of_line(line: &str) -> Self {
        line.strip_prefix("test result: ")
            .map(Self::of_libtest)
            .unwrap_or_default()
    }

    /// `ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; …`
    fn of_libtest(counts: &str) -> Self {
        let counts = counts.split_once(". ").map_or(counts, |(_, counts)| counts);
        let count = |name: &str| number_of(counts, name);
        Self {
            passed: count("passed"),
            failed: count("failed"),
            skipped: count("ignored"),
        }
    }

    /// How many tests ran.
    pub(crate) fn ran(self) -> u64 {
        self.passed + self.failed
    }

    /// Whether nothing failed and nothing was skipped.
    pub(crate) fn is_good(self) -> bool {
        self.failed == 0 && self.skipped == 0
    }
}

/// The number before a name in a list such as `5 passed; 0 failed`.
fn number_of(list: &str, name: &str) -> u64 {
    list.split("; ")
        .filter_map(|item| item.trim().split_once(' '))
        .filter(|(_, rest)| *rest == name)
        .filter_map(|(number, _)| number.parse::<u64>().ok())
        .sum()
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl Sub for Tally {
    type Output = Self;

    /// Without what the other counts, which is a part of this.
    fn sub(self, other: Self) -> Self {
        Self {
            passed: self.passed.saturating_sub(other.passed),
            failed: self.failed.saturating_sub(other.failed),
            skipped: self.skipped.saturating_sub(other.skipped),
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u64, failed: u64, skipped: u64) -> Tally {
        Tally {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn libtest() {
        let line = "test result: ok. 14 passed; 0 failed; 2 ignored; 0 measured; 3 filtered out; \
                    finished in 0.00s";
        assert_eq!(Tally::of_line(line), tally(14, 0, 2));
        let line = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Tally::of_line(line), tally(1, 2, 0));
        assert_eq!(
            Tally::of_line("test counts::test_result ... ok"),
            tally(0, 0, 0)
        );
    }

    #[test]
    fn the_closing_line() {
        let sum = tally(14, 0, 0) + tally(3, 1, 2);
        assert_eq!(sum.to_string(), "17 passed, 1 failed, 2 skipped");
        assert!(!sum.is_good() && tally(1, 0, 0).is_good() && !tally(1, 0, 1).is_good());
    }
}
