//! Children: one row for a program, room for any number of processes that come
//! and go, and whole stacks from the first call on.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::{MemoryKind, Site};
use unfreed_tests::{KernelMap, Sums, Target, Tracer, View, wait_known, wait_until};

/// Thousands of forks are told to every tracer: each test has the machine alone.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of a process in memory.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no VmRSS")?.parse::<u64>()? << 10)
}

/// How many entries a tracer's maps have that grow with processes.
fn entries(tracer: u32) -> Result<Vec<usize>> {
    ["PROCESSES", "THREADS", "CODE_OF", "LIVE", "SITE_INDEX"]
        .iter()
        .map(|name| Ok(KernelMap::of(tracer, name)?.keys()?.len()))
        .collect()
}

/// The maps' entries, once what ended a moment ago has left them.
fn settled(tracer: u32, most: usize) -> Result<Vec<usize>> {
    wait_until("what ended has left the maps", || {
        let counts = entries(tracer)?;
        let is_small = counts.iter().all(|count| *count <= most);
        Ok(is_small.then_some(counts))
    })
}

// --- many processes ---

#[test]
fn children_that_end_leave_nothing_but_their_numbers() -> Result<()> {
    let _alone = alone();
    const BATCHES: u64 = 5;
    let mut target = Target::start("offspring")?;
    let tracer = Tracer::record(target.pid, &["--follow"])?;
    // Until all that it keeps was used once.
    for _ in 0..2 {
        target.command("batch")?;
    }
    let maps = settled(tracer.pid(), 200)?;
    let before = resident(tracer.pid())?;
    for _ in 2..BATCHES {
        target.command("batch")?;
    }
    let after = settled(tracer.pid(), 200)?;
    let grown = resident(tracer.pid())?.saturating_sub(before);
    println!("maps {maps:?} {after:?}, tracer grown by {grown} bytes");
    ensure!(grown < 4 << 20, "the tracer has grown by {grown} bytes");
    let report = tracer.stop()?.report()?;
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    let children = BATCHES * 1000;
    ensure!(
        report.heap("child_leaves") == Sums::live(613, children * 7),
        "{}",
        report.table()
    );
    ensure!(report.processes.len() == 1, "{:?}", report.processes);
    let program = &report.processes[0];
    ensure!(
        program.processes == children + 1 && program.running == 1,
        "{program:?}"
    );
    let site = report
        .sites_with("child_leaves")
        .next()
        .context("no site")?;
    ensure!(site.processes == children, "{}", site.processes);
    ensure!(
        site.shares.len() as u64 == children.min(64),
        "{:?}",
        site.shares
    );
    for share in &site.shares {
        ensure!(
            share.ended && (share.live_count, share.live_bytes) == (7, 7 * 613),
            "{share:?}"
        );
    }
    Ok(())
}

#[test]
fn paths_that_nothing_is_live_at_make_room_for_others() -> Result<()> {
    let _alone = alone();
    let mut target = Target::start("offspring")?;
    // Each child has paths of its own, far more than there is room for.
    const SITES: u64 = 1024;
    let options = ["--follow", "--per-process", "--max-sites", "1024"];
    let tracer = Tracer::record(target.pid, &options)?;
    for _ in 0..4 {
        target.command("batch")?;
    }
    let report = tracer.stop()?.report()?;
    let kept = report.sums_of_size(613, MemoryKind::Heap).live_count;
    // What there was no room for is counted by its cause.
    let full = report.losses.iter().find(|loss| loss.cause == "sites_full");
    let lost = full.map_or(0, |loss| loss.count);
    println!("{kept} blocks have a path, {lost} are lost");
    ensure!(kept > SITES * 7, "{kept} blocks, {lost} lost");
    ensure!(kept + lost >= 28_000, "{kept} blocks, {lost} lost");
    Ok(())
}

// --- rows ---

