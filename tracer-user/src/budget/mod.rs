//! A budget for what tracing costs (`--overhead`): what may be spent, what was, and what
//! follows from that.
//!
//! Plain data and arithmetic: nothing here knows a process or the kernel, so a budget can
//! be one target's, or a host's.

mod gaps;
mod gate;
mod ledger;
mod policy;
mod rise;

pub use self::gaps::Gaps;
pub use self::gate::{FaultPrices, Following, Gate};
pub use self::ledger::{Ledger, Spent};
pub use self::policy::{Forecast, Policy};
pub use self::rise::{Attention, Rise};

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What there is at least to spend, seconds a second: the tracer itself needs about as
/// much while nothing happens.
pub const FLOOR: f64 = 0.005;

/// What may be spent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// This part of the processor time that the targets use.
    Share(f64),
    /// So much processor time in each second.
    PerSecond(Duration),
    /// The less of both: this part of what the targets use, and so much in each second.
    Least(f64, Duration),
}

impl Budget {
    /// What may be spent in `seconds` in which the targets use so much processor time,
    /// both in seconds.
    pub fn allowance(self, seconds: f64, targets: f64) -> f64 {
        let asked = match self {
            Self::Share(share) => share * targets,
            Self::PerSecond(time) => time.as_secs_f64() * seconds,
            Self::Least(share, time) => (share * targets).min(time.as_secs_f64() * seconds),
        };
        asked.max(FLOOR * seconds)
    }

    /// The less of two budgets, at any moment.
    pub fn within(self, other: Self) -> Self {
        let parts = |budget| match budget {
            Self::Share(share) => (Some(share), None),
            Self::PerSecond(time) => (None, Some(time)),
            Self::Least(share, time) => (Some(share), Some(time)),
        };
        let ((one, first), (two, second)) = (parts(self), parts(other));
        let share = one.into_iter().chain(two).reduce(f64::min);
        let time = first.into_iter().chain(second).min();
        match (share, time) {
            (Some(share), Some(time)) => Self::Least(share, time),
            (Some(share), None) => Self::Share(share),
            (None, time) => Self::PerSecond(time.unwrap_or_default()),
        }
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write 1% (of the targets' processor time) or 5ms/s".to_owned();
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
            if !(0.1..=100.0).contains(&percent) {
                return Err("must be from 0.1% to 100%".to_owned());
            }
            return Ok(Self::Share(percent / 100.0));
        }
        let time = text.strip_suffix("/s").ok_or_else(wrong)?;
        let time = humantime::parse_duration(time).map_err(|_| wrong())?;
        if !(Duration::from_millis(5)..=Duration::from_secs(1)).contains(&time) {
            return Err("must be from 5ms/s to 1s/s".to_owned());
        }
        Ok(Self::PerSecond(time))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => write!(f, "{}%", (share * 1e5).round() / 1e3),
            Self::PerSecond(time) => write!(f, "{}/s", humantime::format_duration(*time)),
            Self::Least(share, time) => {
                write!(
                    f,
                    "{} and {} at most",
                    Self::Share(*share),
                    Self::PerSecond(*time)
                )
            }
        }
    }
}

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Regime {
    /// Every allocation.
    Exact,
    /// A sample of them, chosen by chance.
    Sampled,
    /// All of them, in short bursts at random moments.
    Bursts,
    /// None: not even bursts are within the budget.
    Off,
}

impl Regime {
    /// All of them, the dearest first.
    pub const ALL: [Self; 4] = [Self::Exact, Self::Sampled, Self::Bursts, Self::Off];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Sampled => "sampled",
            Self::Bursts => "bursts",
            Self::Off => "off",
        }
    }

    /// Whether probes stay in place.
    pub const fn is_full_time(self) -> bool {
        matches!(self, Self::Exact | Self::Sampled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_parts_of_the_targets_time_or_times_a_second() {
        assert_eq!("1%".parse(), Ok(Budget::Share(0.01)));
        assert_eq!("0.5 %".parse(), Ok(Budget::Share(0.005)));
        let time = Budget::PerSecond(Duration::from_millis(5));
        assert_eq!("5ms/s".parse(), Ok(time));
        assert_eq!(
            (Budget::Share(0.015).to_string(), time.to_string()),
            ("1.5%".into(), "5ms/s".into())
        );
        for wrong in [
            "", "1", "5ms", "-1%", "0.01%", "101%", "nan%", "2s/s", "1ms/s",
        ] {
            assert!(wrong.parse::<Budget>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn of_two_budgets_the_less_holds_at_any_moment() {
        let time = |milliseconds| Budget::PerSecond(Duration::from_millis(milliseconds));
        let share = Budget::Share(0.01);
        assert_eq!(share.within(Budget::Share(0.02)), share);
        assert_eq!(time(20).within(time(10)), time(10));
        let both = share.within(time(10));
        assert_eq!(both.within(time(20)), both);
        assert_eq!(both.to_string(), "1% and 10ms/s at most");
        // Of half a processor, and of two.
        assert!((both.allowance(10.0, 6.0) - 0.06).abs() < 1e-9);
        assert!((both.allowance(10.0, 20.0) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn an_idle_target_leaves_what_the_tracer_itself_needs() {
        assert_eq!(Budget::Share(0.01).allowance(10.0, 20.0), 0.2);
        assert_eq!(Budget::Share(0.01).allowance(10.0, 0.0), 10.0 * FLOOR);
        let time = Budget::PerSecond(Duration::from_millis(5));
        assert_eq!(time.allowance(10.0, 0.0), 0.05);
    }
}
