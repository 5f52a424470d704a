//! What `run --sampler` costs a pair of malloc and free: the same program without and
//! with it, traced, in turns, by itself and under other allocators.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::allocators::ALLOCATORS;
use super::choice::Choice;
use super::figures::{extremes, median, median_of};
use super::target::Target;
use crate::{shell, targets};

/// Rounds, each with every allocator, without the sampler and with it.
const ROUNDS: usize = 11;

/// Pairs in one measurement: some 0.2 s.
const PAIRS: u64 = 20_000_000;

/// Measurements of one program in a round, of which the least counts.
const REPEATS: usize = 3;

/// Measures all, and makes the table.
///
/// # Errors
/// Fails if a target or the tracer does.
pub(super) fn measure(unfreed: &Path, choice: &Choice) -> Result<String> {
    let rounds = choice.rounds(ROUNDS);
    let program = targets::build_one("c/pairs.c")?;
    let mut figures = vec![(Vec::new(), Vec::new()); ALLOCATORS.len()];
    for round in 1..=rounds {
        shell::say(format!("sampler: round {round} of {rounds}"));
        for ((plain, sampled), (_, library)) in figures.iter_mut().zip(ALLOCATORS) {
            plain.push(time(with(Command::new(&program), library))?);
            let mut command = with(shell::as_root(unfreed), library);
            command.args(["run", "--quiet", "--as-root", "--sampler", "--"]);
            command.arg(&program);
            sampled.push(time(command)?);
        }
    }
    let mut table = format!(
        "{rounds} interleaved rounds, medians; the difference is that within a round. One in \
         512 KiB is sampled.\n\n\
         | | ns a pair | with `run --sampler` | more | least and most |\n|---|---|---|---|---|\n"
    );
    for ((name, _), (plain, sampled)) in ALLOCATORS.iter().zip(&figures) {
        let differences: Vec<f64> = sampled
            .iter()
            .zip(plain)
            .map(|(own, bare)| own - bare)
            .collect();
        let (least, most) = extremes(&differences);
        let _ = writeln!(
            table,
            "| {name} | {:.1} | {:.1} | {:.1} | {least:.1} to {most:.1} |",
            median(plain.clone()),
            median(sampled.clone()),
            median_of(sampled, plain, |own, bare| own - bare),
        );
    }
    Ok(table)
}

fn with(mut command: Command, library: Option<&str>) -> Command {
    command.envs(library.map(|library| ("LD_PRELOAD", library)));
    command
}

/// The least time of a pair, nanoseconds.
fn time(command: Command) -> Result<f64> {
    let mut target = Target::start(command)?;
    target.time(PAIRS / 10, 0)?;
    let mut least = f64::INFINITY;
    for _ in 0..REPEATS {
        least = least.min(target.time(PAIRS, 0)?);
    }
    Ok(least)
}
