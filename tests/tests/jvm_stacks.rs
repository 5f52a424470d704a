//! Call paths of Java threads are whole: to the thread's start, through all
//! that a JVM has on its stacks, with no special flag.

use std::io::Write;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::java_stack::has_frame;
use unfreed_tests::model::{Frame, Origin, StackEnd};
use unfreed_tests::wholeness::{check, deflaters, mix_is_seen, nearly_all};
use unfreed_tests::{Jdk, Target, Tracer, View, wait_known};

/// Rounds of `stacks.Mix` in each of its threads.
const ROUNDS: u32 = 200;

/// Has `stacks.Mix` do its rounds: nearly all deflaters are seen, below the methods
/// that they were made in.
fn mixed_load(jdk: &Jdk, options: &[&str], rounds: u32) -> Result<View> {
    let mut target = jdk.start(options, "stacks.Mix", &[])?;
    let tracer = Tracer::record(target.pid, &[])?;
    wait_known(tracer.pid(), target.pid)?;
    let calls: u64 = target.ask(&format!("work {rounds}"), "done ")?.parse()?;
    let report = tracer.stop()?.report()?;
    check(&report, jdk)?;
    mix_is_seen(&report, calls)?;
    ensure!(target.finish()?.success());
    Ok(report)
}

#[test]
fn a_mixed_load_on_every_jdk() -> Result<()> {
    for jdk in Jdk::all()? {
        mixed_load(&jdk, &[], ROUNDS).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}

#[test]
fn a_compiler_at_work() -> Result<()> {
    let (jdk, folder) = (Jdk::full()?, tempfile::tempdir()?);
    let mut target = jdk.start(&[], "stacks.Compile", &[])?;
    let order = |times| format!("compile {} {times}", folder.path().display());
    // Loads the libraries.
    target.ask(&order(1), "done ")?;
    let tracer = Tracer::record(target.pid, &["--max-sites", "65536"])?;
    wait_known(tracer.pid(), target.pid)?;
    let reads: u64 = target.ask(&order(40), "done ")?.parse()?;
    let report = tracer.stop()?.report()?;
    check(&report, &jdk)?;
    let seen = deflaters(&report, "stacks.Compile$Source.getCharContent");
    ensure!(reads > 0 && seen == reads, "{seen} of {reads}");
    ensure!(target.finish()?.success());
    Ok(())
}

/// Before a virtual thread gives up its carrier, all of its frames are on the
/// carrier's stack; afterwards only those that returned to it since.
#[test]
fn virtual_threads() -> Result<()> {
    for jdk in Jdk::all()?.into_iter().filter(|jdk| jdk.major >= 21) {
        virtual_threads_of(&jdk).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}

fn virtual_threads_of(jdk: &Jdk) -> Result<()> {
    let mut target = jdk.start(&[], "stacks.Virtual", &[])?;
    let tracer = Tracer::record(target.pid, &[])?;
    wait_known(tracer.pid(), target.pid)?;
    let counts = target.ask("work 60", "done ")?;
    let (before, after) = counts.split_once(' ').context("no two numbers")?;
    let (before, after): (u64, u64) = (before.parse()?, after.parse()?);
    let report = tracer.stop()?.report()?;
    let of = |method| deflaters(&report, method);
    let seen = (of("stacks.Virtual.mounted"), of("stacks.Virtual.continued"));
    ensure!(seen == (before, after), "{seen:?} of {before}, {after}");
    let nameless = report.nameless_java();
    ensure!(nameless.is_empty(), "without names: {nameless:?}");
    let mut continued = 0;
    for site in report.sites_with("stacks.Virtual.descend") {
        if site.stack_end == StackEnd::Continuation {
            continued += site.allocated_count;
            continue;
        }
        let is_whole = site.stack_end == StackEnd::Start
            && has_frame(site, "java.util.concurrent.ForkJoinWorkerThread.run");
        ensure!(is_whole, "{:?}: {site:#?}", site.stack_end);
    }
    println!("{}: {continued} end with their continuation", jdk.name);
    ensure!(continued > 0, "none went on in the heap");
    for site in report.sites_with("stacks.Virtual.mounted") {
        ensure!(site.stack_end == StackEnd::Start, "{site:#?}");
    }
    Ok(())
}

// --- from the first instruction ---

/// All stacks of the main thread are whole once the JVM has started: libraries
/// that were just loaded have no tables yet.
fn check_from_start(jdk: &Jdk, report: &View, calls: u64) -> Result<()> {
    let settled = "stacks.Mix.settled";
    let seen = deflaters(report, settled);
    ensure!(
        calls > 0 && nearly_all(seen, calls),
        "{seen} of {calls} calls"
    );
    for site in report.sites_with(settled) {
        // The launcher runs main in a thread of its own.
        let launcher = match jdk.is_stripped() {
            true => "stacks.Mix.main",
            false => "JavaMain",
        };
        let is_whole = site.stack_end == StackEnd::Start && has_frame(site, launcher);
        let may_lack_name = |frame: &Frame| jdk.is_stripped() && frame.origin == Origin::Library;
        let mut frames = site.frames.iter();
        let is_named = frames.all(|frame| frame.function.is_some() || may_lack_name(frame));
        ensure!(is_whole && is_named, "{site:#?}");
    }
    Ok(())
}

#[test]
fn a_jvm_that_is_run() -> Result<()> {
    for jdk in Jdk::some()? {
        let java = jdk.java(&[], "stacks.Mix", &["once"])?;
        let command: Vec<_> = std::iter::once(java.get_program())
            .chain(java.get_args())
            .collect();
        let (commands, mut go) = std::io::pipe()?;
        let mut tracer = Tracer::run_with(&[], &command, |tracer| {
            tracer.stdin(commands);
        })?;
        let ready = tracer.wait_printed(" ready")?;
        let pid = ready.split(' ').next().unwrap_or_default().parse()?;
        wait_known(tracer.pid(), pid)?;
        go.write_all(b"\n")?;
        let finished = tracer.wait()?;
        let calls = finished
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("done "));
        let calls = calls.context("the JVM did not say what it did")?.parse()?;
        check_from_start(&jdk, &finished.report()?, calls).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}

/// A shell that is traced becomes a JVM.
#[test]
fn a_shell_that_execs_java() -> Result<()> {
    let jdk = Jdk::full()?;
    let java = jdk.java(&[], "stacks.Mix", &["once"])?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo $$ ready; read go; exec \"$@\"", "sh"]);
    shell.arg(java.get_program()).args(java.get_args());
    let mut target = Target::start_with(&mut shell)?;
    let tracer = Tracer::record(target.pid, &["--follow"])?;
    target.tell("go")?;
    let java = target.wait_ready()?;
    wait_known(tracer.pid(), java)?;
    let calls = target.ask("", "done ")?.parse()?;
    ensure!(target.finish()?.success());
    let report = tracer.wait()?.report()?;
    ensure!(report.processes.len() == 2, "{:?}", report.processes);
    check_from_start(&jdk, &report, calls)
}
