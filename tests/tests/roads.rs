//! The two ways to attach probes: `uprobe_multi` links, and a perf event for
//! each probe, which older kernels need. Both count the same. And the ways to see system
//! calls where no program can be at the kernel's own functions.

use anyhow::{Result, ensure};
use unfreed_tests::model::MemoryKind;
use unfreed_tests::{
    EventCounter, Finished, Recording, Sums, Target, Tracer, kernel_version, unless_missed,
};

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

/// What a target does by each system call that is looked at.
const KINDS: [&str; 9] = [
    "map_raw",
    "map_by_syscall",
    "remap_raw",
    "grow_by_brk",
    "protect_reserved",
    "protect_by_key",
    "attach_segments",
    "map_private_file",
    "keep_running",
];

/// The same with `munmap` and `mremap`, and calls that fail.
const MAPPINGS: [&str; 6] = [
    "map_fails",
    "unmap_middle",
    "unmap_fails",
    "remap_moves_then_unmap",
    "remap_fails",
    "reserve_and_commit",
];

/// Sees system calls by a road.
fn seen_by(road: &str, program: &str, commands: &[&str]) -> Result<Recording> {
    Recording::with(program, commands, &[], |tracer| {
        tracer.env("UNFREED_SYSTEM_CALLS", road);
    })
}

/// The first kernel that counts what it leaves out at trace events.
const EVENTS: (u32, u32) = (6, 7);

#[test]
fn system_calls_are_the_same_by_each_road() -> Result<()> {
    for road in ["tracepoints", "events"] {
        if road == "events" && kernel_version()? < EVENTS {
            let refused = seen_by(road, "kinds", &[])?.report;
            let causes: Vec<_> = refused.occurred().iter().map(|it| &it.cause).collect();
            ensure!(causes == ["system_calls"], "{causes:?}");
            continue;
        }
        for (program, commands) in [("kinds", &KINDS[..]), ("mappings", &MAPPINGS)] {
            let run = || seen_by(road, program, commands);
            unless_missed(run, |recording| is_seen_whole(recording, road, program))?;
        }
    }
    Ok(())
}

fn is_seen_whole(recording: &Recording, road: &str, program: &str) -> Result<()> {
    recording.all_agree()?;
    let report = &recording.report;
    ensure!(report.lost() == 0, "{road}: {:?}", report.occurred());
    let cost = &report.overhead;
    let told = (cost.all_system_calls, cost.system_call_events);
    ensure!(
        told == (road == "tracepoints", road == "events"),
        "{road}: {told:?}"
    );
    let stacks = report.sums("keep_running", MemoryKind::ThreadStack);
    ensure!(
        program != "kinds" || stacks.live_count == 3,
        "{road}: {}",
        report.table()
    );
    Ok(())
}

/// A program at a trace event can keep the event from all others who count it.
#[test]
fn others_are_told_of_events_all_the_same() -> Result<()> {
    for event in ["sys_enter_munmap", "sys_exit_mmap"] {
        let mut target = Target::start("mappings")?;
        let counter = EventCounter::begin(target.pid, &format!("syscalls/{event}"))?;
        target.command("map_and_unmap")?;
        let once = counter.count()?;
        ensure!(once > 0, "{event} does not happen");
        let tracer = Tracer::record_with(target.pid, &[], |tracer| {
            tracer.env("UNFREED_SYSTEM_CALLS", "events");
        })?;
        target.command("map_and_unmap")?;
        let twice = counter.count()?;
        tracer.stop()?.report()?;
        assert_eq!(twice, 2 * once, "{event}");
    }
    Ok(())
}

#[test]
fn an_unknown_road_to_system_calls_is_an_error() -> Result<()> {
    let tracer = Tracer::run_with(&[], &["true"], |tracer| {
        tracer.env("UNFREED_SYSTEM_CALLS", "sideways");
    })?;
    let said = ["it can be functions, events or tracepoints"];
    tracer.wait()?.fails_saying(&said)
}
