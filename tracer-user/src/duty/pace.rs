//! How fast targets are while they are traced: the part of their time that is not taken by
//! tracing, of the last bursts together. What tracing takes is hits times what one costs,
//! which is known to a tenth or so ([`super::Schedule::scale_error`]).

/// How much of what was known is kept at each burst.
const KEPT: f64 = 0.95;
/// A part of a burst.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Part {
    /// Processor time of the targets, seconds.
    pub used: f64,
    /// What of it tracing took by calibration, seconds.
    pub lost: f64,
}

impl Part {
    fn add(&mut self, other: &Self) {
        self.used = self.used * KEPT + other.used;
        self.lost = self.lost * KEPT + other.lost;
    }

    /// The part of its time that is the targets' own.
    fn own(&self) -> f64 {
        if self.used <= 0.0 {
            return 1.0;
        }
        (1.0 - self.lost / self.used).max(LEAST)
    }
}

/// A target is not believed to be slower while it is traced.
const LEAST: f64 = 0.01;

/// The bursts of late.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    all: Part,
    frees: Part,
}

/// How fast targets are in the two parts of a burst: 1 as without being traced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speeds {
    /// While all is followed.
    pub all: f64,
    /// While frees are.
    pub frees: f64,
}

impl Pace {
    /// Adds a burst's two parts.
    pub fn add(&mut self, all: &Part, frees: &Part) {
        self.all.add(all);
        self.frees.add(frees);
    }

    /// The speeds of late.
    pub fn speeds(&self) -> Speeds {
        Speeds {
            all: self.all.own(),
            frees: self.frees.own(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_those_of_the_last_bursts_together() {
        let part = |used, lost| Part { used, lost };
        let mut pace = Pace::default();
        assert_eq!(pace.speeds().all, 1.0);
        for _ in 0..50 {
            pace.add(&part(0.010, 0.009), &part(0.005, 0.002));
            pace.add(&part(0.010, 0.007), &part(0.005, 0.002));
        }
        let speeds = pace.speeds();
        assert!((speeds.all - 0.2).abs() < 0.01, "{speeds:?}");
        assert!((speeds.frees - 0.6).abs() < 1e-9, "{speeds:?}");
        // One that tracing takes all of is not believed.
        pace = Pace::default();
        pace.add(&part(0.010, 0.012), &part(0.0, 0.0));
        assert_eq!((pace.speeds().all, pace.speeds().frees), (LEAST, 1.0));
    }
}
