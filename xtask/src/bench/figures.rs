//! Medians, which one disturbed measurement does not move.

/// The median; of an even number of figures the upper one. NaN of none.
pub(super) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of what two figures of the same round make together.
pub(super) fn median_of(own: &[f64], other: &[f64], make: impl Fn(f64, f64) -> f64) -> f64 {
    median(own.iter().zip(other).map(|(a, b)| make(*a, *b)).collect())
}

/// The least and the most.
pub(super) fn extremes(figures: &[f64]) -> (f64, f64) {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_compared_with_themselves() {
        let (own, other) = ([30.0, 1030.0, 32.0], [20.0, 1000.0, 21.0]);
        assert_eq!(median(own.to_vec()).to_bits(), 32.0f64.to_bits());
        let difference = median_of(&own, &other, |a, b| a - b);
        assert_eq!(difference.to_bits(), 11.0f64.to_bits());
        assert!(median(Vec::new()).is_nan());
        assert_eq!(extremes(&own), (30.0, 1030.0));
    }
}
