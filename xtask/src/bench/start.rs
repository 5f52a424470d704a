//! How long it takes from the start of `unfreed` until it traces a JVM, whose
//! libraries have large unwind tables.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use tracer_ebpf_build::workspace;

use super::figures::median;
use super::target::Target;
use super::tracer::Tracer;
use crate::shell;

/// How often it is started.
const RUNS: usize = 5;

/// The longest that it should take, seconds.
const AIM: f64 = 0.5;

/// Measures, and makes the table.
///
/// # Errors
/// Fails if the JVM or a tracer does not start.
pub(super) fn measure(unfreed: &Path) -> Result<String> {
    shell::say("start: a JVM");
    let mut java = Command::new("java");
    java.arg(workspace().join("tests/targets/java/Idle.java"));
    let target = Target::start(java).context("no JVM")?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let begin = Instant::now();
        let tracer = Tracer::unfreed(unfreed, target.pid(), 1, [] as [&str; 0])?;
        times.push(begin.elapsed().as_secs_f64());
        tracer.rest()?;
    }
    Ok(table(&times))
}

fn table(times: &[f64]) -> String {
    let shortest = times.iter().copied().fold(f64::INFINITY, f64::min);
    let longest = times.iter().copied().fold(0.0, f64::max);
    format!(
        "| runs | median | shortest | longest | aim |\n|---|---|---|---|---|\n\
         | {} | {:.2} s | {shortest:.2} s | {longest:.2} s | at most {AIM:.1} s |\n",
        times.len(),
        median(times.to_vec())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_beside_the_extremes() {
        let table = table(&[0.5, 0.3, 0.4, 0.9, 0.45]);
        let row = "| 5 | 0.45 s | 0.30 s | 0.90 s | at most 0.5 s |";
        assert!(table.contains(row), "{table}");
    }
}
