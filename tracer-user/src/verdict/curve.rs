//! The shape of what is live over time.

use crate::model::CurvePoint;

/// What is live at times, ascending, of one site or of several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// Seconds from the run's start, and bytes or blocks.
    points: Vec<(f64, f64)>,
}

/// A change of what is live below this part of its height is none.
const FLAT: f64 = 0.05;
/// A rise of this part of the peak is one of the last of what fills up, and no burst.
const SMALL: f64 = 0.01;

impl Curve {
    /// The bytes of a site, or the blocks of one that has no bytes.
    pub fn of(points: &[CurvePoint], has_bytes: bool) -> Self {
        let value = |point: &CurvePoint| match has_bytes {
            true => point.live_bytes as f64,
            false => point.live_count as f64,
        };
        let points = points.iter().map(|point| (point.at, value(point)));
        Self::new(points.collect())
    }

    /// These points.
    pub const fn new(points: Vec<(f64, f64)>) -> Self {
        Self { points }
    }

    /// Whether there are enough points to tell a shape.
    pub fn tells(&self) -> bool {
        self.points.len() >= 6
    }

    /// The same until a time.
    #[must_use]
    pub fn before(&self, time: f64) -> Self {
        let until = self.points.partition_point(|point| point.0 < time);
        Self::new(self.points[..until].to_vec())
    }

    /// The points from the last one before a time on: when, and bytes or blocks.
    pub fn since(&self, time: f64) -> &[(f64, f64)] {
        let from = self.points.partition_point(|point| point.0 < time);
        &self.points[from.saturating_sub(1)..]
    }

    fn last(&self) -> f64 {
        self.points.last().map_or(0.0, |point| point.1)
    }

    /// The most that was live.
    pub fn peak(&self) -> f64 {
        self.points.iter().map(|point| point.1).fold(0.0, f64::max)
    }

    /// What was live at a time: at the last point before it.
    pub fn at(&self, time: f64) -> f64 {
        let before = self.points.iter().rfind(|point| point.0 <= time);
        before.map_or(0.0, |point| point.1)
    }

    /// The largest fall from a peak before it, as a part of the whole peak.
    pub fn fall(&self) -> f64 {
        let (mut peak, mut fall) = (0.0, 0.0_f64);
        for (_, value) in &self.points {
            peak = f64::max(peak, *value);
            fall = fall.max(peak - value);
        }
        match self.peak() {
            peak if peak > 0.0 => fall / peak,
            _ => 0.0,
        }
    }

    /// How often it rose, between two points.
    pub fn rises(&self) -> usize {
        let pairs = self.points.windows(2);
        pairs.filter(|pair| pair[1].1 > pair[0].1).count()
    }

    /// In how many lots it came: rises at looks one after the other are one.
    pub fn lots(&self) -> usize {
        let mut rose = false;
        let mut lots = 0;
        for pair in self.points.windows(2) {
            let rises = pair[1].1 > pair[0].1;
            lots += usize::from(rises && !rose);
            rose = rises;
        }
        lots
    }

    /// What was left after each fall that is no small one, in order.
    pub fn floors(&self) -> Vec<f64> {
        let small = FLAT * self.peak();
        let mut floors = Vec::new();
        let mut falling: Option<f64> = None;
        for pair in self.points.windows(2) {
            let (before, after) = (pair[0].1, pair[1].1);
            falling = match falling {
                Some(top) if after <= before => Some(top),
                Some(top) => {
                    if top - before > small {
                        floors.push(before);
                    }
                    None
                }
                None => (after < before).then_some(before),
            };
        }
        floors
    }

    /// When it first came close to what is live at the end; from then on it grew no more.
    pub fn full_at(&self) -> f64 {
        let close = self.last() * (1.0 - FLAT);
        let below = self.points.iter().rposition(|point| point.1 < close);
        let first = below.map_or(0, |at| at + 1);
        self.points.get(first).map_or(0.0, |point| point.0)
    }

    /// When it rose last; the start if it never did.
    pub fn rose_at(&self) -> f64 {
        let mut pairs = self.points.windows(2).rev();
        let start = self.points.first().map_or(0.0, |point| point.0);
        let last = pairs.find(|pair| pair[1].1 > pair[0].1);
        last.map_or(start, |pair| pair[1].0)
    }

