//! Many threads, many call paths, and maps that are too small.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use unfreed_tests::model::{MemoryKind, Site, StackEnd};
use unfreed_tests::{Sums, Target, Tracer, View};

fn record(command: &str, options: &[&str]) -> Result<View> {
    let mut target = Target::start("overload")?;
    let tracer = Tracer::record(target.pid, options)?;
    target.command(command)?;
    tracer.stop()?.report()
}

/// Eight threads, two million blocks from every function, each freed by
/// another thread: nothing is left over and no number is off by one.
#[test]
fn churn_leaves_nothing_over() -> Result<()> {
    let mut target = Target::start("churn")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("churn")?;
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    for entry in &truth.sites {
        assert_eq!(
            report.sums(&entry.function, entry.kind).live_count,
            0,
            "{}",
            entry.function
        );
    }
    let blocks: u64 = truth.sites.iter().map(|entry| entry.allocated_count).sum();
    assert!(blocks >= 2_000_000, "{blocks}");
    Ok(())
}

/// The depth of `many_paths` and the size of its first block.
const DEPTH: usize = 10;
const FIRST_SIZE: u64 = 10007;

/// The number of a path, as its frames spell it.
fn path_of(site: &Site) -> Option<u64> {
    let names = site
        .frames
        .iter()
        .filter_map(|frame| frame.function.as_deref());
    let turns: Vec<u64> = names
        .filter_map(|name| match name {
            "left" => Some(0),
            "right" => Some(1),
            _ => None,
        })
        .collect();
    // The first frame is always `left`, and no turn.
    (turns.len() == DEPTH + 1).then(|| turns.iter().fold(0, |path, turn| path << 1 | turn))
}

#[test]
fn a_thousand_paths_never_share_a_stack() -> Result<()> {
    let report = record("many_paths", &[])?;
    let mut seen = BTreeSet::new();
    for site in report.sites_with("many_paths") {
        let path = path_of(site).with_context(|| format!("{:?}", site.frames))?;
        assert_eq!(
            Sums::of(site),
            Sums::live(FIRST_SIZE + path, 1),
            "path {path:010b}"
        );
        assert!(seen.insert(path), "path {path:010b} twice");
    }
    assert_eq!(seen.len(), 1 << DEPTH);
    assert_eq!(report.lost(), 0);
    Ok(())
}

#[test]
fn too_many_live_blocks_are_counted_as_lost() -> Result<()> {
    let report = record("many_blocks", &["--max-live", "1k"])?;
    let found = report.heap("many_blocks");
    assert_eq!(
        found.live_count + report.lost(),
        5000,
        "{found:?} {:?}",
        report.occurred()
    );
    assert_eq!(found.live_bytes, found.live_count * 601);
    assert!(found.live_count >= 1000, "the map holds 1024: {found:?}");
    assert!(
        report
            .sites_with("many_blocks")
            .all(|site| site.lower_bound)
    );
    Ok(())
}

#[test]
fn too_many_sites_are_counted_as_lost() -> Result<()> {
    let report = record("many_paths", &["--max-sites", "16"])?;
    let found = report.heap("many_paths");
    assert_eq!(
        found.live_count + report.lost(),
        1 << DEPTH,
        "{found:?} {:?}",
        report.occurred()
    );
    assert!((1..=16).contains(&found.live_count), "{found:?}");
    // What is there is attributed to the right path.
    for site in report.sites_with("many_paths") {
        let path = path_of(site).with_context(|| format!("{:?}", site.frames))?;
        assert_eq!(Sums::of(site), Sums::live(FIRST_SIZE + path, 1));
    }
    Ok(())
}

#[test]
fn a_failed_call_is_no_loss() -> Result<()> {
    let mut target = Target::start("overload")?;
    let tracer = Tracer::record(target.pid, &["--max-sites", "16"])?;
    target.command("many_paths")?;
    target.command("failing_calls")?;
    let report = tracer.stop()?.report()?;
    let found = report.heap("many_paths");
    assert_eq!(
        found.live_count + report.lost(),
        1 << DEPTH,
        "{found:?} {:?}",
        report.occurred()
    );
    Ok(())
}

#[test]
fn a_loss_names_its_cause_and_remedy() -> Result<()> {
    let report = record("many_blocks", &["--max-live", "1k"])?;
    let losses: Vec<_> = report.occurred_losses().collect();
    assert_eq!(losses.len(), 1, "{losses:?}");
    assert!(losses[0].meaning.contains("--max-live"), "{losses:?}");
    Ok(())
}

#[test]
fn a_hundred_frames_reach_main() -> Result<()> {
    let report = record("deep_stack", &[])?;
    assert_eq!(report.heap("deep_stack"), Sums::live(607, 1));
    let site = report.sites_with("deep_stack").next().context("no site")?;
    let depth = site
        .frames
        .iter()
        .filter(|frame| frame.function.as_deref() == Some("recurse"));
    assert_eq!(depth.count(), 100);
    assert!(
        site.frames
            .iter()
            .any(|frame| frame.function.as_deref() == Some("main"))
    );
    Ok(())
}

#[test]
fn a_deeper_stack_says_that_it_was_cut() -> Result<()> {
    let report = record("too_deep_stack", &[])?;
    let site = report.sites_with("recurse").next().context("no site")?;
    assert_eq!(site.stack_end, StackEnd::TooDeep);
    let frames = site.frames.iter().filter(|frame| !frame.inlined).count();
    assert!((120..=128).contains(&frames), "{frames} frames");
    assert_eq!(report.sums("recurse", MemoryKind::Heap), Sums::live(607, 1));
    Ok(())
}

/// Attaching and detaching again and again while the target works: no attach
/// may harm it, and each report is consistent in itself.
#[test]
fn attach_and_detach_in_the_middle_of_work() -> Result<()> {
    let mut target = Target::start("churn")?;
    target.tell("churn")?;
    target.tell("churn")?;
    for _ in 0..3 {
        let report = Tracer::record(target.pid, &[])?.stop()?.report()?;
        for site in &report.sites {
            assert_eq!(
                site.live_count,
                site.allocated_count - site.freed_count,
                "{site:?}"
            );
            assert_eq!(
                site.live_bytes,
                site.allocated_bytes - site.freed_bytes,
                "{site:?}"
            );
        }
    }
    target.command("churn")?;
    assert!(target.finish()?.success());
    Ok(())
}
