//! What each way to trace leaves of a service's throughput: the same load without a
//! tracer and with one, in turns.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::figures::median;
use super::services::{self, Service};
use super::tracer::Tracer;
use crate::shell;

/// Rounds, each without a tracer and with one of each kind.
const ROUNDS: usize = 5;

/// How long a tracer is there, seconds: longer than the load.
const TRACED: u32 = 120;

/// Ways to trace, with their names for the table.
const MODES: [(&str, &[&str]); 4] = [
    ("exact", &[]),
    ("`--sample 512k`", &["--sample", "512k"]),
    ("`--overhead 1%`", &["--overhead", "1%"]),
    ("`--growth`", &["--growth"]),
];

/// Measures all, and makes the table.
///
/// # Errors
/// Fails if a service or a tracer does.
pub(super) fn measure(unfreed: &Path) -> Result<String> {
    let names = MODES.map(|(name, _)| name).join(" | ");
    let mut table = format!(
        "{ROUNDS} interleaved rounds: the throughput without a tracer, and what is left of it \
         with one (median, and the least and the most of all rounds).\n\n\
         | | without | {names} |\n|---|---|---|---|---|---|\n"
    );
    for (name, start) in services::ALL {
        let mut service = start()?;
        if service.options().contains(&"--returns") {
            continue;
        }
        service.work(service.warm_up())?;
        let mut rounds = Vec::new();
        for round in 1..=ROUNDS {
            shell::say(format!("modes: {name}, round {round} of {ROUNDS}"));
            rounds.push(one(unfreed, &mut *service)?);
        }
        let _ = writeln!(table, "{}", row(name, &rounds));
    }
    Ok(table)
}

/// Operations a second without a tracer, and with one of each kind.
struct Round {
    plain: f64,
    traced: [f64; MODES.len()],
}

fn one(unfreed: &Path, service: &mut dyn Service) -> Result<Round> {
    let plain = rate(service)?;
    let mut traced = [0.0; MODES.len()];
    for (rate_of, (_, options)) in traced.iter_mut().zip(MODES) {
        let arguments = service.options().iter().chain(options);
        let tracer = Tracer::unfreed(unfreed, &service.pid(), TRACED, arguments)?;
        *rate_of = rate(service)?;
        tracer.stop()?;
        tracer.rest()?;
    }
    Ok(Round { plain, traced })
}

/// Operations a second.
fn rate(service: &mut dyn Service) -> Result<f64> {
    let begin = Instant::now();
    let operations = service.work(service.operations())?;
    Ok(operations as f64 / begin.elapsed().as_secs_f64())
}

fn row(name: &str, rounds: &[Round]) -> String {
    let plain = median(rounds.iter().map(|round| round.plain).collect());
    let mut row = format!("| {name} | {plain:.0}/s |");
    for mode in 0..MODES.len() {
        let left: Vec<f64> = rounds
            .iter()
            .map(|round| round.traced[mode] / round.plain)
            .collect();
        let least = left.iter().copied().fold(f64::INFINITY, f64::min);
        let most = left.iter().copied().fold(0.0, f64::max);
        let _ = write!(row, " {:.3} ({least:.3} to {most:.3}) |", median(left));
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_compared_within_a_round() {
        let round = |scale: f64, exact: f64| Round {
            plain: 1000.0 * scale,
            traced: [exact * scale, 500.0 * scale, 990.0 * scale],
        };
        let rounds = [round(1.0, 100.0), round(7.0, 120.0), round(2.0, 90.0)];
        assert_eq!(
            row("a service", &rounds),
            "| a service | 2000/s | 0.100 (0.090 to 0.120) | 0.500 (0.500 to 0.500) | \
             0.990 (0.990 to 0.990) |"
        );
    }
}
