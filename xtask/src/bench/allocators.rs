//! What tracing costs a pair of malloc and free under each allocator, beside
//! glibc's in the same rounds. Each allocator's code is another, so that its
//! probes stand elsewhere.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::figures::{median, median_of};
use super::pairs::{Contestant, time};
use crate::{shell, targets};

/// Rounds, each with every allocator and contestant.
const ROUNDS: usize = 5;

/// glibc, with which others are compared, and what is preloaded in its place.
pub(super) const ALLOCATORS: [(&str, Option<&str>); 4] = [
    ("glibc", None),
    (
        "jemalloc",
        Some("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"),
    ),
    (
        "tcmalloc (gperftools)",
        Some("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"),
    ),
    (
        "mimalloc",
        Some("/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0"),
    ),
];

/// The figures of one allocator, by round.
#[derive(Default)]
struct Figures {
    nobody: Vec<f64>,
    floor: Vec<f64>,
    unfreed: Vec<f64>,
    /// An earlier `unfreed`, if there is one.
    earlier: Vec<f64>,
}

/// Measures all, and makes the table.
///
/// # Errors
/// Fails if a target or a tracer does.
pub(super) fn measure(unfreed: &Path, against: Option<&Path>) -> Result<String> {
    let program = targets::build_one("c/pairs.c")?;
    let mut all: [Figures; 4] = Default::default();
    for round in 1..=ROUNDS {
        shell::say(format!("allocators: round {round} of {ROUNDS}"));
        for (figures, (_, library)) in all.iter_mut().zip(ALLOCATORS) {
            let pair = |contestant, binary| {
                let mut command = Command::new(&program);
                command.envs(library.map(|library| ("LD_PRELOAD", library)));
                time(contestant, binary, command)
            };
            figures.nobody.push(pair(Contestant::Nobody, unfreed)?);
            figures.floor.push(pair(Contestant::Floor, unfreed)?);
            figures.unfreed.push(pair(Contestant::Unfreed, unfreed)?);
            if let Some(earlier) = against {
                figures.earlier.push(pair(Contestant::Earlier, earlier)?);
            }
        }
    }
    Ok(table(&all))
}

/// Medians, and the medians of each round's ratio to glibc.
fn table(all: &[Figures; 4]) -> String {
    let [glibc, ..] = all;
    let has_earlier = !glibc.earlier.is_empty();
    let earlier = if has_earlier {
        " the version before |"
    } else {
        ""
    };
    let line = if has_earlier { "---|" } else { "" };
    let mut table = format!(
        "{ROUNDS} interleaved rounds, medians. Nanoseconds a pair.\n\n\
         | | no tracer | empty probes at the same places | `unfreed record` | times glibc's |{earlier}\n\
         |---|---|---|---|---|{line}\n"
    );
    for ((name, _), figures) in ALLOCATORS.iter().zip(all) {
        let ratio = median_of(&figures.unfreed, &glibc.unfreed, |own, glibc| own / glibc);
        let _ = write!(
            table,
            "| {name} | {:.0} | {:.0} | {:.0} | {ratio:.2} |",
            median(figures.nobody.clone()),
            median(figures.floor.clone()),
            median(figures.unfreed.clone()),
        );
        if has_earlier {
            let _ = write!(table, " {:.0} |", median(figures.earlier.clone()));
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(unfreed: [f64; 3]) -> Figures {
        Figures {
            nobody: vec![9.0; 3],
            floor: vec![900.0; 3],
            unfreed: unfreed.to_vec(),
            earlier: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_to_glibc_in_the_same_round() {
        let mut all = [
            figures([1000.0, 2000.0, 3000.0]),
            figures([1100.0, 2400.0, 3300.0]),
            figures([1000.0, 2000.0, 3000.0]),
            figures([1000.0, 2000.0, 3000.0]),
        ];
        let line = "| jemalloc | 9 | 900 | 2400 | 1.10 |";
        assert!(table(&all).contains(line), "{}", table(&all));
        for figures in &mut all {
            figures.earlier = vec![7000.0; 3];
        }
        let line = "| jemalloc | 9 | 900 | 2400 | 1.10 | 7000 |";
        assert!(table(&all).contains(line), "{}", table(&all));
    }
}
