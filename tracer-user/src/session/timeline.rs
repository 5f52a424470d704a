//! The totals of a run at each interval, within bounds: a run of a day has as many
//! as one of an hour, further apart.

use crate::model::TimelinePoint;

/// Points are kept until there are so many; then every second goes.
const MAX_POINTS: usize = 1024;

/// The totals at intervals, oldest first.
pub struct Timeline {
    points: Vec<TimelinePoint>,
    /// Of so many intervals one is kept.
    stride: u64,
    /// Intervals until now.
    marks: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            points: Vec::new(),
            stride: 1,
            marks: 0,
        }
    }
}

impl Timeline {
    /// Enters the totals of an interval's end. The `last` one is always kept.
    pub fn mark(&mut self, point: TimelinePoint, last: bool) {
        let is_due = self.marks.is_multiple_of(self.stride);
        self.marks += 1;
        if !is_due && !last {
            return;
        }
        if self.points.len() >= MAX_POINTS {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride *= 2;
        }
        self.points.push(point);
    }

    /// The points.
    pub fn points(&self) -> &[TimelinePoint] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Totals;

    #[test]
    fn a_long_run_has_no_more_points_than_a_short_one() {
        let mut timeline = Timeline::default();
        let point = |at: u32| TimelinePoint {
            at: f64::from(at),
            totals: Totals::default(),
        };
        for at in 0..100_000 {
            timeline.mark(point(at), false);
        }
        timeline.mark(point(100_000), true);
        let points = timeline.points();
        assert!(points.len() <= MAX_POINTS && points.len() > MAX_POINTS / 2);
        assert_eq!(
            (points[0].at, points[points.len() - 1].at),
            (0.0, 100_000.0)
        );
        let steps: Vec<_> = points.windows(2).map(|two| two[1].at - two[0].at).collect();
        // All but the last are equal.
        assert!(
            steps[..steps.len() - 1]
                .iter()
                .all(|step| *step == steps[0]),
            "{steps:?}"
        );
    }
}
