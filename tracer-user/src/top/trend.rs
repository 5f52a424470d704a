//! A curve in one line.

use super::history::Point;

/// From the least to the most.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What was live over time, in so many letters: each is the last that was known at its moment,
/// and the highest bar is the most there was. A curve that does not change is flat.
pub fn trend(points: &[Point], width: usize) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return " ".repeat(width);
    };
    let least = points.iter().map(|it| it.1).min().unwrap_or(0);
    let most = points.iter().map(|it| it.1).max().unwrap_or(0);
    let span = last.0 - first.0;
    let letter = |cell: usize| {
        let part = (cell + 1) as f64 / width as f64;
        // The last one is exact, however it is rounded.
        let at = match cell + 1 == width {
            true => last.0,
            false => first.0 + span * part,
        };
        let known = points.partition_point(|point| point.0 <= at);
        let value = points[known.saturating_sub(1)].1;
        BARS[height(value - least, most - least)]
    };
    (0..width).map(letter).collect()
}

/// Which bar: the lowest for nothing, the highest for all.
fn height(part: u64, whole: u64) -> usize {
    let steps = BARS.len() as u128 - 1;
    let height = (u128::from(part) * steps).checked_div(u128::from(whole));
    height.and_then(|it| usize::try_from(it).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_as_wide_as_it_may_be() {
        let grows: Vec<Point> = (0..8_u32)
            .map(|at| (f64::from(at), u64::from(at) * 100))
            .collect();
        assert_eq!(trend(&grows, 8), "▁▂▃▄▅▆▇█");
        assert_eq!(trend(&grows, 4).chars().last(), Some('█'));
        assert_eq!(trend(&[(0.0, 7), (1.0, 7)], 3), "▁▁▁");
        assert_eq!(trend(&[(2.0, u64::MAX)], 2), "▁▁");
        assert_eq!(trend(&[(0.0, u64::MAX), (1.0, 0)], 2), "█▁");
        assert_eq!(trend(&[], 2), "  ");
        assert_eq!(trend(&grows, 0), "");
    }
}
