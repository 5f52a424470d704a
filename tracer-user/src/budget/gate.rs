//! Whether page faults are followed: as long as that is within their part of the budget.

/// Of what was not spent so many seconds' worth are kept for later.
const KEPT: f64 = 2.0;
/// After faults were not followed they are again when there is so many seconds' worth to
/// spend.
const SLICE: f64 = 0.5;
/// A load that takes no more than this part of what may be spent is followed at once.
const ROOM: f64 = 0.7;
/// Faults are passed over if that takes no more than this part; otherwise the programs go.
const PASSING: f64 = 0.3;
/// The longest time to the next look, seconds: while faults are followed, and while they
/// are not. (Each takes the tracer some 30 us; so much of a sudden load is followed.)
const LOOK: (f64, f64) = (0.2, 1.0);
/// The shortest.
const SHORTEST: (f64, f64) = (0.005, 0.05);

/// What becomes of page faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Following {
    /// Each is charged to its path.
    Followed,
    /// The programs at them return at once.
    PassedOver,
    /// There are no programs.
    Detached,
}

/// What a fault costs, seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultPrices {
    /// One that is followed.
    pub followed: f64,
    /// One that is passed over.
    pub passed_over: f64,
}

/// Decides whether page faults are followed.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    following: Following,
    /// What may be spent in a second.
    rate: f64,
    /// What may be spent yet, seconds; below zero if more was spent than allowed.
    credit: f64,
}

impl Gate {
    /// Begins with following, and something to spend.
    pub fn new(rate: f64) -> Self {
        Self {
            following: Following::Followed,
            rate,
            credit: SLICE * rate,
        }
    }

    /// What becomes of page faults now.
    pub fn following(&self) -> Following {
        self.following
    }

    /// Has so much spent in a second from now on.
    pub fn allow(&mut self, rate: f64) {
        self.rate = rate;
    }

    /// Follows no more: there is no room.
    pub fn close(&mut self) {
        self.following = Following::Detached;
    }

    /// Decides anew, after `seconds` in which there were so many faults. Returns in how
    /// many seconds it is to be asked again.
    pub fn decide(&mut self, seconds: f64, faults: u64, prices: &FaultPrices) -> f64 {
        let faults = faults as f64;
        let spent = match self.following {
            Following::Followed => faults * prices.followed,
            Following::PassedOver => faults * prices.passed_over,
            Following::Detached => 0.0,
        };
        self.credit = (self.credit + self.rate * seconds - spent).min(KEPT * self.rate);
        let demand = faults / seconds.max(1e-9);
        let (followed, passing) = (demand * prices.followed, demand * prices.passed_over);
        if self.may_follow(followed) {
            self.following = Following::Followed;
            let excess = (followed - self.rate).max(1e-12);
            return (self.credit / excess).clamp(SHORTEST.0, LOOK.0);
        }
        // Programs that went are not worth coming for that.
        if self.following != Following::Detached {
            self.following = match passing <= PASSING * self.rate {
                true => Following::PassedOver,
                false => Following::Detached,
            };
        }
        let passing = match self.following {
            Following::PassedOver => passing,
            _ => 0.0,
        };
        let earned = (self.rate - passing).max(1e-12);
        ((SLICE * self.rate - self.credit) / earned).clamp(SHORTEST.1, LOOK.1)
    }

    /// Whether there is enough to spend on a load that would take `followed` a second.
    fn may_follow(&self, followed: f64) -> bool {
        let least = match self.following {
            Following::Followed => 0.0,
            _ if followed <= ROOM * self.rate => 0.0,
            _ => SLICE * self.rate,
        };
        self.credit >= least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: FaultPrices = FaultPrices {
        followed: 1.5e-6,
        passed_over: 0.05e-6,
    };

    /// What there was in a run with so many faults a second at each time: seconds spent,
    /// and seconds of each following.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small numbers, above zero"
    )]
    fn run(gate: &mut Gate, until: f64, load: impl Fn(f64) -> f64) -> (f64, [f64; 3]) {
        let (mut time, mut spent, mut spans) = (0.0, 0.0, [0.0; 3]);
        let mut wait: f64 = 0.005;
        while time < until {
            let faults = load(time) * wait;
            let (price, place) = match gate.following() {
                Following::Followed => (PRICES.followed, 0),
                Following::PassedOver => (PRICES.passed_over, 1),
                Following::Detached => (0.0, 2),
            };
            spent += faults * price;
            spans[place] += wait;
            time += wait;
            wait = gate.decide(wait, faults as u64, &PRICES);
        }
        (spent, spans)
    }

    #[test]
    fn a_load_that_fits_is_followed_all_the_time() {
        let mut gate = Gate::new(0.01);
        let (_, [followed, passed_over, detached]) = run(&mut gate, 60.0, |_| 4_000.0);
        assert!(followed > 60.0 && passed_over + detached == 0.0);
    }

    #[test]
    fn a_heavy_load_is_followed_as_far_as_it_is_allowed() {
        // Where passing over is little, and where that alone would be too much.
        for (load, is_detached) in [(50_000.0, false), (300_000.0, true)] {
            let mut gate = Gate::new(0.01);
            let (spent, spans) = run(&mut gate, 120.0, |_| load);
            assert!((0.8..1.1).contains(&(spent / 1.2)), "{spent}");
            assert_eq!(spans[2] > 0.0, is_detached, "{spans:?}");
            assert_eq!(spans[1] > 0.0, !is_detached, "{spans:?}");
            assert!(spans[0] > 1.0, "{spans:?}");
        }
    }

    #[test]
    fn a_sudden_load_costs_no_more_than_one_look_and_a_lighter_one_is_followed_again() {
        let mut gate = Gate::new(0.01);
        run(&mut gate, 10.0, |_| 100.0);
        let (spent, _) = run(&mut gate, 1.0, |_| 200_000.0);
        // What was kept, and a look.
        assert!(spent < 0.01 * KEPT + 0.06 + 0.01, "{spent}");
        let (_, spans) = run(&mut gate, 20.0, |_| 100.0);
        assert!(spans[0] > 15.0, "{spans:?}");
        assert_eq!(gate.following(), Following::Followed);
    }
}
