//! Whether the cost that a report states is true: the processor time that an operation
//! takes, traced and not, in turns, is compared with what the report says.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::choice::Choice;
use super::figures::median;
use super::service::{Kind, Service};
use super::tracer::Tracer;
use super::{rounds, seen};

/// Rounds, each without and with a tracer.
const ROUNDS: usize = 5;

/// How long each load is.
const TIME: Duration = Duration::from_secs(3);

/// How long it is found out what a service does at full load.
const FULL: Duration = Duration::from_secs(1);

/// How much of that it is asked for: what it can do when it is traced, too. Else a service
/// waits more when it is traced, and to wait takes processor time: a transaction of
/// PostgreSQL takes 1.3 times as much at 40 % of the load.
const PART: f64 = 0.35;

/// How long a tracer is there, seconds: longer than the load.
const TRACED: u32 = 60;

/// What was measured in one round.
struct Round {
    /// Processor time that an operation took without a tracer, seconds.
    plain: f64,
    /// And with one.
    traced: f64,
    /// Operations with one.
    operations: f64,
    /// What the report says that tracing took, seconds, and the least and the most.
    said: [f64; 3],
}

impl Round {
    /// What tracing really took, seconds.
    fn truth(&self) -> f64 {
        (self.traced - self.plain) * self.operations
    }
}

/// Measures all, and makes the table. A service that fails has the reason in its row.
pub(super) fn measure(unfreed: &Path, choice: &Choice) -> String {
    let measured = rounds::of_services("overhead", Kind::all(), choice, ROUNDS, |_, service| {
        one(unfreed, service)
    });
    let mut table = format!(
        "{} interleaved rounds, medians. Processor time of all of the service's processes.\n\n\
         | | an operation without | traced | tracing took | the report says | that is |\n\
         |---|---|---|---|---|---|\n",
        choice.rounds(ROUNDS)
    );
    for (kind, rounds) in measured {
        let _ = match rounds {
            Ok(rounds) => writeln!(table, "{}", row(kind.name(), &rounds)),
            Err(error) => writeln!(table, "| {} | {error:#} | | | | |", kind.name()),
        };
    }
    table
}

fn one(unfreed: &Path, service: &mut dyn Service) -> Result<Round> {
    let rate = PART * service.load(FULL)?.rate;
    let plain = cost(service, rate)?.0;
    let file = seen::new_file("overhead.json")?;
    let mut arguments = vec!["-o".into(), file.clone().into_os_string()];
    arguments.extend(service.options().iter().map(Into::into));
    let tracer = Tracer::unfreed(unfreed, &service.pid(), TRACED, arguments)?;
    let (traced, operations) = cost(service, rate)?;
    tracer.stop()?;
    let report = seen::report(tracer, &file)?;
    Ok(Round {
        plain,
        traced,
        operations,
        said: said(&report).context("the report does not say what it cost")?,
    })
}

/// Processor time of an operation, seconds, and how many there were.
fn cost(service: &mut dyn Service, rate: f64) -> Result<(f64, f64)> {
    let before = service.processor_time()?;
    let operations = service.steady_load(TIME, rate)?.operations as f64;
    Ok((
        (service.processor_time()? - before) / operations,
        operations,
    ))
}

fn said(report: &Value) -> Option<[f64; 3]> {
    let seconds = |key: &str| report["overhead"][key].as_f64();
    let all = seconds("target_seconds")?;
    let low = seconds("target_seconds_low").unwrap_or(all);
    Some([all, low, seconds("target_seconds_high").unwrap_or(all)])
}

fn row(name: &str, rounds: &[Round]) -> String {
    let middle = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    format!(
        "| {name} | {:.2} µs | {:.2} µs | {:.2} s | {:.2} s ({:.2} to {:.2}) | {:.0}% |",
        middle(|round| round.plain * 1e6),
        middle(|round| round.traced * 1e6),
        middle(Round::truth),
        middle(|round| round.said[0]),
        middle(|round| round.said[1]),
        middle(|round| round.said[2]),
        middle(|round| 100.0 * round.said[0] / round.truth()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_compared_within_a_round() {
        let round = |scale: f64| Round {
            plain: 1e-6,
            traced: 3e-6,
            operations: 1e6 * scale,
            said: [1.9 * scale, 1.8 * scale, 2.0 * scale],
        };
        let row = row("a service", &[round(1.0), round(5.0), round(2.0)]);
        assert_eq!(
            row,
            "| a service | 1.00 µs | 3.00 µs | 4.00 s | 3.80 s (3.60 to 4.00) | 95% |"
        );
    }
}
