//! The two ways to attach probes: `uprobe_multi` links, and a perf event for
//! each probe, which older kernels need. Both count the same.

use anyhow::Result;
use unfreed_tests::model::MemoryKind;
use unfreed_tests::{Finished, Sums, Tracer, kernel_version};

/// The first kernel with `uprobe_multi` links.
const LINKS: (u32, u32) = (6, 6);

/// Traces a program that repeats itself to the byte, on a road.
fn run_on(road: &str) -> Result<Finished> {
    let command = ["jq", "--null-input", "1"];
    let tracer = Tracer::run_with(&["-v"], &command, |tracer| {
        tracer.env("UNFREED_ATTACH", road);
    })?;
    tracer.wait()
}

/// What the program allocates.
fn heap_on(road: &str, name: &str) -> Result<Sums> {
    let finished = run_on(road)?;
    assert!(finished.stderr.contains(name), "{}", finished.stderr);
    let report = finished.report()?;
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());
    Ok(report.sums("", MemoryKind::Heap))
}

#[test]
fn both_roads_count_the_same() -> Result<()> {
    let perf = heap_on("perf", "perf events")?;
    assert!(perf.allocated_count > 1000, "{perf:?}");
    if kernel_version()? < LINKS {
        return run_on("multi")?.fails_saying(&["Invalid argument"]);
    }
    assert_eq!(heap_on("multi", "uprobe_multi links")?, perf);
    Ok(())
}

#[test]
fn an_unknown_road_is_an_error() -> Result<()> {
    let tracer = Tracer::run_with(&[], &["true"], |tracer| {
        tracer.env("UNFREED_ATTACH", "sideways");
    })?;
    tracer.wait()?.fails_saying(&["it can be perf or multi"])
}
