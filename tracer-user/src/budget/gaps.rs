//! How long there is nothing between two bursts.

/// The shortest gap, seconds: the kernel needs about as long to take probes away.
const SHORTEST: f64 = 0.06;
/// The shortest is this part of the mean, if that is less.
const SPAN: f64 = 20.0;

/// Gaps between bursts: random, and as likely between one and two seconds as between a
/// tenth and two tenths. So pairs of bursts are as far apart as blocks live, however long
/// that is, and no period of the program falls in step with them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gaps {
    shortest: f64,
    longest: f64,
}

impl Gaps {
    /// With this mean, seconds.
    pub fn of_mean(mean: f64) -> Self {
        let mean = mean.max(SHORTEST * 1.5);
        let shortest = SHORTEST.min(mean / SPAN).max(SHORTEST / 2.0);
        // The mean of a log-uniform distribution grows with its upper end.
        let (mut low, mut high) = (mean, mean * 100.0);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            let of_middle = (middle - shortest) / (middle / shortest).ln();
            match of_middle < mean {
                true => low = middle,
                false => high = middle,
            }
        }
        Self {
            shortest,
            longest: low,
        }
    }

    /// The one for a number from 0 to 1, seconds.
    pub fn draw(&self, random: f64) -> f64 {
        self.shortest * (self.longest / self.shortest).powf(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_as_asked_and_each_octave_as_likely() {
        for mean in [0.1, 1.0, 3.0, 60.0] {
            let gaps = Gaps::of_mean(mean);
            let draws: Vec<f64> = (0..10_000)
                .map(|step| gaps.draw((f64::from(step) + 0.5) / 10_000.0))
                .collect();
            let found = draws.iter().sum::<f64>() / 10_000.0;
            assert!((found / mean - 1.0).abs() < 0.01, "{mean}: {found}");
            let within = |low: f64| {
                let found = draws.iter().filter(|gap| (low..2.0 * low).contains(*gap));
                found.count()
            };
            let (short, long) = (within(gaps.shortest * 1.01), within(gaps.longest / 2.02));
            assert!(short.abs_diff(long) < 100, "{mean}: {short} {long}");
        }
    }
}