#[test]
fn processes_of_one_program_are_one_row() -> Result<()> {
    let _alone = alone();
    let mut target = Target::start("lifecycle")?;
    let tracer = Tracer::record(target.pid, &["--follow"])?;
    target.command("fork_child")?;
    let report = tracer.stop()?.report()?;
    ensure!(report.processes.len() == 1, "{:?}", report.processes);
    let program = &report.processes[0];
    ensure!(program.pid == target.pid, "{program:?}");
    ensure!(
        (program.processes, program.running) == (2, 1),
        "{program:?}"
    );
    ensure!(
        report.sums_of_size(509, MemoryKind::Heap) == Sums::live(509, 3),
        "{}",
        report.table()
    );
    ensure!(
        report.sums_of_size(503, MemoryKind::Heap) == Sums::blocks(503, 5, 1),
        "{}",
        report.table()
    );
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    Ok(())
}

#[test]
fn each_running_process_has_its_share() -> Result<()> {
    const CROWD: u64 = 100;
    let _alone = alone();
    let mut target = Target::start("offspring")?;
    let tracer = Tracer::record(target.pid, &["--follow"])?;
    target.command("crowd")?;
    let report = tracer.stop()?.report()?;
    let site = report.sites_with("child_keeps").next().context("no site")?;
    ensure!(site.processes == CROWD, "{}", site.processes);
    let held: Vec<_> = site
        .shares
        .iter()
        .map(|share| (share.ended, share.live_count, share.live_bytes))
        .collect();
    let all: Vec<_> = (1..=CROWD)
        .rev()
        .map(|blocks| (false, blocks, 613 * blocks))
        .collect();
    ensure!(held == all, "{held:?}");
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    Ok(())
}

// --- stacks ---

/// Parts of the allocations whose stacks are whole.
fn whole(report: &View) -> f64 {
    report.stacks.whole as f64 / report.stacks.allocations as f64
}

#[test]
fn programs_that_live_for_a_millisecond_have_whole_stacks() -> Result<()> {
    let _alone = alone();
    let script = "i=0; while [ $i -lt 300 ]; do ls / > /dev/null; i=$((i + 1)); done";
    let report = Tracer::run(&["--follow"], &["sh", "-c", script])?
        .wait()?
        .report()?;
    ensure!(whole(&report) >= 0.99, "{:?}", report.stacks);
    let lister = report
        .processes
        .iter()
        .find(|process| process.processes == 300);
    ensure!(lister.is_some(), "{:?}", report.processes);
    Ok(())
}

#[test]
fn libraries_at_one_place_are_told_apart() -> Result<()> {
    let _alone = alone();
    let mut target = Target::start("changing")?;
    let round = ["load_thin", "use_thin", "replace", "use_wide", "unload"];
    let tracer = Tracer::record(target.pid, &[])?;
    // Each file is met once.
    for command in round {
        target.command(command)?;
        wait_known(tracer.pid(), target.pid)?;
    }
    // From then on nobody waits until the new code is known.
    for _ in 0..300 {
        for command in round {
            target.command(&[command].concat())?;
        }
    }
    let report = tracer.stop()?.report()?;
    ensure!(whole(&report) >= 0.99, "{:?}", report.stacks);
    let (mut all, mut wrong) = (0, 0);
    for (size, own, other) in [
        (1489, "libplugin_thin.so", "libplugin_wide.so"),
        (1499, "libplugin_wide.so", "libplugin_thin.so"),
    ] {
        let is_it = |site: &&Site| site.allocated_bytes == site.allocated_count * size;
        for site in report.sites.iter().filter(is_it) {
            let modules = site.frames.iter().filter_map(|frame| frame.module.as_ref());
            let has = |library: &str| modules.clone().any(|module| module.ends_with(library));
            all += site.allocated_count;
            if has(other) {
                println!("{size}: {site:?}");
                wrong += site.allocated_count;
            }
            let is_cut = site.stack_end.meaning().is_some();
            ensure!(has(own) || has(other) || is_cut, "{size}: {site:?}");
        }
    }
    // While mappings are published a change of them may go unnoticed for some
    // microseconds.
    ensure!(all > 3000 && wrong * 500 <= all, "{wrong} of {all}");
    Ok(())
}
