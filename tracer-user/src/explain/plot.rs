//! A curve as bars of letters.

/// Letters of a bar's top, by eighths.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Eighths of a line.
const LINE: usize = 8;

/// The bars of a curve as lines from the top, `width` letters wide and `height` lines high:
/// each letter stands for a part of the time until `end` and has the value of that part's
/// end. `points` are times and values, ascending; before the first one the value is 0, and
/// after each it stays until the next.
pub fn bars(points: &[(f64, f64)], end: f64, width: usize, height: usize) -> Vec<String> {
    let peak = peak(points);
    let value = |column: usize| {
        let until = end * (column + 1) as f64 / width as f64;
        let reached = points.partition_point(|(at, _)| *at <= until);
        reached.checked_sub(1).map_or(0.0, |last| points[last].1)
    };
    let levels: Vec<usize> = (0..width)
        .map(|column| eighths(value(column), peak, height * LINE))
        .collect();
    let line = |from_top: usize| {
        let below = (height - 1 - from_top) * LINE;
        let letter = |level: &usize| EIGHTHS[level.saturating_sub(below).min(LINE)];
        levels.iter().map(letter).collect()
    };
    (0..height).map(line).collect()
}

/// The largest value.
pub fn peak(points: &[(f64, f64)]) -> f64 {
    points.iter().map(|point| point.1).fold(0.0, f64::max)
}

/// How many of `all` eighths a value takes: one at least, if it is not zero.
fn eighths(value: f64, peak: f64, all: usize) -> usize {
    if value <= 0.0 || peak <= 0.0 {
        return 0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a small number"
    )]
    let eighths = (value / peak * all as f64).round() as usize;
    eighths.clamp(1, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_rises_and_what_is_gone_is_empty() {
        let points: Vec<_> = (0..=8).map(|at| (f64::from(at), f64::from(at))).collect();
        assert_eq!(bars(&points, 8.0, 8, 1), ["▁▂▃▄▅▆▇█"]);
        assert_eq!(bars(&points, 8.0, 8, 2), ["    ▂▄▆█", "▂▄▆█████"]);
        let freed = [(1.0, 10.0), (3.0, 0.0)];
        assert_eq!(bars(&freed, 4.0, 4, 1), ["██  "]);
        // What is late is empty before, and little is not nothing.
        let late = [(3.0, 0.001), (4.0, 1.0)];
        assert_eq!(bars(&late, 4.0, 4, 1), ["  ▁█"]);
        assert_eq!(bars(&[], 4.0, 3, 1), ["   "]);
    }
}
