//! Which regime a budget allows.

use super::{Ledger, Regime};

/// A regime is chosen if it would take no more than this part of the budget.
const ROOM: f64 = 0.7;
/// How long a dearer regime must have looked affordable, seconds.
const PATIENCE: f64 = 3.0;
/// A regime ends at once if it takes so many times the budget.
const FAR_TOO_MUCH: f64 = 2.0;
/// A regime ends if so many seconds' worth more was spent than allowed.
const DEBT: f64 = 1.0;
/// Bursts that would be further apart are none, seconds.
const TOO_FAR: f64 = 600.0;

/// What regimes would cost the targets with the load that there was last, seconds of
/// processor time a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Forecast {
    /// If every allocation were followed.
    pub exact: f64,
    /// If a sample of them were.
    pub sampled: f64,
    /// A single burst with what the tracer spends from one to the next, seconds.
    pub burst: f64,
}

impl Forecast {
    /// The dearest regime that takes no more than `rate`.
    fn affordable(&self, rate: f64) -> Regime {
        match () {
            () if self.exact <= rate => Regime::Exact,
            () if self.sampled <= rate => Regime::Sampled,
            () => Regime::Bursts,
        }
    }
}

/// Decides on the regime of one target, or of some that are one.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    regime: Regime,
    /// For how long a dearer one has looked affordable, seconds.
    affordable: f64,
}

impl Default for Policy {
    /// Begins with all, for as long as it takes to see what that costs.
    fn default() -> Self {
        Self {
            regime: Regime::Exact,
            affordable: 0.0,
        }
    }
}

impl Policy {
    /// The regime.
    pub fn regime(&self) -> Regime {
        self.regime
    }

    /// Decides anew; in the last `seconds` the targets spent `spent` of a second because of
    /// tracing. Returns the regime if it is another than before.
    pub fn decide(
        &mut self,
        (seconds, spent): (f64, f64),
        forecast: &Forecast,
        ledger: &Ledger,
    ) -> Option<Regime> {
        let before = self.regime;
        let rate = ledger.rate();
        let is_too_dear =
            spent > FAR_TOO_MUCH * rate || (spent > ROOM * rate && ledger.credit() < -DEBT * rate);
        let affordable = forecast.affordable(ROOM * rate);
        self.regime = match before {
            Regime::Off => Regime::Off,
            regime if regime.is_full_time() && is_too_dear => {
                self.affordable = 0.0;
                cheaper(regime, affordable)
            }
            regime => self.dearer(regime, affordable, seconds),
        };
        if self.regime == Regime::Bursts && rate > 0.0 && forecast.burst > TOO_FAR * rate {
            self.regime = Regime::Off;
        }
        (self.regime != before).then_some(self.regime)
    }

    /// The affordable one, if it is dearer and was affordable for long enough.
    fn dearer(&mut self, regime: Regime, affordable: Regime, seconds: f64) -> Regime {
        if rank(affordable) >= rank(regime) {
            self.affordable = 0.0;
            return regime;
        }
        self.affordable += seconds;
        if self.affordable < PATIENCE {
            return regime;
        }
        self.affordable = 0.0;
        affordable
    }

    /// The same at the first look, when there is nothing to compare with.
    pub fn begin(&mut self, forecast: &Forecast, ledger: &Ledger) -> Option<Regime> {
        let before = self.regime;
        self.regime = forecast.affordable(ROOM * ledger.rate());
        (self.regime != before).then_some(self.regime)
    }
}

fn cheaper(regime: Regime, affordable: Regime) -> Regime {
    match rank(affordable) > rank(regime) {
        true => affordable,
        false => Regime::ALL[(rank(regime) + 1).min(2)],
    }
}

/// Dearer regimes have a lower one.
fn rank(regime: Regime) -> usize {
    regime as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Spent;

    fn ledger(rate: f64, spent: f64) -> Ledger {
        let mut ledger = Ledger::default();
        let spent = Spent {
            targets: spent,
            tracer: 0.0,
        };
        ledger.enter(1.0, rate, spent);
        ledger
    }

    fn forecast(exact: f64, sampled: f64) -> Forecast {
        Forecast {
            exact,
            sampled,
            burst: 0.03,
        }
    }

    #[test]
    fn the_dearest_regime_within_the_budget_is_taken() {
        let rate = 0.01;
        for (forecast, regime) in [
            (forecast(0.006, 0.003), Regime::Exact),
            (forecast(0.012, 0.006), Regime::Sampled),
            (forecast(0.9, 0.4), Regime::Bursts),
        ] {
            let mut policy = Policy::default();
            policy.begin(&forecast, &ledger(rate, 0.0));
            assert_eq!(policy.regime(), regime);
            let spent = match regime {
                Regime::Exact => forecast.exact,
                Regime::Sampled => forecast.sampled,
                _ => 0.01,
            };
            let ledger = ledger(rate, spent);
            assert_eq!(policy.decide((0.5, spent), &forecast, &ledger), None);
        }
    }

    /// Ten times the load ends a regime at the next look.
    #[test]
    fn a_regime_that_is_far_too_dear_ends_at_once() {
        let mut policy = Policy::default();
        policy.begin(&forecast(0.006, 0.003), &ledger(0.01, 0.0));
        let found = policy.decide((0.25, 0.06), &forecast(0.06, 0.03), &ledger(0.01, 0.06));
        assert_eq!(found, Some(Regime::Bursts));
        policy.begin(&forecast(0.006, 0.001), &ledger(0.01, 0.0));
        let found = policy.decide((0.25, 0.03), &forecast(0.03, 0.005), &ledger(0.01, 0.03));
        assert_eq!(found, Some(Regime::Sampled));
    }

    #[test]
    fn a_regime_that_is_a_little_too_dear_ends_when_there_is_a_debt() {
        let mut policy = Policy::default();
        policy.begin(&forecast(0.006, 0.003), &ledger(0.01, 0.0));
        let now = forecast(0.015, 0.006);
        assert_eq!(policy.decide((0.5, 0.015), &now, &ledger(0.01, 0.0)), None);
        let found = policy.decide((0.5, 0.015), &now, &ledger(0.01, 0.03));
        assert_eq!(found, Some(Regime::Sampled));
    }

    #[test]
    fn a_dearer_regime_has_to_look_affordable_for_a_while() {
        let mut policy = Policy::default();
        policy.begin(&forecast(0.9, 0.4), &ledger(0.01, 0.0));
        let (light, heavy) = (forecast(0.005, 0.002), forecast(0.9, 0.4));
        let ledger = ledger(0.01, 0.005);
        assert_eq!(policy.decide((2.0, 0.005), &light, &ledger), None);
        assert_eq!(policy.decide((2.0, 0.005), &heavy, &ledger), None);
        assert_eq!(policy.decide((2.0, 0.005), &light, &ledger), None);
        assert_eq!(
            policy.decide((2.0, 0.005), &light, &ledger),
            Some(Regime::Exact)
        );
    }

    #[test]
    fn bursts_that_would_be_ten_minutes_apart_are_none() {
        let mut policy = Policy::default();
        let ledger = ledger(0.002, 0.0);
        let dear = Forecast {
            burst: 1.3,
            ..forecast(0.9, 0.4)
        };
        policy.begin(&dear, &ledger);
        assert_eq!(policy.decide((1.0, 0.0), &dear, &ledger), Some(Regime::Off));
    }
}
