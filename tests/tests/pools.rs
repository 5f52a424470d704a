//! Pools that free single objects: each object is a block, charged to who asked for
//! it, and what the pool takes and gives back below is none.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::{Target, Tracer, target_path};

const COMMANDS: [&str; 8] = [
    "slices",
    "zeroed",
    "copied",
    "list",
    "kept_list",
    "all_freed",
    "large",
    "old_list",
];

/// GLib's slices, of its own pages or one by one from malloc.
fn slices(mode: Option<&str>, options: &[&str]) -> Result<()> {
    let mut command = Command::new(target_path("pools")?);
    command.envs(mode.map(|mode| ("G_SLICE", mode)));
    let mut target = Target::start_with(&mut command)?;
    let tracer = Tracer::record(target.pid, options)?;
    let mut truths = Vec::new();
    for name in COMMANDS {
        truths.push((name, target.command(name)?));
    }
    let report = tracer.stop()?.report()?;
    for (name, truth) in &truths {
        let agreed = report.sites_agree_with(truth);
        agreed.with_context(|| format!("{name} {mode:?} {options:?}"))?;
    }
    let truth: u64 = truths.iter().map(|(_, truth)| truth.untraced_frees).sum();
    let found = report.totals.untraced_frees;
    ensure!(
        found == truth,
        "{found} frees of old blocks instead of {truth}"
    );
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    Ok(())
}

#[test]
fn slices_of_pages() -> Result<()> {
    slices(None, &[])
}

#[test]
fn slices_by_return_instructions() -> Result<()> {
    slices(None, &["--returns", "instructions"])
}

#[test]
fn slices_that_are_mallocs() -> Result<()> {
    slices(Some("always-malloc"), &[])
}

/// What is not looked at is said.
#[test]
fn a_chain_that_is_too_long_is_a_loss() -> Result<()> {
    let mut target = Target::start("pools")?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("long_list")?;
    let report = tracer.stop()?.report()?;
    let losses = report.occurred();
    ensure!(losses.len() == 1, "{losses:?}");
    ensure!(
        losses[0].cause == "chain_cut" && losses[0].count == 1,
        "{losses:?}"
    );
    let list = report.heap("long_list");
    ensure!(
        list.allocated_count == 20_011 && list.freed_count == 16_384,
        "{list:?}"
    );
    Ok(())
}