    /// The longest time without a rise before the last one, and the time since that,
    /// seconds. What is small beside the peak is no rise.
    pub fn rests(&self) -> (f64, f64) {
        let small = SMALL * self.peak();
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return (0.0, 0.0);
        };
        let (mut risen, mut longest) = (first.0, 0.0_f64);
        for pair in self.points.windows(2) {
            if pair[1].1 - pair[0].1 > small {
                longest = longest.max(pair[0].0 - risen);
                risen = pair[1].0;
            }
        }
        (longest, last.0 - risen)
    }

    /// What was live at a time, and at the last point.
    pub fn ends(&self, since: f64) -> Option<(f64, f64)> {
        let points = self.since(since);
        Some((points.first()?.1, points.last()?.1))
    }

    /// The least and the most that was live at points from a time on.
    pub fn range(&self, since: f64) -> Option<(f64, f64)> {
        let from = self.points.partition_point(|point| point.0 < since);
        let values = self.points[from..].iter().map(|point| point.1);
        let least = values.clone().reduce(f64::min)?;
        Some((least, values.reduce(f64::max)?))
    }

    /// By how much it grew in the first and in the last half of the time since `since`, and
    /// the standard deviation that what it grew in all would have if growth between looks
    /// were independent and as fast all the time.
    pub fn halves(&self, since: f64) -> (f64, f64, f64) {
        let points = self.since(since);
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return (0.0, 0.0, 0.0);
        };
        let (time, grown) = (last.0 - first.0, last.1 - first.1);
        if time <= 0.0 {
            return (0.0, 0.0, 0.0);
        }
        let beyond = |pair: &[(f64, f64)]| {
            let expected = grown * (pair[1].0 - pair[0].0) / time;
            (pair[1].1 - pair[0].1 - expected).powi(2)
        };
        let squares: f64 = points.windows(2).map(beyond).sum();
        let middle = between(points, first.0 + time / 2.0);
        (middle - first.1, last.1 - middle, squares.sqrt())
    }

    /// The median of the slopes between all pairs of points from `since` on, a second
    /// (P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau",
    /// J. Am. Stat. Assoc. 63, 1968): single jumps do not move it.
    pub fn slope(&self, since: f64) -> f64 {
        let from = self.points.partition_point(|point| point.0 < since);
        let points = &self.points[from..];
        let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
        for (index, one) in points.iter().enumerate() {
            for other in &points[index + 1..] {
                let time = other.0 - one.0;
                if time > 0.0 {
                    slopes.push((other.1 - one.1) / time);
                }
            }
        }
        median(&mut slopes)
    }
}

/// What was live at a time, if it changed evenly between two points.
fn between(points: &[(f64, f64)], time: f64) -> f64 {
    let after = points.partition_point(|point| point.0 < time);
    match (after.checked_sub(1).map(|at| points[at]), points.get(after)) {
        (Some(before), Some(next)) => {
            let part = (time - before.0) / (next.0 - before.0);
            (next.1 - before.1).mul_add(part, before.1)
        }
        (Some(only), None) => only.1,
        (None, Some(only)) => only.1,
        (None, None) => 0.0,
    }
}

fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    let (_, value, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    *value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(value: impl Fn(f64) -> f64) -> Curve {
        let times = (0..=40).map(|tick| f64::from(tick) * 0.5);
        Curve::new(times.map(|at| (at, value(at))).collect())
    }

    fn close(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-6
    }

    #[test]
    fn a_line_has_its_slope_and_a_jump_none() {
        assert!(close(curve(|at| 3.0 * at).slope(5.0), 3.0));
        assert!(close(
            curve(|at| if at < 12.0 { 0.0 } else { 9.0 }).slope(0.0),
            0.0
        ));
        assert!(close(Curve::default().slope(0.0), 0.0));
    }

    #[test]
    fn what_is_full_grows_no_more() {
        let full = curve(|at| 100.0 * (at / 6.0).min(1.0));
        assert!(close(full.full_at(), 6.0) && close(full.rose_at(), 6.0));
        assert!(close(full.fall(), 0.0) && full.rises() == 12);
        let grows = curve(|at| at);
        assert!(close(grows.full_at(), 19.0) && close(grows.rose_at(), 20.0));
        assert!(close(grows.at(7.3), 7.0));
    }

    #[test]
    fn halves_are_compared_with_what_chance_does() {
        let (first, last, scatter) = curve(|at| at.min(10.0)).halves(0.0);
        assert!(close(first, 10.0) && close(last, 0.0), "{first} {last}");
        assert!(close(scatter, (40.0_f64 * 0.0625).sqrt()), "{scatter}");
        let (first, last, scatter) = curve(|at| 2.0 * at).halves(4.5);
        assert!(close(first, last) && close(scatter, 0.0));
        // Looks that are not evenly spaced say the same.
        let times = [0.0, 0.5, 3.0, 4.0, 9.0, 10.0];
        let (first, last, scatter) = Curve::new(times.map(|at| (at, 2.0 * at)).into()).halves(0.0);
        assert!(close(first, 10.0) && close(last, 10.0) && close(scatter, 0.0));
    }

    #[test]
    fn teeth_fall_and_bursts_rest() {
        let teeth = curve(|at| at % 4.0);
        assert!(close(teeth.fall(), 1.0));
        let bursts = curve(|at| (at / 5.0).floor());
        let (longest, last) = bursts.rests();
        assert!(close(longest, 4.5) && close(last, 0.0), "{longest} {last}");
        // The last keys of a table that is nearly full.
        let full = curve(|at| match at {
            ..6.0 => 50.0 * at,
            6.0..15.0 => 300.0,
            _ => 301.0,
        });
        assert!(close(full.rests().1, 14.0), "{:?}", full.rests());
        assert_eq!(bursts.rises(), 4);
    }
}
