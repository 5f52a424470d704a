//! Blocks that are freed, and whose allocation nobody has seen: older than the run, or
//! from a function that is not probed.

use anyhow::{Result, ensure};
use unfreed_tests::{Target, Tracer, View};

const CAUSE: &str = "unseen_allocation";
const POOL: [&str; 2] = [
    "--allocator",
    "libunseen_library.so:unseen_get=size@0,unseen_put",
];

/// What a run with these commands lost by that cause, and all that it says.
fn traced(commands: &[&str], options: &[&str]) -> Result<(u64, u64, View, String)> {
    let mut target = Target::start("unseen")?;
    let tracer = Tracer::record(target.pid, &[&POOL, options].concat())?;
    let (mut frees, mut losses) = (0, 0);
    for command in commands {
        let truth = target.command(command)?;
        frees += truth.untraced_frees;
        losses += truth.losses;
    }
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let found = report.totals.untraced_frees;
    ensure!(found == frees, "{found} frees instead of {frees}");
    let words: Vec<_> = finished.stdout.split_whitespace().collect();
    Ok((losses, frees, report, words.join(" ")))
}

fn lost(report: &View) -> u64 {
    let losses = report.losses.iter();
    let own = losses.filter(|loss| loss.cause == CAUSE);
    own.map(|loss| loss.count).sum()
}

/// Each place can be freed once by blocks from before: what is more was allocated
/// unseen, every one of them.
#[test]
fn a_function_that_is_not_probed_is_betrayed_by_what_it_allocates() -> Result<()> {
    let (truth, frees, report, words) = traced(&["take_unseen"], &[])?;
    let found = lost(&report);
    ensure!(found == truth, "{found} instead of {truth}");
    let said = format!("{frees} frees of blocks whose allocation was not seen");
    ensure!(words.contains(&said), "no {said:?} in {words}");
    let said = format!("{truth} of them were freed by ");
    ensure!(
        words.contains(&said) && words.contains("/unseen"),
        "{words}"
    );
    Ok(())
}

#[test]
fn old_blocks_that_are_freed_are_no_loss() -> Result<()> {
    let (_, frees, report, words) = traced(&["free_old", "get_seen", "get_seen"], &[])?;
    ensure!(
        lost(&report) == 0 && report.lost() == 0,
        "{:?}",
        report.losses
    );
    let said = format!("{frees} frees of blocks from before the run");
    ensure!(words.contains(&said), "no {said:?} in {words}");
    Ok(())
}

/// Blocks below `--min-size` are no surprise.
#[test]
fn small_blocks_that_nobody_asked_for_are_no_loss() -> Result<()> {
    let mut target = Target::start("unseen")?;
    let options = [&POOL[..], &["--min-size", "300"]].concat();
    let tracer = Tracer::record(target.pid, &options)?;
    for command in ["get_seen", "get_seen", "take_unseen"] {
        target.command(command)?;
    }
    let report = tracer.stop()?.report()?;
    ensure!(lost(&report) == 0, "{:?}", report.losses);
    Ok(())
}
