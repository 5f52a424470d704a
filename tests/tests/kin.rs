//! Processes and their children: which are traced, and what they inherit.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::Report;
use unfreed_tests::{Sums, Target, Tracer, View, binary, wait_until};

/// Runs commands of `kin` under the tracer.
fn traced(commands: &[&str], options: &[&str]) -> Result<(u32, View)> {
    let mut target = Target::start("kin")?;
    let tracer = Tracer::record(target.pid, options)?;
    for command in commands {
        target.command(command)?;
    }
    Ok((target.pid, tracer.stop()?.report()?))
}

/// What a function allocated in one process.
fn heap_of(report: &View, pid: u32, function: &str) -> Result<Sums> {
    let mut processes = report.processes.iter();
    let index = processes.position(|process| process.pid == pid);
    Ok(report.heap_of_process(index.context("it is not in the report")?, function))
}

// --- frees of copies ---

/// A command of `kin` that forks: its frees by children of what they inherited,
/// its frees of what was there before the run, and its own blocks of 503 bytes.
fn is_told_apart(command: &str, frees: (u64, u64), own: (u64, u64)) -> Result<()> {
    let (pid, report) = traced(&[command], &["--follow", "--per-process"])?;
    let totals = &report.totals;
    let found = (totals.inherited_frees, totals.untraced_frees);
    ensure!(found == frees, "{found:?} instead of {frees:?}");
    ensure!(totals.inherited_forgotten == 0, "{totals:?}");
    let found = heap_of(&report, pid, command)?;
    ensure!(found == Sums::blocks(503, own.0, own.1), "{found:?}");
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    Ok(())
}

#[test]
fn a_child_frees_what_its_parent_keeps() -> Result<()> {
    is_told_apart("parent_keeps", (3, 0), (7, 0))
}

#[test]
fn a_child_frees_what_its_parent_has_freed_since() -> Result<()> {
    is_told_apart("parent_frees_first", (5, 0), (7, 5))
}

#[test]
fn a_child_frees_what_its_parent_has_freed_and_got_again() -> Result<()> {
    is_told_apart("parent_uses_it_again", (1, 0), (5, 4))
}

#[test]
fn each_child_frees_the_block_of_its_time() -> Result<()> {
    is_told_apart("a_child_for_each_life", (4, 0), (5, 4))
}

/// 3 frees by the child and one by the parent are of blocks from before, also
/// where the parent has a block of the run in the same place.
#[test]
fn blocks_from_before_the_run_are_not_inherited() -> Result<()> {
    is_told_apart("from_before", (0, 4), (1, 0))
}

#[test]
fn a_grandchild_inherits_too() -> Result<()> {
    is_told_apart("grandchild_frees", (3, 0), (5, 0))
}

/// The parent of the one that frees has ended, and user space has put its blocks
/// away.
#[test]
fn a_child_outlives_its_parent() -> Result<()> {
    let mut target = Target::start("kin")?;
    let mut tracer = Tracer::record(target.pid, &["--follow", "--per-process", "-v"])?;
    target.command("leave_an_orphan")?;
    tracer.wait_saying("exited with status 0")?;
    target.command("orphan_frees")?;
    let report = tracer.stop()?.report()?;
    let totals = &report.totals;
    assert_eq!((totals.inherited_frees, totals.untraced_frees), (4, 0));
    assert_eq!(report.heap("middle_keeps"), Sums::blocks(503, 6, 1));
    Ok(())
}

/// The child frees its copy, and then a block in its place that is too small.
#[test]
fn a_small_block_in_place_of_a_copy_is_none() -> Result<()> {
    let options = ["--follow", "--per-process", "--min-size", "1020"];
    let (_, report) = traced(&["small_ones_in_place"], &options)?;
    let totals = &report.totals;
    assert_eq!((totals.inherited_frees, totals.untraced_frees), (1, 1));
    Ok(())
}

/// Without `--follow` nothing of a child is counted.
#[test]
fn children_that_are_not_followed_free_nothing() -> Result<()> {
    let commands = ["parent_keeps", "parent_frees_first", "grandchild_frees"];
    let (pid, report) = traced(&commands, &[])?;
    let totals = &report.totals;
    assert_eq!((totals.inherited_frees, totals.untraced_frees), (0, 0));
    let found = heap_of(&report, pid, "parent_frees_first")?;
    assert_eq!(found, Sums::blocks(503, 7, 5));
    Ok(())
}

#[test]
fn the_table_tells_inherited_frees() -> Result<()> {
    let mut target = Target::start("kin")?;
    let tracer = Tracer::record(target.pid, &["--follow", "--per-process"])?;
    target.command("parent_keeps")?;
    let finished = tracer.stop()?;
    let words = finished.stdout.split_whitespace().collect::<Vec<_>>();
    let text = words.join(" ");
    let expected = "and 3 frees by children of blocks that they inherited";
    assert!(text.contains(expected), "{text}");
    assert!(!text.contains("of blocks from before the run"), "{text}");
    Ok(())
}

// --- living descendants ---

/// Two children, and a child of each, were there before.
#[test]
fn living_descendants_are_followed() -> Result<()> {
    let mut target = Target::start("kin")?;
    target.command("small_family")?;
    let tracer = Tracer::record(target.pid, &["--follow", "--per-process"])?;
    let truth = target.command("family_allocates")?;
    let report = tracer.stop()?.report()?;
    report.sites_agree_with(&truth)?;
    ensure!(report.processes.len() == 5, "{:?}", report.processes);
    for process in &report.processes {
        let blocks = if process.pid == target.pid { 0 } else { 3 };
        let found = heap_of(&report, process.pid, "kin_keep")?;
        ensure!(found == Sums::live(601, blocks), "{process:?}: {found:?}");
    }
    ensure!(report.untraced.is_empty(), "{:?}", report.untraced);
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    Ok(())
}

