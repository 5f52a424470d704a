//! A large JVM is traced without a stop, and the death of either side leaves
//! the other sound.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use unfreed_tests::java_stack::has_frame;
use unfreed_tests::model::{ProcessEnd, Site};
use unfreed_tests::{Jdk, KernelObjects, Target, Tracer, patched_bytes, wait_until};

// --- a large JVM ---

const THREADS: usize = 1_000;
/// Copies of a class with 20 methods.
const CLASSES: usize = 2_600;
const COMPILED: usize = 50_000;

/// Methods that are compiled, as the JVM tells it.
fn compiled(pid: u32) -> Result<usize> {
    let output = Jdk::full()?
        .tool("jcmd")
        .args([&pid.to_string(), "Compiler.codelist"])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    // Behind a line with the process id.
    Ok(output.stdout.split(|byte| *byte == b'\n').count() - 2)
}

/// The most memory that a process had so far, in MiB.
fn peak_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    Ok(peak.context("no VmHWM")?.trim().parse::<u64>()? >> 10)
}

fn crowd(jdk: &Jdk) -> Result<Target> {
    let options = [
        "-Xcomp",
        "-XX:TieredStopAtLevel=1",
        "-XX:ReservedCodeCacheSize=240m",
        "-XX:-Inline",
    ];
    let mut target = jdk.start(&options, "stacks.Crowd", &[])?;
    target.ask(&format!("threads {THREADS}"), "done ")?;
    target.ask(&format!("classes {CLASSES}"), "done ")?;
    wait_until("compiled methods", || {
        target.ask("call", "done ")?;
        Ok((compiled(target.pid)? >= COMPILED).then_some(()))
    })?;
    Ok(target)
}

/// Figures are for a debug build unless `UNFREED_BIN` says otherwise; the
/// bounds are wide, for both.
#[test]
fn a_thousand_threads_and_much_compiled_code() -> Result<()> {
    let mut target = crowd(&Jdk::full()?)?;
    // The same span without a tracer: other load on this machine.
    target.ask("clock", "done ")?;
    std::thread::sleep(Duration::from_secs(2));
    let usual: u64 = target.ask("gap", "done ")?.parse()?;
    let begin = Instant::now();
    let tracer = Tracer::record(target.pid, &[])?;
    let started = begin.elapsed();
    let gap: u64 = target.ask("gap", "done ")?.parse()?;
    println!(
        "{} compiled methods: tracing after {started:?}; longest gap {gap} us ({usual} us before)",
        compiled(target.pid)?
    );
    target.ask("classes 10", "done ")?;
    target.ask("call", "done ")?;
    let memory = peak_memory(tracer.pid())?;
    println!("{memory} MiB of tracer");
    let report = tracer.stop()?.report()?;
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    ensure!(
        report.nameless_java().is_empty(),
        "{:?}",
        report.nameless_java()
    );
    ensure!(started.as_secs() < 20, "{started:?}");
    ensure!(gap < 1_000_000, "the target stood still for {gap} us");
    ensure!(memory < 1_024, "{memory} MiB");
    ensure!(target.finish()?.success());
    Ok(())
}

// --- ends ---

/// A JVM under load, traced, with stacks already taken from it.
fn traced_load(jdk: &Jdk) -> Result<(Target, Tracer)> {
    let mut target = jdk.start(&[], "stacks.Mix", &[])?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.ask("forever", "done ")?;
    // A thread is started for this, and it works like the others.
    target.ask("work 3", "done ")?;
    Ok((target, tracer))
}

#[test]
fn a_killed_tracer_harms_no_jvm() -> Result<()> {
    for jdk in Jdk::some()? {
        let (mut target, tracer) = traced_load(&jdk)?;
        let objects = KernelObjects::of_process(tracer.pid())?;
        ensure!(patched_bytes(target.pid)? > 0, "no probe is to be seen");
        tracer.signal(libc::SIGKILL)?;
        ensure!(!tracer.wait()?.status.success());
        wait_until("the kernel to drop programs, maps and links", || {
            Ok(objects.remaining()?.is_empty().then_some(()))
        })?;
        wait_until("the probes to leave the JVM's code", || {
            Ok((patched_bytes(target.pid)? == 0).then_some(()))
        })?;
        let calls: u64 = target.ask("work 20", "done ")?.parse()?;
        ensure!(calls > 0, "{} does no more work", jdk.name);
        let status = target.finish()?;
        ensure!(status.success(), "{}: {status}", jdk.name);
    }
    Ok(())
}

#[test]
fn a_killed_jvm_ends_the_run_with_everything_gathered() -> Result<()> {
    for jdk in Jdk::some()? {
        let (mut target, tracer) = traced_load(&jdk)?;
        // Names are read some ten times a second, from a process that lives.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(1) {
            target.ask("work 3", "done ")?;
        }
        target.kill()?;
        let finished = tracer.wait()?;
        let report = finished.report().with_context(|| jdk.name.clone())?;
        ensure!(report.processes[0].end == ProcessEnd::Exited);
        let own = |site: &Site| has_frame(site, "stacks.Mix.round");
        ensure!(
            report.sites.iter().any(own),
            "{}: no stack of the load",
            jdk.name
        );
    }
    Ok(())
}
