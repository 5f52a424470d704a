//! `--fail-above` and `--fail-growth-above`: the gates for CI.

use std::fmt;
use std::process::ExitCode;

use super::units;
use crate::model::{Lost, Report};

/// Exit status when more than `--fail-above` is live, or the resident set grew by more
/// than `--fail-growth-above`.
pub const EXIT_ABOVE: u8 = 3;

/// How a report compares with `--fail-above`. Its text is one message for
/// standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not more than the limit is live, and no event was lost.
    Within,
    /// Not more than the limit was seen live, but events were lost.
    Unsure {
        /// Live bytes that were seen.
        live: u64,
        /// The limit, bytes.
        limit: u64,
        /// Lost events of all causes.
        lost: u64,
    },
    /// Not more than the limit is live as far as a sample tells, but by chance it may
    /// be more.
    Chance {
        /// Live bytes, estimated.
        live: u64,
        /// What more than may be live with a probability of 5 % at most, bytes.
        upper: u64,
        /// The limit, bytes.
        limit: u64,
    },
    /// More than the limit is live as far as a sample tells.
    AboveSampled {
        /// Live bytes, estimated.
        live: u64,
        /// Where 95 % of such estimates have the truth above, bytes.
        lower: u64,
        /// The limit, bytes.
        limit: u64,
    },
    /// More than the limit is live.
    Above {
        /// Live bytes.
        live: u64,
        /// The limit, bytes.
        limit: u64,
    },
}

/// Applies `--fail-above` and `--fail-growth-above` (bytes): says on standard error
/// what there is to say, and returns success or [`EXIT_ABOVE`].
pub fn exit_code(report: &Report, fail_above: Option<u64>, growth_above: Option<u64>) -> ExitCode {
    let verdict = fail_above.map_or(Verdict::Within, |limit| report.verdict(limit));
    if verdict != Verdict::Within {
        eprintln!("unfreed: {verdict}");
    }
    let grown = growth_above.and_then(|limit| report.growth_above(limit));
    if let Some(problem) = &grown {
        eprintln!("unfreed: {problem}");
    }
    match verdict {
        Verdict::Above { .. } | Verdict::AboveSampled { .. } => ExitCode::from(EXIT_ABOVE),
        _ if grown.is_some() => ExitCode::from(EXIT_ABOVE),
        Verdict::Within | Verdict::Unsure { .. } | Verdict::Chance { .. } => ExitCode::SUCCESS,
    }
}

/// Applies `--check-lost`: says what is lost on standard error, or that it is not known, and
/// returns [`EXIT_ABOVE`] for either.
pub fn lost(report: &Report, is_known: bool) -> ExitCode {
    let mut lost = Lost::default();
    let holders = report.sites.iter().filter_map(|site| site.holders.as_ref());
    for of_site in holders.filter_map(|holders| holders.all_lost) {
        lost.add(of_site);
    }
    match (lost.blocks, is_known) {
        (0, true) => return ExitCode::SUCCESS,
        (0, false) => eprintln!(
            "unfreed: --check-lost: what is lost is not known: the program ended by a signal, was not held, or the search was cut off (--holders-budget)"
        ),
        (blocks, _) => eprintln!(
            "unfreed: lost: no pointer leads to {} of {} when the program ends (--check-lost)",
            units::counted(blocks, "block"),
            exact(lost.bytes)
        ),
    }
    ExitCode::from(EXIT_ABOVE)
}

impl Report {
    /// Compares the live total with `limit` (bytes), the value of
    /// `--fail-above`. Exactly the limit is still within it.
    pub fn verdict(&self, limit: u64) -> Verdict {
        let live = self.held_bytes();
        let lost = self.lost_events();
        let exact = match () {
            () if live > limit => Verdict::Above { live, limit },
            () if lost > 0 => Verdict::Unsure { live, limit, lost },
            () => Verdict::Within,
        };
        let Some(sampling) = &self.sampling else {
            return exact;
        };
        let (lower, upper) = (sampling.lower(live), sampling.upper(live));
        match exact {
            Verdict::Above { .. } => Verdict::AboveSampled { live, lower, limit },
            Verdict::Within if upper > limit => Verdict::Chance { live, upper, limit },
            other => other,
        }
    }

