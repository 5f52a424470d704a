//! fork, exec, exit, and libraries that come late.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::{ProcessEnd, Report};
use unfreed_tests::{Sums, Target, Tracer, Truth, View, target_path, targets, wait_until};

fn process_named(report: &View, name: &str) -> Result<usize> {
    report
        .processes
        .iter()
        .position(|process| {
            Path::new(&process.executable)
                .file_name()
                .is_some_and(|file| file == name)
        })
        .with_context(|| format!("no process {name} in {:?}", report.processes))
}

// --- fork and exec in children ---

#[test]
fn a_child_changes_nothing_in_its_parent() -> Result<()> {
    let mut target = Target::start("lifecycle")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("fork_child")?;
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    assert_eq!(
        report.heap("child_allocates"),
        Sums::default(),
        "{}",
        report.table()
    );
    assert_eq!(report.processes.len(), 1, "{:?}", report.processes);
    Ok(())
}

#[test]
fn a_followed_child_is_a_process_of_its_own() -> Result<()> {
    let mut target = Target::start("lifecycle")?;
    let tracer = Tracer::record(target.pid, &["--follow", "--per-process"])?;
    target.command("fork_child")?;
    let report = tracer.stop()?.report()?;
    ensure!(report.processes.len() == 2, "{:?}", report.processes);
    let parent = report
        .processes
        .iter()
        .position(|process| process.pid == target.pid);
    let parent = parent.context("no parent")?;
    let child = 1 - parent;
    assert_eq!(report.processes[child].end, ProcessEnd::Exited);
    assert_eq!(
        report.heap_of_process(child, "child_allocates"),
        Sums::live(509, 3)
    );
    assert_eq!(
        report.heap_of_process(parent, "child_allocates"),
        Sums::default()
    );
    // The child's frees are of its own copy of the heap.
    assert_eq!(
        report.heap_of_process(parent, "fork_child"),
        Sums::blocks(503, 5, 1)
    );
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());
    Ok(())
}

#[test]
fn vfork_and_exec_change_nothing_in_the_parent() -> Result<()> {
    let mut target = Target::start("lifecycle")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("vfork_and_exec")?;
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    assert_eq!(report.processes.len(), 1, "{:?}", report.processes);
    Ok(())
}

#[test]
fn a_followed_child_that_execs_is_traced_from_its_start() -> Result<()> {
    let mut target = Target::start("lifecycle")?;
    let tracer = Tracer::record(target.pid, &["--follow"])?;
    let truth = target.command("vfork_and_exec")?;
    let report = tracer.stop()?.report()?;
    report.sites_agree_with(&truth)?;
    let leak = process_named(&report, "leak")?;
    assert_eq!(
        report.heap_of_process(leak, "leak_blocks"),
        Sums::live(1009, 7)
    );
    assert_eq!(report.processes[leak].end, ProcessEnd::Exited);
    Ok(())
}

// --- exec and exit of the target itself ---

#[test]
fn exec_begins_a_fresh_heap() -> Result<()> {
    let mut target = Target::start("lifecycle")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let before = target.command("exec_self")?;
    assert_eq!(target.wait_ready()?, target.pid);
    let after = target.command("after_exec")?;
    let report = tracer.stop()?.report()?;
    report.sites_agree_with(&before)?;
    report.sites_agree_with(&after)?;
    let ends: Vec<ProcessEnd> = report.processes.iter().map(|process| process.end).collect();
    assert_eq!(
        ends,
        [ProcessEnd::Exec, ProcessEnd::Running],
        "{:?}",
        report.processes
    );
    assert_eq!(report.heap_of_process(0, "after_exec"), Sums::default());
    assert_eq!(report.heap_of_process(1, "exec_self"), Sums::default());
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());
    Ok(())
}

/// The kernel ties probes to the main thread, which ends here. What that
/// costs must be told.
fn is_exact_or_says_what_it_lost(report: &View, truth: &Truth) -> Result<()> {
    if report.lost() == 0 {
        report.sites_agree_with(truth)
    } else {
        Ok(())
    }
}

#[test]
fn exec_in_a_thread_begins_a_fresh_heap() -> Result<()> {
    let mut target = Target::start("lifecycle")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let mut truth = target.command("exec_from_a_thread")?;
    assert_eq!(target.wait_ready()?, target.pid);
    truth.add(target.command("after_exec")?);
    let report = tracer.stop()?.report()?;
    let ends: Vec<ProcessEnd> = report.processes.iter().map(|process| process.end).collect();
    assert_eq!(
        ends,
        [ProcessEnd::Exec, ProcessEnd::Running],
        "{:?}",
        report.processes
    );
    is_exact_or_says_what_it_lost(&report, &truth)
}

#[test]
fn the_main_thread_may_end_first() -> Result<()> {
    let mut target = Target::start("lifecycle")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("end_main_thread")?;
    let report = tracer.stop()?.report()?;
    assert_eq!(report.processes[0].end, ProcessEnd::Running);
    is_exact_or_says_what_it_lost(&report, &truth)
}

/// Processes that lost their probes with their main thread.
fn orphans(report: &Report) -> u64 {
    let mut losses = report.losses.iter();
    let loss = losses.find(|loss| loss.cause == "main_thread_ended");
    loss.map_or(0, |loss| loss.count)
}

