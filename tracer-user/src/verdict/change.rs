//! When growth began, if it was not there from the start.
//!
//! The sum of the deviations of what was gained until each look from what steady growth
//! would have gained by then (a CUSUM: E. S. Page, "Continuous inspection schemes",
//! Biometrika 41, 1954) is largest where growth begins. If gains between looks were
//! independent, that sum would be a Brownian bridge, whose largest value has Kolmogorov's
//! distribution.

use super::curve::Curve;

/// Steady growth deviates so much by chance in one case of a hundred.
const NO_CHANCE: f64 = 1.63;
/// Growth before is none below this part of what it is after.
const NONE: f64 = 0.2;
/// With less looks than these on either side nothing is said.
const LOOKS: usize = 4;

/// When growth began, seconds from the run's start; `None` if it was there all the time
/// since `first`, or as far as can be told.
pub fn began(curve: &Curve, first: f64) -> Option<f64> {
    let points = curve.since(first);
    let ((start, low), (end, high)) = (*points.first()?, *points.last()?);
    let mean = (high - low) / (end - start);
    if !mean.is_finite() || mean <= 0.0 {
        return None;
    }
    let lags = points
        .iter()
        .map(|(at, value)| mean * (at - start) - (value - low));
    let (change, lag) = lags
        .enumerate()
        .max_by(|one, other| one.1.total_cmp(&other.1))?;
    let (before, after) = (&points[..=change], &points[change..]);
    if before.len() <= LOOKS || after.len() <= LOOKS {
        return None;
    }
    let chance = NO_CHANCE * (squares(before) + squares(after)).sqrt();
    (lag > chance && slope(before) < NONE * slope(after)).then(|| points[change].0)
}

/// By how much it grew a second, from the first point to the last.
fn slope(points: &[(f64, f64)]) -> f64 {
    let (first, last) = (points[0], points[points.len() - 1]);
    (last.1 - first.1) / (last.0 - first.0)
}

/// The squares of what steps between looks have beyond that slope, together.
fn squares(points: &[(f64, f64)]) -> f64 {
    let slope = slope(points);
    let steps = points.windows(2).map(|pair| {
        let (one, other) = (pair[0], pair[1]);
        other.1 - one.1 - slope * (other.0 - one.0)
    });
    steps.map(|step| step * step).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a second apart, for 20 s; `gain` for each step.
    fn curve(mut gain: impl FnMut(f64) -> f64) -> Curve {
        let mut sum = 0.0;
        let points = (0..=40).map(|tick| {
            let at = f64::from(tick) * 0.5;
            sum += gain(at);
            (at, sum)
        });
        Curve::new(points.collect())
    }

    #[test]
    fn what_begins_late_is_told_when() {
        let late = |at| if at > 9.0 { 10.0 } else { 0.0 };
        assert_eq!(began(&curve(late), 0.0), Some(9.0));
        let mut rng = fastrand::Rng::with_seed(7);
        let noisy = curve(|at| late(at) * 2.0 * rng.f64());
        let at = began(&noisy, 0.0);
        assert!(at.is_some_and(|at| (8.0..=10.5).contains(&at)), "{at:?}");
    }

    #[test]
    fn what_grows_all_the_time_did_not_begin() {
        assert_eq!(began(&curve(|_| 10.0), 0.0), None);
        assert_eq!(began(&curve(|_| 0.0), 0.0), None);
        assert_eq!(began(&Curve::default(), 0.0), None);
        // Slower before is not none.
        let slower = |at| if at > 9.0 { 10.0 } else { 4.0 };
        assert_eq!(began(&curve(slower), 0.0), None);
    }

    #[test]
    fn chance_is_no_beginning() {
        let told = (0..500).filter(|seed| {
            let mut rng = fastrand::Rng::with_seed(*seed);
            let gain = |_| if rng.f64() < 0.3 { 1.0 } else { 0.0 };
            began(&curve(gain), 0.0).is_some()
        });
        let told = told.count();
        assert!(told <= 10, "{told}");
    }
}
