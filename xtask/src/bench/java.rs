//! What a Java frame costs in a stack, by how the JVM runs the method: beyond
//! empty probes at the same places, as [`stacks`](super::stacks) has it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::seen;
use super::stacks::{Figures, PAIRS, ROUNDS, Subject, a_frame, costs, row, time, totals};
use super::target::Target;
use crate::{java, shell};

/// How many Java methods further down than the shallowest stack.
const DEEPER: [usize; 3] = [0, 15, 55];

/// A call of these is a frame, whatever the compilers think.
const OWN_FRAMES: [&str; 2] = ["Pairs::deeper", "Pairs::pairs"];

/// How the JVM runs methods.
struct Way {
    words: &'static str,
    option: Option<&'static str>,
}

const WAYS: [Way; 3] = [
    Way {
        words: "Interpreted (`-Xint`)",
        option: Some("-Xint"),
    },
    Way {
        words: "Compiled by C1 (`-XX:TieredStopAtLevel=1`)",
        option: Some("-XX:TieredStopAtLevel=1"),
    },
    Way {
        words: "Compiled by C2 (default flags, warmed up)",
        option: None,
    },
];

/// Measures all ways, and makes their tables.
///
/// # Errors
/// Fails if stacks are not whole or not as deep as the calls, or a JVM or
/// tracer fails.
pub(super) fn measure(unfreed: &Path) -> Result<String> {
    java::build()?;
    let mut text = format!(
        "{ROUNDS} interleaved rounds of {PAIRS} pairs, medians. Nanoseconds of an event beyond an \
         empty probe, by the stack's real frames.\n"
    );
    for way in WAYS {
        shell::say(format!("java: {}", way.words));
        let subject = Subject {
            start: &|| start(&way),
            deeper: DEEPER,
        };
        let frames = seen::look(unfreed, &subject)?.frames;
        let expected = DEEPER.map(|deeper| frames[0] + deeper);
        ensure!(
            frames == expected,
            "stacks of {frames:?} frames instead of {expected:?}: {}",
            way.words
        );
        let figures = time(unfreed, &subject)?;
        let _ = write!(text, "\n{}:\n\n{}", way.words, table(&figures, frames));
    }
    Ok(text)
}

/// Starts the target, at the same addresses each time.
fn start(way: &Way) -> Result<Target> {
    let mut command = Command::new("setarch");
    command.args(["--addr-no-randomize", "java"]);
    command.args(way.option);
    command.arg("-XX:CompileCommand=quiet");
    for method in OWN_FRAMES {
        command.arg(format!("-XX:CompileCommand=dontinline,{method}"));
    }
    command.arg("-cp").arg(java::folder()).arg("Pairs");
    Target::start(command).context("no JVM")
}

fn table(figures: &Figures, frames: [usize; DEEPER.len()]) -> String {
    let [empty, walk, stackid, counting] = figures;
    let cells = |costs: [f64; DEEPER.len()]| costs.map(|cost| format!("{cost:.0}"));
    let (walk, stackid) = (costs(walk, empty), costs(stackid, empty));
    let counting = costs(counting, empty);
    [
        row(
            "",
            &frames.map(|frames| format!("{frames} frames")),
            "a Java frame",
        ),
        row("---", &["---"; DEEPER.len()], "---"),
        row("our stack", &cells(walk), &a_frame(walk, frames)),
        row("`bpf_get_stackid`", &cells(stackid), ""),
        totals(counting, empty),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_java_frame_is_what_the_calls_differ_by() {
        let of = |costs: [f64; 3]| costs.map(|cost| vec![1000.0 + cost, 5000.0 + cost]);
        let figures = [
            of([0.0; 3]),
            of([1000.0, 1600.0, 3200.0]),
            of([500.0; 3]),
            of([1500.0, 2100.0, 3700.0]),
        ];
        let table = table(&figures, [20, 35, 75]);
        for line in [
            "| | 20 frames | 35 frames | 75 frames | a Java frame |",
            "| our stack | 1000 | 1600 | 3200 | 40.0 |",
        ] {
            assert!(table.contains(line), "{table}");
        }
    }
}
