//! What tracing costs a pair of malloc and free under each allocator, beside
//! glibc's in the same rounds. Each allocator's code is another, so that its
//! probes stand elsewhere.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::choice::Choice;
use super::figures::{extremes, median, median_of};
use super::pairs::{Contestant, ROUNDS, time};
use crate::{shell, targets};

/// Debian's jemalloc.
pub(super) const JEMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

/// glibc, with which others are compared, and what is preloaded in its place.
pub(super) const ALLOCATORS: [(&str, Option<&str>); 4] = [
    ("glibc", None),
    ("jemalloc", Some(JEMALLOC)),
    (
        "tcmalloc (gperftools)",
        Some("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"),
    ),
    (
        "mimalloc",
        Some("/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0"),
    ),
];

/// Who is measured, with a name for the table.
const CONTESTANTS: [(Contestant, &str); 6] = [
    (Contestant::Nobody, "no tracer"),
    (Contestant::Floor, "empty probes at the same places"),
    (Contestant::Unfreed, "`unfreed record`"),
    (Contestant::Entries, "empty probes, none at the return"),
    (Contestant::Sampled, "`--sample 512k`"),
    (Contestant::Earlier, "the version before"),
];

/// Nanoseconds of a pair under one allocator, of each contestant by round; of none that is
/// not there.
type Figures = [Vec<f64>; CONTESTANTS.len()];

/// Measures all, and makes the table.
///
/// # Errors
/// Fails if a target or a tracer does.
pub(super) fn measure(unfreed: &Path, against: Option<&Path>, choice: &Choice) -> Result<String> {
    let program = targets::build_one("c/pairs.c")?;
    let mut all: [Figures; ALLOCATORS.len()] = Default::default();
    let rounds = choice.rounds(ROUNDS);
    for round in 1..=rounds {
        shell::say(format!("allocators: round {round} of {rounds}"));
        for (figures, (_, library)) in all.iter_mut().zip(ALLOCATORS) {
            for (figures, (contestant, _)) in figures.iter_mut().zip(CONTESTANTS) {
                let binary = match (contestant, against) {
                    (Contestant::Earlier, None) => continue,
                    (Contestant::Earlier, Some(earlier)) => earlier,
                    _ => unfreed,
                };
                let mut command = Command::new(&program);
                command.envs(library.map(|library| ("LD_PRELOAD", library)));
                figures.push(time(contestant, binary, command)?);
            }
        }
    }
    Ok(table(rounds, &all))
}

/// Medians with the extremes, and the medians of each round's ratio to glibc.
fn table(rounds: usize, all: &[Figures; ALLOCATORS.len()]) -> String {
    let mut table = format!(
        "{rounds} interleaved rounds, medians. Nanoseconds a pair.\n\n\
         | | | ns a pair | least and most | times glibc's |\n|---|---|---|---|---|\n"
    );
    let [glibc, ..] = all;
    for ((name, _), figures) in ALLOCATORS.iter().zip(all) {
        let mut name = *name;
        for (((_, contestant), own), glibc) in CONTESTANTS.iter().zip(figures).zip(glibc) {
            if own.is_empty() {
                continue;
            }
            let (least, most) = extremes(own);
            let _ = writeln!(
                table,
                "| {name} | {contestant} | {:.0} | {least:.0} to {most:.0} | {:.2} |",
                median(own.clone()),
                median_of(own, glibc, |own, glibc| own / glibc)
            );
            name = "";
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(unfreed: [f64; 3]) -> Figures {
        let all = |figure: f64| vec![figure; 3];
        [
            all(9.0),
            all(900.0),
            unfreed.to_vec(),
            all(600.0),
            all(700.0),
            Vec::new(),
        ]
    }

    #[test]
    fn ratios_are_to_glibc_in_the_same_round() {
        let mut all = [
            figures([1000.0, 2000.0, 3000.0]),
            figures([1100.0, 2400.0, 3300.0]),
            figures([1000.0, 2000.0, 3000.0]),
            figures([1000.0, 2000.0, 3000.0]),
        ];
        let text = table(3, &all);
        for line in [
            "| jemalloc | no tracer | 9 | 9 to 9 | 1.00 |",
            "|  | `unfreed record` | 2400 | 1100 to 3300 | 1.10 |",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("before"), "{text}");
        for figures in &mut all {
            figures[5] = vec![7000.0; 3];
        }
        assert!(table(3, &all).contains("the version before | 7000 |"));
    }
}
