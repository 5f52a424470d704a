//! How fast targets are while they are traced.
//!
//! What tracing takes is hits times what one costs, which is known from calibration, and
//! not better than by a tenth or so. Where tracing takes most of a burst, what the targets
//! get done is the small rest, and far less certain. But a burst has two parts in which a call costs
//! differently: all is followed first, and then frees alone. With w for what the targets
//! do from one call to the next, c for what tracing takes of a call, and t for both,
//!
//!   t₁ = w + k c₁,  t₂ = w + k c₂
//!
//! are two equations for w, and for k, by which calibration is wrong here.

/// How much of what was known is kept at each burst.
const KEPT: f64 = 0.95;
/// Calls in a part, and the difference between its costs and the other's, from which on
/// the equations are believed.
const CALLS: f64 = 500.0;
const DIFFERENCE: f64 = 0.2;
/// Calibration is not wrong by more than this.
const WRONG: f64 = 2.0;

/// How much processor time targets use, in a second, when they are not traced.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    used: f64,
    seconds: f64,
}

impl Load {
    /// Adds a time between two bursts.
    pub fn add(&mut self, used: f64, seconds: f64) {
        self.used = self.used * KEPT + used;
        self.seconds = self.seconds * KEPT + seconds;
    }

    /// What they use in a part of a burst of `seconds`, of which tracing takes `lost`: what
    /// they always do and that, but no more than the processors that they can have. (The
    /// kernel's own account is as of the last tick, which is too coarse for a burst.)
    pub fn used_in(&self, seconds: f64, lost: f64) -> f64 {
        if self.seconds <= 0.0 {
            return seconds;
        }
        let rate = self.used / self.seconds;
        let most = (rate - SOME).ceil().max(1.0);
        (rate * seconds + lost).min(most * seconds)
    }
}

/// Who uses so much more than some whole processors has no other one.
const SOME: f64 = 0.05;

/// A part of a burst.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Part {
    /// Processor time of the targets, seconds.
    pub used: f64,
    /// What of it tracing took by calibration, seconds.
    pub lost: f64,
    /// Calls that were stopped at their entry.
    pub calls: f64,
}

impl Part {
    fn add(&mut self, other: &Self) {
        self.used = self.used * KEPT + other.used;
        self.lost = self.lost * KEPT + other.lost;
        self.calls = self.calls * KEPT + other.calls;
    }

    /// The part of its time that is the targets' own, if calibration is wrong by `k`.
    fn own(&self, k: f64) -> f64 {
        if self.used <= 0.0 {
            return 1.0;
        }
        (1.0 - k * self.lost / self.used).max(LEAST)
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
    /// What costs by calibration are to be multiplied by.
    pub costs: f64,
}

impl Pace {
    /// Adds a burst's two parts.
    pub fn add(&mut self, all: &Part, frees: &Part) {
        self.all.add(all);
        self.frees.add(frees);
    }

    /// The speeds of late.
    pub fn speeds(&self) -> Speeds {
        let costs = self.wrong_by().unwrap_or(1.0);
        Speeds {
            all: self.all.own(costs),
            frees: self.frees.own(costs),
            costs,
        }
    }

    /// By how much calibration is wrong; `None` if too little was seen to tell.
    pub fn wrong_by(&self) -> Option<f64> {
        let (all, frees) = (&self.all, &self.frees);
        if all.calls < CALLS || frees.calls < CALLS {
            return None;
        }
        let cost = [all, frees].map(|part| part.lost / part.calls);
        let time = [all, frees].map(|part| part.used / part.calls);
        if cost[0] - cost[1] < DIFFERENCE * cost[0] {
            return None;
        }
        let found = (time[0] - time[1]) / (cost[0] - cost[1]);
        (1.0 / WRONG..WRONG).contains(&found).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(calls: f64, own: f64, cost: f64, k: f64) -> Part {
        Part {
            used: calls * (own + k * cost),
            lost: calls * cost,
            calls,
        }
    }

    #[test]
    fn a_wrong_calibration_shows_in_the_two_parts() {
        for k in [0.7, 1.0, 1.15] {
            let mut pace = Pace::default();
            for _ in 0..5 {
                pace.add(
                    &part(4000.0, 3e-7, 1.6e-6, k),
                    &part(3000.0, 3e-7, 0.7e-6, k),
                );
            }
            let speeds = pace.speeds();
            assert!((speeds.costs / k - 1.0).abs() < 1e-9, "{speeds:?}");
            let truth = 3e-7 / (3e-7 + k * 1.6e-6);
            assert!((speeds.all / truth - 1.0).abs() < 1e-9, "{speeds:?}");
        }
    }

    #[test]
    fn a_busy_target_has_no_more_processors_and_an_idle_one_has_room() {
        let mut load = Load::default();
        assert_eq!(load.used_in(0.01, 0.004), 0.01);
        load.add(0.99, 1.0);
        assert!((load.used_in(0.01, 0.008) - 0.01).abs() < 1e-9);
        load.add(0.2, 3.0);
        let rate = (0.99 * KEPT + 0.2) / (KEPT + 3.0);
        let found = load.used_in(0.01, 0.002);
        assert!((found - (0.01 * rate + 0.002)).abs() < 1e-9, "{found}");
        let mut load = Load::default();
        load.add(2.02, 1.0);
        assert!((load.used_in(0.01, 0.05) - 0.02).abs() < 1e-9);
    }

    #[test]
    fn calibration_is_believed_where_little_was_seen_or_makes_no_sense() {
        let mut pace = Pace::default();
        pace.add(&part(100.0, 1e-6, 2e-6, 1.3), &part(100.0, 1e-6, 1e-6, 1.3));
        assert_eq!(pace.wrong_by(), None);
        assert!((pace.speeds().all - (1.0 - 2.0 / 3.6)).abs() < 1e-9);
        let mut pace = Pace::default();
        pace.add(
            &part(9000.0, 1e-6, 2e-6, 9.0),
            &part(9000.0, 1e-6, 1e-6, 9.0),
        );
        assert_eq!(pace.speeds().costs, 1.0);
        assert_eq!(pace.speeds().all, LEAST.max(1.0 - 2.0 / 19.0));
        assert_eq!(Pace::default().speeds().all, 1.0);
    }
}
