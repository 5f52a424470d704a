//! Pools that free single objects: each object is a block, charged to who asked for
//! it, and what the pool takes and gives back below is none.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use tracer_ebpf::sample::{ONE, Sampling};
use unfreed_tests::{
    KernelMap, Sums, Target, Tracer, View, erlang, target_path, unfreed, wait_until,
};

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

/// A program runs commands, traced with such options, and each is compared with what the
/// tracer saw. What it had freed of blocks from before.
fn agree(
    command: &mut Command,
    options: &[&str],
    commands: &[&str],
    untraced_frees: bool,
) -> Result<View> {
    let mut target = Target::start_with(command)?;
    let tracer = Tracer::record(target.pid, options)?;
    let mut truths = Vec::new();
    for name in commands {
        truths.push((name, target.command(name)?));
    }
    let report = tracer.stop()?.report()?;
    for (name, truth) in &truths {
        let agreed = report.sites_agree_with(truth);
        agreed.with_context(|| format!("{name} {options:?} {:?}", report.occurred()))?;
    }
    let truth: u64 = truths.iter().map(|(_, truth)| truth.untraced_frees).sum();
    let found = report.totals.untraced_frees;
    ensure!(
        !untraced_frees || found == truth,
        "{found} frees of old blocks instead of {truth}"
    );
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    Ok(report)
}

