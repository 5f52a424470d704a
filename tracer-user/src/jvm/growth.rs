//! Whether a class grows: from its counts in several histograms.
//!
//! A histogram without a collection counts garbage too, and garbage looks
//! like growth until it is collected. So those histograms are compared that
//! were taken right after a collection, of any kind: the *floors*. Some
//! garbage is in these too. How much a class can have, the histograms from
//! before the collections show: they fall to the floors.
//!
//! **The rule.** A class grows if every floor in the last third of the run is
//! above every floor in the first third, and by more than the class ever fell
//! from one histogram to the next. Bursts count, and so does a pause; a
//! saw-tooth and what only warms up do not. Fewer than seven floors are too few
//! to tell: among counts that are nothing but chance, this rule finds growth
//! in 1 of 100 with seven, in 1 of 1,000 with ten, and in 10 of 100 with four.
//!
//! **What it cannot tell.** Most collections clean only the young generation:
//! garbage that had become old counts as growth until the old generation is
//! collected, and a cache that still fills up grows like a leak.

use crate::model::GrowthVerdict;

/// Floors that are needed.
const MIN_FLOORS: usize = 7;

/// Whether a class grows, by its instances in each histogram and the indices
/// of the floors.
pub fn verdict(instances: &[u64], floors: &[usize]) -> GrowthVerdict {
    let counts: Vec<u64> = floors
        .iter()
        .filter_map(|&floor| instances.get(floor).copied())
        .collect();
    if counts.len() < MIN_FLOORS {
        return match (instances.first(), instances.last()) {
            (Some(first), Some(last)) if last > first => GrowthVerdict::Unknown,
            _ => GrowthVerdict::Steady,
        };
    }
    let third = counts.len().div_ceil(3);
    let most_before = counts.iter().take(third).max();
    let least_after = counts.iter().rev().take(third).min();
    let gained = least_after
        .copied()
        .unwrap_or(0)
        .saturating_sub(most_before.copied().unwrap_or(0));
    let falls = instances
        .windows(2)
        .map(|pair| pair[0].saturating_sub(pair[1]));
    if gained > falls.max().unwrap_or(0) {
        GrowthVerdict::Grows
    } else {
        GrowthVerdict::Steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(instances: &[u64]) -> GrowthVerdict {
        let floors: Vec<usize> = (0..instances.len()).collect();
        verdict(instances, &floors)
    }

    #[test]
    fn steady_growth_bursts_and_pauses_grow() {
        for series in [
            &[1, 2, 3, 4, 5, 6, 7][..],
            &[0, 0, 0, 100, 100, 200, 200, 200],
            &[10, 10, 10, 10, 11, 11, 11],
            &[0, 1000, 900, 2000, 1900, 3000, 2900, 4000],
        ] {
            assert_eq!(each(series), GrowthVerdict::Grows, "{series:?}");
        }
    }

    #[test]
    fn saw_teeth_warm_up_and_shrinking_do_not() {
        for series in [
            &[1, 9, 2, 8, 1, 9, 3, 9][..],
            &[0, 50, 50, 50, 50, 50, 50],
            &[9, 8, 7, 6, 5, 4, 3],
            &[5, 5, 5, 5, 5, 5, 5],
            &[0, 900, 0, 900, 0, 901, 0],
        ] {
            assert_eq!(each(series), GrowthVerdict::Steady, "{series:?}");
        }
    }

    #[test]
    fn garbage_is_not_growth_even_if_floors_drift() {
        // 1,000 at most before a collection, from 10 to 190 after it.
        let churn: Vec<u64> = (0..20)
            .map(|i| if i % 2 == 0 { 10 * i } else { 1000 })
            .collect();
        let floors: Vec<usize> = (0..20).step_by(2).collect();
        assert_eq!(verdict(&churn, &floors), GrowthVerdict::Steady);
        let leak: Vec<u64> = (0..20)
            .map(|i| 500 * i + if i % 2 == 0 { 0 } else { 1000 })
            .collect();
        assert_eq!(verdict(&leak, &floors), GrowthVerdict::Grows);
    }

    #[test]
    fn without_collections_growth_is_not_claimed() {
        assert_eq!(verdict(&[1, 2, 3, 4, 5, 6], &[3]), GrowthVerdict::Unknown);
        assert_eq!(each(&[1, 2, 3, 4, 5, 6]), GrowthVerdict::Unknown);
        assert_eq!(verdict(&[4, 4, 4], &[]), GrowthVerdict::Steady);
        assert_eq!(verdict(&[], &[]), GrowthVerdict::Steady);
    }
}
