//! What comes between: a run that ends within a call, ends that the kernel did
//! not tell, removals that it refused. The last two cannot be had to order; the
//! test writes into the kernel's maps what they leave there.

use anyhow::{Result, ensure};
use unfreed_tests::{KernelMap, Sums, Target, Tracer};

// --- the end of a run within calls ---

/// What the tracer does first when it ends: nothing counts from now on.
fn end_counting(tracer: &Tracer) -> Result<()> {
    KernelMap::of(tracer.pid(), "ACTIVE")?.set(&[0; 4], &[0; 8])
}

/// Calls that return after the end of the run, and what they have taken, by
/// the kernel's sums and by the ages of single blocks.
fn end_within_calls(options: &[&str], is_let_go: bool) -> Result<()> {
    let mut target = Target::start("held")?;
    let tracer = Tracer::record(target.pid, options)?;
    let truth = target.command("prepare")?;
    target.command("hold")?;
    if is_let_go {
        end_counting(&tracer)?;
        // The probes are still there, and all three threads end, too.
        target.command("let_go")?;
    }
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    let oldest = report.sites.iter().map(|site| site.oldest_age.is_some());
    ensure!(oldest.eq([true; 2]), "{}", report.table());
    Ok(())
}

#[test]
fn calls_that_return_after_the_end_have_not_happened() -> Result<()> {
    end_within_calls(&[], true)?;
    end_within_calls(&["--older-than", "1us"], true)
}

#[test]
fn calls_in_flight_at_the_end_have_not_happened() -> Result<()> {
    end_within_calls(&[], false)?;
    end_within_calls(&["--older-than", "1us"], false)
}

#[test]
fn calls_that_return_before_the_end_have_happened() -> Result<()> {
    let mut target = Target::start("held")?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("prepare")?;
    target.command("hold")?;
    let truth = target.command("let_go")?;
    tracer.stop()?.report()?.agrees_with(&truth)
}

// --- ends that were not told ---

/// The process of a thread's key.
fn process_of(key: &[u8]) -> u32 {
    key[4..]
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[test]
fn a_record_that_is_left_behind_does_not_speak_for_the_next_process() -> Result<()> {
    let mut target = Target::start("reused")?;
    let tracer = Tracer::record(target.pid, &["--follow", "--per-process"])?;
    target.command("begin_first")?;
    let threads = KernelMap::of(tracer.pid(), "THREADS")?;
    let mut keys = threads.keys()?;
    // The tracer has tried its probes on itself.
    keys.retain(|key| ![target.pid, tracer.pid()].contains(&process_of(key)));
    let [key] = keys.as_slice() else {
        anyhow::bail!("not one child: {keys:?}");
    };
    let (record, pid) = (threads.get(key)?, process_of(key));
    target.command("end_first")?;
    threads.set(key, &record)?;
    target.command("second")?;
    let report = tracer.stop()?.report()?;
    let pids: Vec<_> = report.processes.iter().map(|each| each.pid).collect();
    ensure!(pids == [target.pid, pid, pid], "{pid}: {pids:?}");
    let of = |child| {
        let own = |function| report.heap_of_process(child, function);
        (own("first_allocates"), own("second_allocates"))
    };
    let none = Sums::default();
    ensure!(of(1) == (Sums::live(571, 3), none), "{}", report.table());
    ensure!(of(2) == (none, Sums::live(577, 5)), "{}", report.table());
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    Ok(())
}

// --- removals that were refused ---

/// Where a live block has the index of its site.
const SITE: std::ops::Range<usize> = 16..20;

#[test]
fn a_block_that_the_kernel_would_not_remove_is_gone() -> Result<()> {
    let mut target = Target::start("reused")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let live = KernelMap::of(tracer.pid(), "LIVE")?;
    target.command("take")?;
    let keys = live.keys()?;
    let [key] = keys.as_slice() else {
        anyhow::bail!("{} blocks", keys.len());
    };
    let mut block = live.get(key)?;
    target.command("give")?;
    ensure!(live.keys()?.is_empty(), "the block is still there");
    // As the kernel side leaves what it cannot remove: without a site.
    block[SITE].fill(0xff);
    live.set(key, &block)?;
    for command in ["take", "give", "take"] {
        target.command(command)?;
    }
    let report = tracer.stop()?.report()?;
    let sums = report.heap("take");
    ensure!(sums == Sums::blocks(587, 3, 2), "{}", report.table());
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    ensure!(report.totals.untraced_frees == 0, "a free of nobody's");
    Ok(())
}