/// GLib's slices, of its own pages or one by one from malloc.
fn slices(mode: Option<&str>, options: &[&str]) -> Result<()> {
    let mut command = Command::new(target_path("pools")?);
    command.envs(mode.map(|mode| ("G_SLICE", mode)));
    agree(&mut command, options, &COMMANDS, true).map(drop)
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

const APR: [&str; 15] = [
    "kept",
    "cleared",
    "descendants",
    "only_children",
    "zeroed",
    "copied",
    "formatted",
    "large",
    "many",
    "in_old",
    "last_wills",
    "nodes",
    "given_back",
    "long_texts",
    "threads",
];

/// APR's pools, whose objects are freed when their pool is cleared or destroyed.
fn apr(options: &[&str]) -> Result<()> {
    let mut command = Command::new(target_path("apr")?);
    agree(&mut command, options, &APR, true).map(drop)
}

#[test]
fn apr_pools() -> Result<()> {
    apr(&["--pools"])
}

#[test]
fn apr_pools_by_return_instructions() -> Result<()> {
    apr(&["--pools", "--returns", "instructions"])
}

/// What the option would probe is listed, and which files have none of it not.
#[test]
fn doctor_lists_what_the_option_probes() -> Result<()> {
    for (program, expected) in [("apr", true), ("leak", false)] {
        let target = Target::start(program)?;
        let finished = unfreed(&["doctor", "-p", &target.pid.to_string()])?;
        ensure!(finished.status.success(), "{}", finished.stdout);
        for part in ["pools of ", "apr_palloc", "apr_pool_clear"] {
            ensure!(
                finished.stdout.contains(part) == expected,
                "{}",
                finished.stdout
            );
        }
    }
    Ok(())
}

/// Objects that are too small are left out, by what they turn out to be.
#[test]
fn small_objects_of_apr_pools_are_left_out() -> Result<()> {
    let mut target = Target::start("apr")?;
    let tracer = Tracer::record(target.pid, &["--pools", "--min-size", "190"])?;
    let formatted = target.command("formatted")?;
    for small in ["copied", "kept"] {
        target.command(small)?;
    }
    let report = tracer.stop()?.report()?;
    report.sites_agree_with(&formatted)?;
    report.has_nothing_but(&formatted)?;
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    Ok(())
}

/// Each process has its own copy of a pool, and when it ends nothing of that is left in
/// the kernel.
#[test]
fn apr_pools_of_children() -> Result<()> {
    for per_process in [
        &["--pools", "--follow"][..],
        &["--pools", "--follow", "--per-process"],
    ] {
        let mut target = Target::start("apr")?;
        let tracer = Tracer::record(target.pid, per_process)?;
        let truth = target.command("forked")?;
        wait_until("what children had has left the maps", || {
            let objects = KernelMap::of(tracer.pid(), "OBJECTS")?.keys()?.len();
            let arenas = KernelMap::of(tracer.pid(), "ARENAS")?.keys()?.len();
            Ok((objects == 23 && arenas == 1).then_some(()))
        })?;
        let report = tracer.stop()?.report()?;
        report.sites_agree_with(&truth)?;
        ensure!(report.lost() == 0, "{:?}", report.occurred());
        ensure!(report.totals.untraced_frees == 0, "{:?}", report.totals);
    }
    Ok(())
}

/// Whether an estimate of so many blocks of this size is within six standard deviations
/// of what it may be: it is not in two of a billion.
fn is_near(found: Sums, size: u64, truth: u64) -> Result<()> {
    let p = Sampling::every(16 << 10).probability(size) as f64 / ONE as f64;
    let deviation = (truth as f64 * (1.0 - p) / p).sqrt();
    let off = found.allocated_count as f64 - truth as f64;
    ensure!(off.abs() < 6.0 * deviation, "{found:?} instead of {truth}");
    // But for what is rounded.
    let average = found.allocated_bytes as f64 / found.allocated_count as f64;
    ensure!(
        (average / size as f64 - 1.0).abs() < 1e-3,
        "{found:?} of {size} bytes"
    );
    Ok(())
}

/// A string's size is known when it is there: it is chosen by that all the same. What is
/// freed takes its weight along.
#[test]
fn apr_pools_can_be_sampled() -> Result<()> {
    let mut target = Target::start("apr")?;
    let tracer = Tracer::record(target.pid, &["--pools", "--sample", "16k"])?;
    for command in ["grown", "texts", "many"] {
        target.command(command)?;
    }
    let report = tracer.stop()?.report()?;
    is_near(report.heap("fill"), 1009, 20_011)?;
    is_near(report.heap("texts"), 997, 20_011)?;
    is_near(report.heap("many"), 19, 200_003)?;
    for (function, share) in [("fill", 1), ("texts", 1), ("many", 0)] {
        let found = report.heap(function);
        ensure!(
            found.live_count == share * found.allocated_count,
            "{found:?}"
        );
    }
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    Ok(())
}

/// Without the option nothing of a pool is seen but what it takes from below, and the
/// table says what that is, and how to see more.
#[test]
fn a_refill_names_the_option() -> Result<()> {
    let hint = "more memory for an APR pool";
    for (options, is_said) in [(&[][..], true), (&["--pools"][..], false)] {
        let mut target = Target::start("apr")?;
        let tracer = Tracer::record(target.pid, options)?;
        target.command("grown")?;
        let finished = tracer.stop()?;
        let words: Vec<_> = finished.stdout.split_whitespace().collect();
        let words = words.join(" ");
        ensure!(words.contains(hint) == is_said, "{words}");
        ensure!(
            words.contains("--pools counts its objects") == is_said,
            "{words}"
        );
    }
    Ok(())
}

/// talloc's objects are blocks of malloc's, freed with their parents.
#[test]
fn talloc_objects() -> Result<()> {
    let mut command = Command::new(target_path("talloc")?);
    let commands = [
        "kept",
        "with_parent",
        "stolen",
        "grown",
        "zeroed",
        "copied",
        "pooled",
        "pool_freed",
    ];
    agree(&mut command, &[], &commands, true).map(drop)
}

const NATIVE: [&str; 6] = ["kept", "freed", "grown", "drivers", "large", "elsewhere"];

/// What native code gets of Erlang's runtime is charged to it, whatever the runtime takes
/// from below meanwhile.
#[test]
fn erlang_native_code() -> Result<()> {
    agree(&mut erlang()?, &[], &NATIVE, false).map(drop)
}

/// The same if all that the runtime allocates is counted.
#[test]
fn erlang_carriers() -> Result<()> {
    agree(&mut erlang()?, &["--pools"], &NATIVE, false).map(drop)
}