    /// By how many bytes the resident sets of all processes that run grew together.
    pub fn resident_growth(&self) -> i64 {
        let growth = self.balance.iter().map(|balance| balance.growth);
        growth.fold(0, i64::saturating_add)
    }

    /// What to say if they grew by more than `limit` bytes.
    fn growth_above(&self, limit: u64) -> Option<String> {
        let growth = u64::try_from(self.resident_growth()).ok()?;
        (growth > limit).then(|| {
            format!(
                "the resident set grew by {}, above --fail-growth-above {}",
                exact(growth),
                exact(limit)
            )
        })
    }

    /// Lost events of all causes.
    pub fn lost_events(&self) -> u64 {
        self.losses
            .iter()
            .fold(0, |sum, loss| sum.saturating_add(loss.count))
    }
}

fn exact(size: u64) -> String {
    format!("{} ({} bytes)", units::bytes(size), units::grouped(size))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Verdict::Within => write!(f, "the live total is within --fail-above"),
            Verdict::Unsure { live, limit, lost } => write!(
                f,
                "{} seen live, within --fail-above {}; but {} lost, so more may be live: see the losses in the report",
                exact(live),
                exact(limit),
                units::counted(lost, "event")
            ),
            Verdict::Chance { live, upper, limit } => write!(
                f,
                "about {} live by estimates, within --fail-above {}; but with a probability of some 5% more than {} is, so this is not certain: a smaller --sample (or more --overhead), or none, tells",
                exact(live),
                exact(limit),
                exact(upper)
            ),
            Verdict::AboveSampled { live, lower, limit } => write!(
                f,
                "about {} live by estimates, above --fail-above {}{}",
                exact(live),
                exact(limit),
                match lower > limit {
                    true => ", and not by chance (95%)",
                    false =>
                        "; by chance it may be less: a smaller --sample (or more --overhead), or none, tells",
                }
            ),
            Verdict::Above { live, limit } => {
                write!(
                    f,
                    "{} live, above --fail-above {}",
                    exact(live),
                    exact(limit)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Balance;
    use crate::report::sample;

    #[test]
    fn the_limit_itself_passes() {
        let mut report = sample::report();
        let live = report.totals.live_bytes;
        report.losses.clear();
        assert_eq!(report.verdict(live), Verdict::Within);
        assert_eq!(
            report.verdict(live - 1),
            Verdict::Above {
                live,
                limit: live - 1
            }
        );
    }

    /// Nothing is said of a limit that the estimate alone does not tell.
    #[test]
    fn a_sample_says_what_chance_may_have_done() {
        let report = sample::sampled_report();
        let live = report.totals.live_bytes;
        let sampling = report.sampling.unwrap();
        let (lower, upper) = (sampling.lower(live), sampling.upper(live));
        assert!(lower < live && live + sampling.unseen() < upper);
        let limits = [
            (lower - 1, "and not by chance (95%)"),
            (live - 1, "by chance it may be less"),
            (live, "within --fail-above"),
            (upper - 1, "within --fail-above"),
        ];
        for (limit, said) in limits {
            let verdict = report.verdict(limit);
            assert!(verdict.to_string().contains(said), "{limit}: {verdict}");
            let is_above = matches!(verdict, Verdict::AboveSampled { .. });
            assert_eq!(is_above, live > limit);
        }
        assert_eq!(report.verdict(upper), Verdict::Within);
    }

    #[test]
    fn growth_has_a_gate_of_its_own() {
        let mut report = sample::report();
        assert_eq!(report.growth_above(0), None, "nothing is known");
        let grown = |growth| Balance {
            growth,
            ..Balance::default()
        };
        report.balance = vec![grown(5000), grown(-1000)];
        assert_eq!(report.growth_above(4000), None);
        let said = report.growth_above(3999).unwrap();
        assert!(
            said.contains("(4,000 bytes), above --fail-growth-above"),
            "{said}"
        );
        report.balance = vec![grown(-1)];
        assert_eq!(report.growth_above(0), None);
    }

    #[test]
    fn losses_are_said_when_nothing_is_above() {
        let mut report = sample::report();
        report.losses[0].count = 7;
        let live = report.totals.live_bytes;
        assert_eq!(
            report.verdict(live),
            Verdict::Unsure {
                live,
                limit: live,
                lost: 7
            }
        );
        assert!(report.verdict(live).to_string().contains("7 events lost"));
    }
}
