//! What taking a stack costs, by its frames: ours beside the kernel's own
//! `bpf_get_stackid`, both beyond empty probes at the same places.
//!
//! Each contestant has a target of its own, traced all the while; probes fire
//! in their own target only. Tiny measurements are interleaved, and compared
//! with the empty probes of the same round, so that a noisy machine disturbs
//! all alike.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};

use super::figures::{median, median_of};
use super::target::Target;
use super::tracer::{LIFETIME, Tracer};
use super::{kernel, seen};
use crate::{shell, targets};

/// The frames that are measured, from malloc to the thread's start.
pub(super) const FRAMES: [usize; 3] = [12, 27, 67];

/// The target's frames when it calls nothing further: malloc, pairs, main,
/// two of libc, `_start`.
pub(super) const SHALLOWEST: usize = 6;

/// Rounds, each with every contestant at every depth.
pub(super) const ROUNDS: usize = 60;

/// Pairs in one measurement: some 10 ms.
pub(super) const PAIRS: u64 = 5_000;

/// What runs at malloc's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contestant {
    Empty,
    Walk,
    Stackid,
    Counting,
}

pub(super) const CONTESTANTS: [Contestant; 4] = [
    Contestant::Empty,
    Contestant::Walk,
    Contestant::Stackid,
    Contestant::Counting,
];

impl Contestant {
    /// As `--programs` calls it.
    fn option(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Walk => "walk",
            Self::Stackid => "stackid",
            Self::Counting => "counting",
        }
    }
}

/// A build of the target.
struct Build {
    source: &'static str,
    words: &'static str,
}

const BUILDS: [Build; 2] = [
    Build {
        source: "c/pairs.c",
        words: "Without frame pointers, as compilers build by default",
    },
    Build {
        source: "c/pairs_fp.c",
        words: "With frame pointers in all of the program's own frames",
    },
];

/// A program to start, and how many calls further down it is measured.
pub(super) struct Subject<'a> {
    pub(super) start: &'a dyn Fn() -> Result<Target>,
    pub(super) deeper: [usize; FRAMES.len()],
}

/// Nanoseconds of a pair: of each contestant at each depth in each round.
pub(super) type Figures = [[Vec<f64>; FRAMES.len()]; CONTESTANTS.len()];

/// Measures both builds, and makes their tables.
///
/// # Errors
/// Fails if stacks are not as deep as they should be, or a target or tracer
/// fails.
pub(super) fn measure(unfreed: &Path) -> Result<String> {
    let mut text = format!(
        "{ROUNDS} interleaved rounds of {PAIRS} pairs, medians. Nanoseconds of an event beyond an \
         empty probe, by the stack's real frames.\n"
    );
    for build in BUILDS {
        shell::say(format!("stacks: {}", build.source));
        let program = targets::build_one(build.source)?;
        let subject = Subject {
            start: &|| Target::start_fixed(&program),
            deeper: FRAMES.map(|frames| frames - SHALLOWEST),
        };
        let seen = seen::look(unfreed, &subject)?;
        let found = seen.frames;
        ensure!(
            found == FRAMES,
            "{} has whole stacks of {found:?} frames instead of {FRAMES:?}",
            program.display()
        );
        let by_kernel = kernel::frames(&program, seen.displacement)?;
        let figures = time(unfreed, &subject)?;
        let _ = write!(text, "\n{}:\n\n{}", build.words, table(&figures, by_kernel));
    }
    Ok(text)
}

/// Measures all contestants in turns.
///
/// # Errors
/// Fails if a target or a tracer does.
pub(super) fn time(unfreed: &Path, subject: &Subject<'_>) -> Result<Figures> {
    // Targets end before their tracers, which then end too.
    let mut traced: Vec<(Target, Tracer)> = Vec::new();
    for contestant in CONTESTANTS {
        let target = (subject.start)()?;
        let option = ["--max-live", "4k", "--programs", contestant.option()];
        let tracer = Tracer::unfreed(unfreed, target.pid(), LIFETIME, option)?;
        traced.push((target, tracer));
    }
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        for (depth, deeper) in subject.deeper.iter().enumerate() {
            for ((target, _), figures) in traced.iter_mut().zip(&mut figures) {
                figures[depth].push(target.time(PAIRS, *deeper)?);
            }
        }
    }
    Ok(figures)
}