/// A probe of the same functions goes in another process, and the kernel takes
/// those away of a process without a main thread; unless somebody who follows
/// children wants them everywhere just then.
#[test]
fn probes_that_went_with_the_main_thread_are_told() -> Result<()> {
    let mut target = Target::start("lifecycle")?;
    let tracer = Tracer::record(target.pid, &["--interval", "1s"])?;
    let written = tracer.folder().join("report.json");
    target.command("end_main_thread")?;
    let other = Target::start("leak")?;
    wait_until("the loss", || {
        Tracer::record(other.pid, &[])?.stop()?;
        let text = fs::read(&written).unwrap_or_default();
        let report: Option<Report> = serde_json::from_slice(&text).ok();
        Ok(report.filter(|report| orphans(report) > 0))
    })?;
    let report = tracer.stop()?.report()?;
    assert_eq!(report.processes[0].end, ProcessEnd::Running);
    assert_eq!(orphans(&report), 1, "{:?}", report.losses);
    Ok(())
}

#[test]
fn an_exit_during_the_run_ends_it_with_everything_gathered() -> Result<()> {
    let mut target = Target::start("lifecycle")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("exit_now")?;
    target.wait()?;
    let report = tracer.wait()?.report()?;
    report.agrees_with(&truth)?;
    assert_eq!(report.processes[0].end, ProcessEnd::Exited);
    Ok(())
}

// --- libraries ---

#[test]
fn a_library_opened_after_attach_is_traced_and_named() -> Result<()> {
    let mut target = Target::start("lifecycle")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("open_library")?;
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    let frames = report
        .sites_with("plugin_allocates")
        .flat_map(|site| &site.frames);
    let module = frames
        .filter(|frame| frame.function.as_deref() == Some("plugin_allocates"))
        .find_map(|frame| frame.module.clone());
    assert!(
        module
            .as_ref()
            .is_some_and(|path| path.ends_with("libplugin.so")),
        "{module:?}"
    );
    Ok(())
}

#[test]
fn a_second_libc_is_traced() -> Result<()> {
    let mut target = Target::start("lifecycle")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("open_second_libc")?;
    tracer.stop()?.report()?.agrees_with(&truth)
}

#[test]
fn a_libc_that_only_comes_with_exec_is_traced_from_its_first_call() -> Result<()> {
    let command = [
        target_path("exec_helper")?,
        target_path("leak")?,
        "leak_blocks".into(),
    ];
    let report = Tracer::run(&[], &command)?.wait()?.report()?;
    let leak = process_named(&report, "leak")?;
    assert_eq!(
        report.heap_of_process(leak, "leak_blocks"),
        Sums::live(1009, 7)
    );
    Ok(())
}

#[test]
fn a_shell_that_execs_is_traced_through() -> Result<()> {
    let script = "exec \"$0\" leak_blocks cache_blocks";
    let leak = target_path("leak")?.display().to_string();
    let report = Tracer::run(&[], &["sh", "-c", script, &leak])?
        .wait()?
        .report()?;
    let process = process_named(&report, "leak")?;
    assert_eq!(
        report.heap_of_process(process, "leak_blocks"),
        Sums::live(1009, 7)
    );
    assert_eq!(
        report.heap_of_process(process, "cache_blocks"),
        Sums::blocks(509, 100, 84)
    );
    Ok(())
}

// --- the same program with other libcs ---

fn leak_agrees(program: &str) -> Result<()> {
    let mut target = Target::start(program)?;
    let tracer = Tracer::record(target.pid, &[])?;
    let mut truth = target.command("leak_blocks")?;
    truth.add(target.command("cache_blocks")?);
    truth.add(target.command("scratch_blocks")?);
    tracer.stop()?.report()?.agrees_with(&truth)?;
    // From the first allocation on there are also those of libc's start.
    let program = target_path(program)?;
    let commands = ["leak_blocks", "cache_blocks", "scratch_blocks"];
    let command: Vec<_> = std::iter::once(program.as_os_str())
        .chain(commands.iter().map(std::ffi::OsStr::new))
        .collect();
    let report = Tracer::run(&[], &command)?.wait()?.report()?;
    assert_eq!(report.lost(), 0, "{:?}", report.occurred());
    report.sites_agree_with(&truth)
}

#[test]
fn a_dynamic_glibc_program() -> Result<()> {
    leak_agrees("leak")
}

#[test]
fn a_static_glibc_program() -> Result<()> {
    leak_agrees("leak_static")
}

#[test]
fn a_static_pie_glibc_program() -> Result<()> {
    leak_agrees("leak_static_pie")
}

#[test]
fn a_dynamic_musl_program() -> Result<()> {
    leak_agrees("leak_musl")
}

#[test]
fn a_static_musl_program() -> Result<()> {
    leak_agrees("leak_musl_static")
}

// --- pids ---

/// A process gets the id of one that was traced and died. It is another
/// process: nothing of it may be counted as the old one's.
#[test]
fn a_reused_pid_is_another_process() -> Result<()> {
    let (mut first, mut second) = (Target::start("leak")?, Target::start("leak")?);
    let second_pid = second.pid.to_string();
    let tracer = Tracer::record(first.pid, &["-p", &second_pid])?;
    let mut truth = first.command("leak_blocks")?;
    let pid = first.pid;
    first.kill()?;
    let mut reborn = Target::start_with(
        Command::new(target_path("spawn_as")?)
            .arg(pid.to_string())
            .arg(targets().join("leak")),
    )?;
    ensure!(
        reborn.pid == pid,
        "the kernel gave pid {} instead of {pid}",
        reborn.pid
    );
    reborn.command("leak_blocks")?;
    reborn.command("scratch_blocks")?;
    truth.add(second.command("cache_blocks")?);
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    let old = report.processes.iter().find(|process| process.pid == pid);
    assert_eq!(old.map(|process| process.end), Some(ProcessEnd::Exited));
    Ok(())
}
