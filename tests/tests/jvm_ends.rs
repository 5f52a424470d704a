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
/// No thread is stopped to be looked at, nor to place probes. What the kernel
/// says of a thread's time is as of the last tick, 10 ms ago at most, without
/// interrupts; 18 ms of 7 s were seen on a machine with 14 other jobs, when the
/// thread's own longest gap was 488 ms.
const HELD: Duration = Duration::from_millis(100);
/// Processor time of the tracer until it traces; 0.9 s were seen, in a debug
/// build.
const STARTING: Duration = Duration::from_secs(5);
/// Of the tracer; 81 were seen.
const MOST_MIB: u64 = 256;
/// Calls by which the tracer has read names of the load: one look without news
/// takes 12.
const READS: u64 = 1_000;

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

/// The processor time that a process has used, threads that ended included.
fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    // From the state on; the 14th and 15th field of all, in hundredths.
    let mut fields = fields.split(' ').skip(11).map(str::parse::<u64>);
    let mut ticks = || fields.next().context("too few fields");
    Ok(Duration::from_millis(10 * (ticks()?? + ticks()??)))
}

/// How often a process has called the kernel to read something.
fn reads(pid: u32) -> Result<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let calls = io.lines().find_map(|line| line.strip_prefix("syscr: "));
    Ok(calls.context("no syscr")?.parse()?)
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

/// How long a thread that never waits was kept from running, though no other
/// ran in its place.
struct Held {
    schedstat: String,
    since: (Instant, Duration),
}

impl Held {
    /// From now on, for the thread of this name.
    fn begin(pid: u32, name: &str) -> Result<Self> {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            if fs::read_to_string(task.join("comm"))?.trim_end() == name {
                let schedstat = task.join("schedstat").display().to_string();
                let since = (Instant::now(), Self::accounted(&schedstat)?);
                return Ok(Self { schedstat, since });
            }
        }
        anyhow::bail!("no thread {name}")
    }

    /// What it ran, and what it waited for a processor.
    fn accounted(schedstat: &str) -> Result<Duration> {
        let text = fs::read_to_string(schedstat)?;
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        let mut number = || numbers.next().context("too few numbers");
        Ok(Duration::from_nanos(number()?? + number()??))
    }

    fn so_far(&self) -> Result<Duration> {
        let (begin, accounted) = self.since;
        let more = Self::accounted(&self.schedstat)?.saturating_sub(accounted);
        Ok(begin.elapsed().saturating_sub(more))
    }
}

/// Figures are for a debug build unless `UNFREED_BIN` says otherwise.
#[test]
fn a_thousand_threads_and_much_compiled_code() -> Result<()> {
    let mut target = crowd(&Jdk::full()?)?;
    target.ask("clock", "done ")?;
    let held = Held::begin(target.pid, "clock")?;
    let begin = Instant::now();
    let tracer = Tracer::record(target.pid, &[])?;
    let started = begin.elapsed();
    let (held, used) = (held.so_far()?, cpu_time(tracer.pid())?);
    let gap: u64 = target.ask("gap", "done ")?.parse()?;
    println!(
        "{} compiled methods: tracing after {started:?} and {used:?} of the tracer; held for {held:?}, longest gap {gap} us",
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
    ensure!(used < STARTING, "{used:?}");
    ensure!(held < HELD, "the target stood still for {held:?}");
    ensure!(memory < MOST_MIB, "{memory} MiB");
    ensure!(target.finish()?.success());
    Ok(())
}

// --- ends ---

/// A JVM under load, traced, with stacks already taken from it; and how often
/// the tracer had read something before.
fn traced_load(jdk: &Jdk) -> Result<(Target, Tracer, u64)> {
    let mut target = jdk.start(&[], "stacks.Mix", &[])?;
    let tracer = Tracer::record(target.pid, &[])?;
    let before = reads(tracer.pid())?;
    target.ask("forever", "done ")?;
    // A thread is started for this, and it works like the others.
    target.ask("work 3", "done ")?;
    Ok((target, tracer, before))
}

#[test]
fn a_killed_tracer_harms_no_jvm() -> Result<()> {
    for jdk in Jdk::some()? {
        let (mut target, tracer, _) = traced_load(&jdk)?;
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
        let calls: u64 = target.ask("work 5", "done ")?.parse()?;
        ensure!(calls > 0, "{} does no more work", jdk.name);
        let status = target.finish()?;
        ensure!(status.success(), "{}: {status}", jdk.name);
    }
    Ok(())
}

#[test]
fn a_killed_jvm_ends_the_run_with_everything_gathered() -> Result<()> {
    for jdk in Jdk::some()? {
        let (mut target, tracer, before) = traced_load(&jdk)?;
        // Names are read from a process that lives.
        wait_until("the tracer to read names", || {
            target.ask("work 3", "done ")?;
            Ok((reads(tracer.pid())? >= before + READS).then_some(()))
        })?;
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
