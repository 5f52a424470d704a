//! The two ways to attach probes: `uprobe_multi` links, and a perf event for
//! each probe, which older kernels need. Both count the same.

use anyhow::Result;
use unfreed_tests::model::MemoryKind;
use unfreed_tests::{Sums, Tracer};

/// What a program that repeats itself to the byte allocates, traced on a road.
fn heap_on(road: &str, name: &str) -> Result<Sums> {
    let command = ["openssl", "dgst", "-sha256", "/dev/null"];
    let tracer = Tracer::run_with(&["-v"], &command, |tracer| {
        tracer.env("UNFREED_ATTACH", road);
    })?;
    let finished = tracer.wait()?;
    assert!(finished.stderr.contains(name), "{}", finished.stderr);
    let report = finished.report()?;
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());
    Ok(report.sums("", MemoryKind::Heap))
}

#[test]
fn both_roads_count_the_same() -> Result<()> {
    let multi = heap_on("multi", "uprobe_multi links")?;
    let perf = heap_on("perf", "perf events")?;
    assert!(multi.allocated_count > 1000, "{multi:?}");
    assert_eq!(perf, multi);
    Ok(())
}

#[test]
fn an_unknown_road_is_an_error() -> Result<()> {
    let tracer = Tracer::run_with(&[], &["true"], |tracer| {
        tracer.env("UNFREED_ATTACH", "sideways");
    })?;
    tracer.wait()?.fails_saying(&["it can be perf or multi"])
}
