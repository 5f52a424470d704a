//! What the report says of its own cost: hits of probes are counted exactly, by kind,
//! and the time is that which the target's processor time grew by.

use anyhow::{Context, Result, ensure};
use unfreed_tests::{
    RAW_TRACEPOINT, TRACEPOINT, TRACING, Target, Tracer, View, kernel_version,
    verified_instructions,
};

/// Hits of a kind in a report.
fn hits(report: &View, kind: &str) -> u64 {
    let of_kind = report.overhead.hits.iter().filter(|hits| hits.kind == kind);
    of_kind.map(|hits| hits.count).sum()
}

/// Has the target do something, and says what processor time it took, seconds.
fn take(target: &mut Target, line: &str) -> Result<f64> {
    let nanoseconds: f64 = target.ask(line, "took ")?.parse()?;
    Ok(nanoseconds / 1e9)
}

#[test]
fn hits_are_counted_by_kind() -> Result<()> {
    const PAIRS: u64 = 20_011;
    let mut target = Target::start("hits")?;
    let tracer = Tracer::record(target.pid, &[])?;
    take(&mut target, &format!("pairs {PAIRS} 3"))?;
    take(&mut target, &format!("threads {PAIRS}"))?;
    let report = tracer.stop()?.report()?;
    for kinds in [
        ["entry", "stepped_entry"],
        ["free", "stepped_free"],
        ["return_probe", ""],
    ] {
        let counted: u64 = kinds.iter().map(|kind| hits(&report, kind)).sum();
        assert_eq!(counted, 3 * PAIRS, "{kinds:?}: {:?}", report.overhead);
    }
    assert_eq!(
        report.overhead.probe_hits,
        9 * PAIRS,
        "{:?}",
        report.overhead
    );
    Ok(())
}

/// What a thread had not handed on when it ended counts, too.
#[test]
fn hits_of_threads_that_ended_are_counted() -> Result<()> {
    const PAIRS: u64 = 1_009;
    let mut target = Target::start("hits")?;
    let tracer = Tracer::record(target.pid, &["--returns", "instructions"])?;
    take(&mut target, &format!("threads {PAIRS}"))?;
    take(&mut target, "end")?;
    let report = tracer.stop()?.report()?;
    let entries = hits(&report, "entry") + hits(&report, "stepped_entry");
    let ends = hits(&report, "return_instruction") + hits(&report, "ending_jump");
    assert_eq!(
        (entries, ends),
        (2 * PAIRS, 2 * PAIRS),
        "{:?}",
        report.overhead
    );
    // Their caches are freed as they end, by the same function.
    let frees = hits(&report, "free") + hits(&report, "stepped_free");
    assert!((2 * PAIRS..2 * PAIRS + 64).contains(&frees), "{frees}");
    Ok(())
}

/// How far the report may be from the truth: other programs share the cores and their
/// caches while this runs.
const FACTOR: f64 = 1.5;

/// Loads, of which the median counts.
const ROUNDS: usize = 5;

#[test]
fn the_cost_is_what_the_processor_time_grows_by() -> Result<()> {
    for (depth, options) in [(0, &[][..]), (60, &[]), (0, &["--returns", "instructions"])] {
        let (truth, said) = compare(depth, options)?;
        let ratio = said / truth;
        ensure!(
            (1.0 / FACTOR..FACTOR).contains(&ratio),
            "{options:?} at {depth}: {said} s were said, {truth} s are true"
        );
    }
    Ok(())
}

/// Seconds that tracing took, and that the report says.
fn compare(depth: u32, options: &[&str]) -> Result<(f64, f64)> {
    const PAIRS: u32 = 20_000;
    let load = format!("pairs {PAIRS} {depth}");
    let mut target = Target::start("hits")?;
    take(&mut target, &load)?;
    let rounds = |target: &mut Target| -> Result<Vec<f64>> {
        (0..ROUNDS).map(|_| take(target, &load)).collect()
    };
    let plain = rounds(&mut target)?;
    let tracer = Tracer::record(target.pid, options)?;
    let traced = rounds(&mut target)?;
    let report = tracer.stop()?.report()?;
    let cost = &report.overhead;
    ensure!(
        cost.target_seconds_low <= cost.target_seconds
            && cost.target_seconds <= cost.target_seconds_high,
        "{cost:?}"
    );
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get(ROUNDS / 2).copied().context("no rounds")
    };
    let truth = (median(traced)? - median(plain)?) * ROUNDS as f64;
    Ok((truth, cost.target_seconds))
}

/// A walk of the stack takes the kernel's verifier some 35,000 instructions, which is
/// most of a tracer's start. Programs at system calls share it: one has it at entries,
/// and two have it at returns, where functions are of two types; or one has it for all
/// at trace events, or at the tracepoints.
#[test]
fn the_walk_is_verified_once_for_all_system_calls() -> Result<()> {
    const WALK: u64 = 15_000;
    let target = Target::start("hits")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let all = verified_instructions(tracer.pid(), RAW_TRACEPOINT)?;
    let own = verified_instructions(tracer.pid(), TRACING)?;
    let each = verified_instructions(tracer.pid(), TRACEPOINT)?;
    let walks = |verified: &[u64]| verified.iter().filter(|each| **each >= WALK).count();
    let found = (walks(&all), walks(&own), walks(&each));
    let is_right = match own.is_empty() {
        // Before this kernel it is not told.
        true if kernel_version()? < (5, 16) => all.is_empty(),
        true if each.is_empty() => found == (1, 0, 0),
        true => found == (0, 0, 1),
        false => (found.0, found.2) == (0, 0) && (2..=3).contains(&found.1),
    };
    ensure!(is_right, "{all:?} {own:?} {each:?}");
    Ok(())
}
