//! What was live of a behaviour, by its own account, and whether its label agrees.

use anyhow::{Result, ensure};

use crate::bench::model::Verdict;

/// What grows has more at the end than it ever had in the first half, by this part.
const GREW: f64 = 1.03;
/// What does not grow has no more than this in the last half, in the mean and in times of the
/// most in the first. Two peaks do not compare: of few blocks that come by chance one is
/// often half as high again as the other.
const LEVEL: f64 = 1.25;
/// What leaks has nearly all at the end that it ever had.
const KEPT: f64 = 0.8;
/// The rate of a label is true within this factor, at any time: of what comes in few bursts
/// there are more or fewer by chance.
const RATE: f64 = 2.5;

/// Live bytes over time, by the program's own lines.
#[derive(Debug, Default)]
pub(super) struct Live(Vec<(f64, f64)>);

impl Live {
    /// Of what is judged, in the order of time: lines `live SECONDS JUDGED BYTES`, seconds
    /// since 1970.
    pub(super) fn of(lines: &[String], judged: &str) -> Self {
        let parsed = |line: &String| {
            let (time, rest) = line.strip_prefix("live ")?.split_once(' ')?;
            let (who, bytes) = rest.rsplit_once(' ')?;
            (who == judged).then_some((time.parse().ok()?, bytes.parse().ok()?))
        };
        Self(lines.iter().filter_map(parsed).collect())
    }

    /// The most between two moments.
    fn peak(&self, from: f64, to: f64) -> f64 {
        let points = self.0.iter().filter(|(at, _)| (from..to).contains(at));
        points.map(|(_, bytes)| *bytes).fold(0.0, f64::max)
    }

    /// The mean of what was told between two moments; nothing if nothing was.
    fn mean(&self, from: f64, to: f64) -> f64 {
        let points = self.0.iter().filter(|(at, _)| (from..to).contains(at));
        let (count, sum) = points.fold((0u32, 0.0), |(n, sum), (_, bytes)| (n + 1, sum + bytes));
        sum / f64::from(count.max(1))
    }

    fn at(&self, moment: f64) -> Option<f64> {
        let before = self.0.iter().rfind(|(at, _)| *at <= moment);
        before.map(|(_, bytes)| *bytes)
    }

    /// How fast it grew in all, bytes a second.
    pub(super) fn rate(&self, began: f64, seconds: f64) -> f64 {
        self.at(began + seconds).unwrap_or(0.0) / seconds
    }

    /// Fails if it is not what a label says of it, `seconds` after the run began.
    ///
    /// # Errors
    /// Says what was true.
    pub(super) fn check(
        &self,
        class: Verdict,
        rate: Option<f64>,
        began: f64,
        seconds: f64,
    ) -> Result<()> {
        let (middle, end) = (began + seconds / 2.0, began + seconds);
        let late = self.0.last().is_some_and(|(at, _)| *at >= end - 5.0);
        ensure!(late, "it told of nothing in the last seconds");
        let before = self.peak(f64::MIN, middle);
        let after = self.peak(middle, end);
        let last = self.at(end).unwrap_or(0.0);
        if !class.grows() {
            let mean = self.mean(middle, end);
            ensure!(
                mean <= LEVEL * before,
                "it is said to be {class:?}, and had {before:.0} bytes at most in the first \
                 half of {seconds:.0} s and {mean:.0} in the mean of the last"
            );
            return Ok(());
        }
        ensure!(
            last > GREW * before && last >= KEPT * after,
            "it is said to be {class:?}, and had {before:.0} bytes at most in the first half \
             of {seconds:.0} s, {after:.0} in the last, and {last:.0} at the end"
        );
        if let Some(rate) = rate.filter(|_| class == Verdict::Leak) {
            let is = self.rate(began, seconds);
            ensure!(
                (rate / RATE..rate * RATE).contains(&is),
                "it is said to leak {rate:.0} bytes/s, and leaked {is:.0}"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(value: impl Fn(u32) -> u32) -> Live {
        let lines = (1..=30).map(|at| format!("live {}.5 some::path( {}", 100 + at, value(at)));
        let lines: Vec<String> = lines.chain(["live 101.0 other 9".into()]).collect();
        Live::of(&lines, "some::path(")
    }

    fn is(live: &Live, class: Verdict, rate: Option<f64>) -> bool {
        live.check(class, rate, 101.0, 30.0).is_ok()
    }

    #[test]
    fn a_wrong_label_is_found() {
        let leak = live(|at| at * 100);
        assert!(is(&leak, Verdict::Leak, Some(100.0)) && is(&leak, Verdict::Growing, None));
        assert!(!is(&leak, Verdict::Leak, Some(300.0)));
        assert!(!is(&leak, Verdict::Plateau, None));
        let full = live(|at| at.min(10) * 100);
        assert!(is(&full, Verdict::Plateau, None) && !is(&full, Verdict::Leak, Some(33.0)));
        let chance = live(|at| if at == 20 { 160 } else { 50 + at % 6 * 10 });
        assert!(is(&chance, Verdict::Churn, None));
        let teeth = live(|at| at % 8 * 100);
        assert!(is(&teeth, Verdict::Batch, None) && !is(&teeth, Verdict::Growing, None));
        // One that says nothing is nothing.
        assert!(!is(&Live::default(), Verdict::Plateau, None));
    }
}
