//! What tracing costs a pair of malloc and free, all in one run: without a
//! tracer, with empty probes at the same places, with `unfreed`, and with a
//! bpftrace one-liner that does what memleak does. Rounds are interleaved, so
//! that a noisy machine disturbs all alike; the ratios are what counts.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::choice::Choice;
use super::figures::{extremes, median, median_of};
use super::target::Target;
use super::tracer::{LIFETIME, Tracer};
use crate::{shell, targets};

/// Rounds, each with every contestant.
pub(super) const ROUNDS: usize = 20;

/// Pairs in one measurement: some 0.3 s with a tracer.
const PAIRS: u64 = 100_000;

/// Measurements of one contestant in a round, of which the least counts.
const REPEATS: usize = 3;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contestant {
    Nobody,
    Floor,
    Unfreed,
    /// Empty probes where calls begin, and none where they end.
    Entries,
    /// A sample.
    Sampled,
    /// Calls of other code than is asked for.
    Filtered,
    /// An earlier `unfreed`.
    Earlier,
    Bpftrace,
}

/// All, in the order of a round; the second is what others are compared with.
const CONTESTANTS: [Contestant; 8] = [
    Contestant::Nobody,
    Contestant::Floor,
    Contestant::Unfreed,
    Contestant::Entries,
    Contestant::Sampled,
    Contestant::Filtered,
    Contestant::Earlier,
    Contestant::Bpftrace,
];

/// Those that run: there need not be an earlier one.
fn contestants(against: Option<&Path>) -> Vec<Contestant> {
    let runs = |contestant: &Contestant| *contestant != Contestant::Earlier || against.is_some();
    CONTESTANTS.into_iter().filter(runs).collect()
}

impl Contestant {
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "no tracer",
            Self::Floor => "empty probes at the same places (the floor)",
            Self::Unfreed => "`unfreed record`",
            Self::Entries => "empty probes at `malloc` and `free`, none at the return",
            Self::Sampled => "`unfreed record --sample 512k`",
            Self::Filtered => "`unfreed record --only` another function",
            Self::Earlier => "the same of the version before",
            Self::Bpftrace => "bpftrace one-liner (memleak's job)",
        }
    }

    /// Has a process traced.
    fn trace(self, unfreed: &Path, pid: &str) -> Result<Option<Tracer>> {
        let programs: &[&str] = match self {
            Self::Nobody => return Ok(None),
            Self::Bpftrace => return Tracer::bpftrace(pid, &one_liner(pid)).map(Some),
            Self::Floor => &["--programs", "empty"],
            Self::Entries => &["--programs", "entries"],
            Self::Sampled => &["--sample", "512k"],
            // Without further calls down the loop is in `pairs`.
            Self::Filtered => &["--only", "deeper"],
            Self::Unfreed | Self::Earlier => &[],
        };
        Tracer::unfreed(unfreed, pid, LIFETIME, programs).map(Some)
    }
}

/// Measures all, and makes the table.
///
/// # Errors
/// Fails if a target or a tracer does.
pub(super) fn measure(unfreed: &Path, against: Option<&Path>, choice: &Choice) -> Result<String> {
    let rounds = choice.rounds(ROUNDS);
    let program = targets::build_one("c/pairs.c")?;
    let contestants = contestants(against);
    let mut figures = vec![Vec::new(); contestants.len()];
    for round in 1..=rounds {
        shell::say(format!("pairs: round {round} of {rounds}"));
        for (figures, contestant) in figures.iter_mut().zip(&contestants) {
            let binary = match contestant {
                Contestant::Earlier => against.unwrap_or(unfreed),
                _ => unfreed,
            };
            figures.push(time(*contestant, binary, Command::new(&program))?);
        }
    }
    Ok(table(rounds, &contestants, &figures))
}

/// The least time of a pair in a program that does nothing else, nanoseconds.
pub(super) fn time(contestant: Contestant, unfreed: &Path, program: Command) -> Result<f64> {
    let mut target = Target::start(program)?;
    let tracer = contestant.trace(unfreed, target.pid())?;
    if tracer.is_some() {
        target.wait_for_probes()?;
    }
    target.time(PAIRS / 10, 0)?;
    let mut least = f64::INFINITY;
    for _ in 0..REPEATS {
        least = least.min(target.time(PAIRS, 0)?);
    }
    // The tracer ends when its target has.
    drop(target);
    drop(tracer);
    Ok(least)
}

/// What memleak does, as one line of bpftrace: sizes by thread, blocks and
/// their stacks by address.
fn one_liner(pid: &str) -> String {
    let libc = libc_of(pid).unwrap_or_else(|| "libc".into());
    let libc = libc.display();
    format!(
        "uprobe:{libc}:malloc {{ @size[tid] = arg0 }} \
         uretprobe:{libc}:malloc /@size[tid]/ {{ @bytes[retval] = @size[tid]; @stack[retval] = ustack; delete(@size[tid]) }} \
         uprobe:{libc}:free {{ delete(@bytes[arg0]); delete(@stack[arg0]) }}"
    )
}

fn libc_of(pid: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let path = maps.lines().find_map(|line| {
        line.split_whitespace()
            .nth(5)
            .filter(|p| p.contains("/libc.so"))
    })?;
    Some(PathBuf::from(path))
}

/// Medians with the extremes, and the medians of each round's ratio to the floor.
fn table(rounds: usize, contestants: &[Contestant], figures: &[Vec<f64>]) -> String {
    let mut table = format!(
        "{rounds} interleaved rounds, medians.\n\n\
         | | ns a pair | least and most | times the floor |\n|---|---|---|---|\n"
    );
    for (contestant, own) in contestants.iter().zip(figures) {
        let (least, most) = extremes(own);
        let _ = writeln!(
            table,
            "| {} | {:.0} | {least:.0} to {most:.0} | {:.2} |",
            contestant.name(),
            median(own.clone()),
            median_of(own, &figures[1], |own, floor| own / floor)
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let figures = vec![
            vec![1.0, 2.0, 3.0],
            vec![10.0, 20.0, 30.0],
            vec![15.0, 30.0, 45.0],
            vec![9.0, 18.0, 27.0],
            vec![12.0, 24.0, 36.0],
            vec![100.0, 200.0, 300.0],
        ];
        let table = table(3, &contestants(None), &figures);
        assert!(
            table.contains("| `unfreed record` | 30 | 15 to 45 | 1.50 |"),
            "{table}"
        );
    }
}