fn table(figures: &Figures, by_kernel: [usize; FRAMES.len()]) -> String {
    let [empty, walk, stackid, counting] = figures;
    let (walk, stackid) = (costs(walk, empty), costs(stackid, empty));
    let counting = costs(counting, empty);
    let heads = FRAMES.map(|frames| format!("{frames} frames"));
    let cells = |costs: [f64; FRAMES.len()]| costs.map(|cost| format!("{cost:.0}"));
    let mut kernel = cells(stackid);
    for (cell, found) in kernel.iter_mut().zip(by_kernel) {
        let _ = write!(cell, " (found {found})");
    }
    [
        row("", &heads, "a frame"),
        row("---", &["---"; FRAMES.len()], "---"),
        row("our stack", &cells(walk), &a_frame(walk, FRAMES)),
        row("`bpf_get_stackid`", &kernel, &a_frame(stackid, by_kernel)),
        totals(counting, empty),
    ]
    .concat()
}

/// The rows of what a whole pair costs: beyond empty probes, and with these.
pub(super) fn totals(counting: [f64; FRAMES.len()], empty: &[Vec<f64>; FRAMES.len()]) -> String {
    let cells = |costs: [f64; FRAMES.len()]| costs.map(|cost| format!("{cost:.0}"));
    let floor = [0, 1, 2].map(|depth| median(empty[depth].clone()));
    let all = "all of `unfreed record`, at malloc and free";
    let least = "for comparison: the pair with empty probes";
    row(all, &cells(counting), "") + &row(least, &cells(floor), "")
}

/// A row of a table.
pub(super) fn row(name: &str, cells: &[impl AsRef<str>], last: &str) -> String {
    let cells: String = cells
        .iter()
        .map(|cell| format!(" {} |", cell.as_ref()))
        .collect();
    format!("| {name} |{cells} {last} |\n").replace("  ", " ")
}

/// What a contestant takes beyond the empty probes.
pub(super) fn costs(
    own: &[Vec<f64>; FRAMES.len()],
    empty: &[Vec<f64>; FRAMES.len()],
) -> [f64; FRAMES.len()] {
    [0, 1, 2].map(|depth| median_of(&own[depth], &empty[depth], |own, empty| own - empty))
}

/// What a frame more costs, from the shallowest to the deepest stack; nothing
/// if no more were found.
pub(super) fn a_frame(costs: [f64; FRAMES.len()], found: [usize; FRAMES.len()]) -> String {
    let [low, _, high] = found;
    match u32::try_from(high.saturating_sub(low)) {
        Ok(more) if more > 0 => format!("{:.1}", (costs[2] - costs[0]) / f64::from(more)),
        _ => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_differences_within_a_round() {
        let of = |costs: [f64; 3]| costs.map(|cost| vec![1000.0 + cost, 5000.0 + cost]);
        let figures = [
            of([0.0; 3]),
            of([200.0, 500.0, 1300.0]),
            of([600.0, 610.0, 590.0]),
            of([700.0, 1000.0, 1800.0]),
        ];
        let table = table(&figures, [2, 2, 2]);
        for line in [
            "| | 12 frames | 27 frames | 67 frames | a frame |",
            "| our stack | 200 | 500 | 1300 | 20.0 |",
            "| `bpf_get_stackid` | 600 (found 2) | 610 (found 2) | 590 (found 2) | – |",
        ] {
            assert!(table.contains(line), "{table}");
        }
    }

    #[test]
    fn a_frame_is_one_that_was_found() {
        assert_eq!(a_frame([100.0, 0.0, 210.0], [10, 25, 65]), "2.0");
        assert_eq!(a_frame([100.0, 0.0, 210.0], [3, 3, 3]), "–");
    }
}
