//! What a budget (`--overhead`) did to a run.

use serde::{Deserialize, Serialize};

/// What was asked for, what it took, and how the run went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BudgetReport {
    /// What was asked for, as on the command line.
    pub asked: String,
    /// What was allowed until now, seconds of processor time.
    pub allowed_seconds: f64,
    /// What tracing took of the targets' processor time, seconds: an estimate.
    pub target_seconds: f64,
    /// What the tracer itself took since the run began, seconds.
    pub tracer_seconds: f64,
    /// Processor time of the targets, seconds.
    pub used_seconds: f64,
    /// How long there was each regime, in the order of time.
    pub regimes: Vec<RegimeTime>,
    /// How many bursts there were.
    pub bursts: u64,
    /// The part of the time in which allocations were followed.
    pub duty: f64,
    /// How far numbers of blocks may be from the truth beyond their standard errors, all of
    /// them alike, as a part of them: how much of the targets' work a burst has seen is
    /// known no better.
    #[serde(default)]
    pub scale_error: f64,
    /// Blocks that lived for so long, seconds, were not followed any longer, since there was
    /// no room for more (`--max-live`): they count as live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed_for: Option<f64>,
    /// The most that a burst took, seconds of the targets' processor time.
    pub dearest_burst: f64,
    /// How closely allocations were looked at in bursts, in the order of time: `base`, with a
    /// quarter of the budget, while nothing grew, and else `full`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<RegimeTime>,
    /// What became of page faults, if they were followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<FaultsReport>,
}

/// What became of the page faults of a run within a budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultsReport {
    /// Page faults that were followed.
    pub followed: u64,
    /// Those that were not, by the kernel's own count: of processes that ended, those until
    /// the last look at them.
    pub not_followed: u64,
    /// How often they began not to be.
    pub pauses: u64,
    /// How long they were followed, seconds.
    pub followed_seconds: f64,
    /// How long the programs at them returned at once.
    pub passed_over_seconds: f64,
    /// How long there were no such programs.
    pub detached_seconds: f64,
}

impl BudgetReport {
    /// When the last time ended in which all calls were seen, bursts aside: seconds from the
    /// run's start.
    pub fn followed_until(&self) -> f64 {
        let all = self.regimes.iter();
        let seen = all.filter(|it| matches!(it.regime.as_str(), "exact" | "sampled"));
        seen.map(|it| it.since + it.seconds).fold(0.0, f64::max)
    }

    /// Whether all that was followed was the beginning of the run: then came times in
    /// which bursts were due, or nothing was to be followed, and no burst was yet. What was
    /// seen was counted one by one, and is less than the run's.
    pub fn is_of_beginning(&self) -> bool {
        let missed = |it: &RegimeTime| it.regime == "bursts" || it.regime == "off";
        self.bursts == 0
            && self.regimes.iter().any(missed)
            && self.regimes.iter().all(|it| it.regime != "sampled")
    }
}

/// A time with one regime.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RegimeTime {
    /// `exact`, `sampled`, `bursts` or `off`; of bursts, `base` or `full`.
    pub regime: String,
    /// When it began, seconds since the run did.
    pub since: f64,
    /// How long there was it, seconds.
    pub seconds: f64,
}

/// What became of the blocks of a path that were followed in bursts and outlived them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Survival {
    /// How many blocks.
    pub followed: u64,
    /// Those that were seen to be freed.
    pub died: u64,
    /// Those whose address was handed out again, so that they had been freed.
    pub reused: u64,
    /// How many would have been seen to be freed if they lived as long as the run in the
    /// mean, and died independently of each other.
    pub expected: f64,
}

/// So many deaths that would have been seen, and were not, are no chance: e^-3 is 5 %.
const ENOUGH: f64 = 3.0;

impl Survival {
    /// Whether they were watched for long enough to tell something.
    pub fn tells(&self) -> bool {
        self.died + self.reused > 0 || self.expected >= ENOUGH
    }

    /// The probability of seeing none freed if they lived as long as the run in the mean;
    /// `None` if some were.
    pub fn chance(&self) -> Option<f64> {
        (self.died + self.reused == 0).then(|| (-self.expected).exp())
    }

    /// Adds that of another path.
    pub fn add(&mut self, other: &Self) {
        self.followed += other.followed;
        self.died += other.died;
        self.reused += other.reused;
        self.expected += other.expected;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_first_burst_only_the_beginning_was_seen() {
        let report = |regimes: &[&str], bursts| BudgetReport {
            regimes: regimes
                .iter()
                .map(|regime| RegimeTime {
                    regime: (*regime).to_owned(),
                    ..RegimeTime::default()
                })
                .collect(),
            bursts,
            ..BudgetReport::default()
        };
        assert!(report(&["exact", "bursts"], 0).is_of_beginning());
        assert!(report(&["exact", "off"], 0).is_of_beginning());
        assert!(!report(&["exact", "bursts"], 1).is_of_beginning());
        assert!(!report(&["exact"], 0).is_of_beginning());
        assert!(!report(&["exact", "sampled", "bursts"], 0).is_of_beginning());
    }
}
