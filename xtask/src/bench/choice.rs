//! Which part of a benchmark runs, and for how long.

use anyhow::{Result, ensure};
use clap::Args;

use super::verdicts::Half;
use super::{answers, modes, service, verdicts};

/// What is chosen on the command line; nothing: all of it. What is measured in part is
/// printed, and not written into BENCHMARKS.md.
#[derive(Debug, Default, Args)]
pub(crate) struct Choice {
    /// Rounds of what is measured in turns [default: 20 of pairs and allocators, 11 of
    /// sampler, else 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only this service of `modes` and `overhead` (pairs, deep, returns, redis, postgres, java,
    /// python, nginx, node), this target of `answers` (c, cpp, java, python, node), or this
    /// program of `verdicts` (c, cpp, rust, python, node, java), all of it or in one mode
    /// (c:full_cache) (repeatable)
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// Only this way to trace (exact, sample, overhead, growth, sampler, heaptrack)
    /// (repeatable) [default: all; of verdicts exact]
    #[arg(long = "mode", value_name = "NAME")]
    modes: Vec<String>,
    /// When a run is looked at, the last time at its end [default: 10,60,300 of answers,
    /// 30,120 of verdicts]
    #[arg(long, value_name = "SECONDS", value_delimiter = ',',
          value_parser = clap::value_parser!(u64).range(2..))]
    seconds: Vec<u64>,
    /// Only this half of the suite of `verdicts`
    #[arg(long, value_enum, value_name = "HALF")]
    half: Option<Half>,
    /// Have `verdicts` judge the reports of its last run once more, instead of running
    #[arg(long)]
    again: bool,
}

impl Choice {
    /// Fails if something is named that is not there.
    ///
    /// # Errors
    /// Says what there is.
    pub(super) fn check(&self) -> Result<()> {
        let known = |names: &[String], known: Vec<&str>| {
            for name in names {
                ensure!(
                    known.contains(&name.as_str()),
                    "there is no {name}; there are {}",
                    known.join(", ")
                );
            }
            Ok(())
        };
        let services = service::Kind::all().map(service::Kind::key);
        let services = services.chain(answers::keys()).chain(verdicts::keys());
        // A mode of a program is looked up when the suite is read.
        let programs = self.services.iter().map(|name| match name.split_once(':') {
            Some((program, _)) => program.to_owned(),
            None => name.clone(),
        });
        known(&programs.collect::<Vec<_>>(), services.collect())?;
        known(
            &self.modes,
            modes::Mode::all().map(modes::Mode::key).collect(),
        )
    }

    /// Whether all of a part runs, in however many rounds.
    pub(super) const fn is_whole(&self) -> bool {
        self.services.is_empty() && self.modes.is_empty() && self.half.is_none() && !self.again
    }

    pub(super) fn rounds(&self, default: usize) -> usize {
        self.rounds.map_or(default, usize::from)
    }

    pub(super) fn has_service(&self, key: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|name| name == key)
    }

    pub(super) fn has_mode(&self, key: &str) -> bool {
        self.modes.is_empty() || self.modes.iter().any(|name| name == key)
    }

    /// Whether a way to trace was named.
    pub(super) fn names_mode(&self, key: &str) -> bool {
        self.modes.iter().any(|name| name == key)
    }

    /// When runs are looked at, ascending, seconds.
    pub(super) fn seconds(&self, default: &[u64]) -> Vec<u64> {
        let mut seconds = match self.seconds[..] {
            [] => default.to_vec(),
            _ => self.seconds.clone(),
        };
        seconds.sort_unstable();
        seconds.dedup();
        seconds
    }

    /// Which half of the suite runs; `None`: both.
    pub(super) const fn half(&self) -> Option<Half> {
        self.half
    }

    /// Whether the last run's reports are judged once more.
    pub(super) const fn is_again(&self) -> bool {
        self.again
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        choice: Choice,
    }

    fn choice(words: &[&str]) -> Choice {
        let words = std::iter::once("bench").chain(words.iter().copied());
        Line::try_parse_from(words).unwrap().choice
    }

    #[test]
    fn nothing_chosen_is_all() {
        let all = choice(&[]);
        assert!(all.check().is_ok() && all.is_whole());
        assert!(all.has_service("redis") && all.has_mode("exact"));
        assert_eq!((all.rounds(7), all.seconds(&[30, 120])), (7, vec![30, 120]));
    }

    #[test]
    fn a_part_is_chosen_by_names() {
        let part = choice(&[
            "--service",
            "redis",
            "--mode",
            "overhead",
            "--rounds",
            "2",
            "--seconds",
            "60,10,60",
        ]);
        assert!(part.check().is_ok() && !part.is_whole());
        assert!(part.has_service("redis") && !part.has_service("nginx"));
        assert!(part.has_mode("overhead") && !part.has_mode("exact"));
        assert_eq!((part.rounds(7), part.seconds(&[30])), (2, vec![10, 60]));
        assert!(choice(&["--service", "rust:no_matter"]).check().is_ok());
        assert!(choice(&["--service", "nobody"]).check().is_err());
        assert!(choice(&["--mode", "nothing"]).check().is_err());
    }
}