/// A child forks all the time, before, while and after it is attached to; later
/// each of its children allocates one block.
#[test]
fn children_that_are_forked_meanwhile_are_taken_once() -> Result<()> {
    let mut target = Target::start("kin")?;
    target.command("begin_storm")?;
    let tracer = Tracer::record(target.pid, &["--follow", "--per-process"])?;
    let truth = target.command("end_storm")?;
    let report = tracer.stop()?.report()?;
    report.sites_agree_with(&truth)?;
    let mut blocks: BTreeMap<u32, u64> = BTreeMap::new();
    for site in report.sites_with("storm_keeps") {
        let pid = report.processes[site.process].pid;
        *blocks.entry(pid).or_default() += site.allocated_count;
    }
    ensure!(blocks.values().all(|count| *count == 1), "{blocks:?}");
    let mut pids: Vec<u32> = report.processes.iter().map(|it| it.pid).collect();
    pids.sort_unstable();
    let all = pids.len();
    pids.dedup();
    ensure!(pids.len() == all, "{} of {all} are twice", all - pids.len());
    // And the program itself. The child that forked has allocated nothing.
    ensure!(blocks.len() + 1 == all, "{} of {all}", blocks.len());
    ensure!(report.untraced.is_empty(), "{:?}", report.untraced);
    Ok(())
}

// --- children that hold more than their parent ---

/// Resident anonymous memory by the kernel's account, bytes.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no RssAnon")?.parse::<u64>()? * 1024)
}

fn children_of(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(child) = entry?.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().unwrap_or_default();
        if parent.split_whitespace().nth(1) == Some(&pid.to_string()) {
            children.push(child);
        }
    }
    Ok(children)
}

/// Whether a process and all its descendants sleep.
fn all_wait(pid: u32) -> Result<bool> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let mut all = stat.contains(") S ");
    for child in children_of(pid)? {
        all &= all_wait(child)?;
    }
    Ok(all)
}

/// Resident anonymous memory of all its descendants together, bytes.
fn resident_below(pid: u32) -> Result<u64> {
    let mut all = 0;
    for child in children_of(pid)? {
        all += resident(child)? + resident_below(child)?;
    }
    Ok(all)
}

/// What a process holds more or less when another test follows children: a copy
/// of each page of libc with a breakpoint, of which there are some 10, bytes.
const BREAKPOINTS: u64 = 16 * 4096;

#[test]
fn children_that_hold_much_more_are_told() -> Result<()> {
    let mut target = Target::start("kin")?;
    target.command("large_family")?;
    let tracer = Tracer::record(target.pid, &[])?;
    // From here on nobody touches new memory.
    wait_until("all to wait", || Ok(all_wait(target.pid)?.then_some(())))?;
    let really = (resident(target.pid)?, resident_below(target.pid)?);
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let children = report.processes[0].children.context("it is not told")?;
    let found = (children.own_bytes, children.bytes);
    let is_near = |one: u64, other: u64, processes| one.abs_diff(other) <= processes * BREAKPOINTS;
    ensure!(children.count == 4, "{children:?}");
    ensure!(is_near(found.0, really.0, 1), "{found:?}, {really:?}");
    ensure!(is_near(found.1, really.1, 4), "{found:?}, {really:?}");
    assert!(children.bytes > 24 << 20 && children.bytes_at_start > 24 << 20);
    let command = format!("`sudo unfreed record -p {} --follow`", target.pid);
    let text = finished.stdout.split_whitespace().collect::<Vec<_>>();
    assert!(text.join(" ").contains(&command), "{text:?}");
    assert!(finished.stderr.contains(&command), "{}", finished.stderr);
    Ok(())
}

/// They come during the run.
#[test]
fn children_that_grow_are_told() -> Result<()> {
    let mut target = Target::start("kin")?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.command("large_family")?;
    let report = tracer.stop()?.report()?;
    let children = report.processes[0].children.context("it is not told")?;
    assert_eq!((children.count, children.bytes_at_start), (4, 0));
    assert!(children.bytes > 24 << 20, "{children:?}");
    Ok(())
}

#[test]
fn children_that_hold_little_or_are_traced_are_not_told() -> Result<()> {
    let mut target = Target::start("kin")?;
    target.command("small_family")?;
    let report = Tracer::record(target.pid, &[])?.stop()?.report()?;
    assert_eq!(report.processes[0].children, None);
    let mut target = Target::start("kin")?;
    target.command("large_family")?;
    let report = Tracer::record(target.pid, &["--follow", "--per-process"])?
        .stop()?
        .report()?;
    let mut processes = report.processes.iter();
    assert!(processes.all(|process| process.children.is_none()));
    Ok(())
}

/// A shell traces itself: the tracer is its child, and not traced for that.
#[test]
fn the_tracer_is_nobodys_child() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let written = folder.path().join("report.json");
    let script = r#""$0" record -q -p $$ --follow --duration 1s -o "$1"; exit $?"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(binary()?).arg(&written);
    ensure!(shell.status()?.success());
    let report: Report = serde_json::from_slice(&fs::read(&written)?)?;
    let names: Vec<_> = report.processes.iter().map(|it| &it.name).collect();
    assert_eq!(names, ["sh"]);
    Ok(())
}
