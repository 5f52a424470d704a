//! Calls that are too small to be followed: where the kernel has session links, nobody
//! is told of their returns, and what they do is the allocator's all the same.

use anyhow::Result;
use unfreed_tests::model::MemoryKind;
use unfreed_tests::{Target, Tracer, View, kernel_version};

/// The first kernel with session links.
const SESSIONS: (u32, u32) = (6, 13);

fn returns(report: &View) -> u64 {
    let hits = report.overhead.hits.iter();
    let returns = hits.filter(|hits| hits.kind == "return_probe");
    returns.map(|hits| hits.count).sum()
}

#[test]
fn a_call_that_is_too_small_pays_for_no_return() -> Result<()> {
    // Of 64 sizes from 64 on 28 are at least 100.
    const PAIRS: u64 = 64 * 151;
    const LARGE: u64 = 28 * 151;
    let mut target = Target::start("hits")?;
    let tracer = Tracer::record(target.pid, &["--min-size", "100"])?;
    target.ask(&format!("pairs {PAIRS} 0"), "took ")?;
    let report = tracer.stop()?.report()?;
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());
    let heap = report.sums("", MemoryKind::Heap);
    assert_eq!((heap.allocated_count, heap.freed_count), (LARGE, LARGE));
    let told = match kernel_version()? >= SESSIONS {
        true => LARGE,
        false => PAIRS,
    };
    assert_eq!(returns(&report), told, "{:?}", report.overhead);
    Ok(())
}

#[test]
fn what_a_small_call_maps_is_the_allocators() -> Result<()> {
    let mut target = Target::start("hits")?;
    let tracer = Tracer::record(target.pid, &["--min-size", "100k"])?;
    target.ask("maps", "took ")?;
    let report = tracer.stop()?.report()?;
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());
    let mappings = report.sums("", MemoryKind::Mapping);
    assert_eq!((mappings.live_count, mappings.live_bytes), (3, 3 << 20));
    assert_eq!(report.sums("", MemoryKind::Heap).allocated_count, 0);
    Ok(())
}

/// A target that turns out to walk its stacks has its return addresses left alone from
/// then on: other links take over from session links.
#[test]
fn return_addresses_can_be_left_alone_later() -> Result<()> {
    const PAIRS: u64 = 64 * 151;
    let mut target = Target::start("hits")?;
    let options = ["--min-size", "100", "--returns", "instructions"];
    let tracer = Tracer::record(target.pid, &options)?;
    target.ask(&format!("pairs {PAIRS} 0"), "took ")?;
    let report = tracer.stop()?.report()?;
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());
    let heap = report.sums("", MemoryKind::Heap);
    assert_eq!(heap.allocated_count, 28 * 151);
    assert_eq!(returns(&report), 0, "{:?}", report.overhead);
    Ok(())
}
