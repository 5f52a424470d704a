//! Names of Java frames, against what the JVM says itself: frame by frame with
//! class, method and line, inlined methods and hidden ones among them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use unfreed_tests::java_stack::{ends_in, java_frames, plain_frame, thread_in_dump};
use unfreed_tests::{Jdk, Target, Tracer, View, make_fifo, wait_until};

// --- threads that wait in native code ---

/// A pipe with a name, into which nobody writes.
struct Silence {
    path: PathBuf,
    /// So that readers can open it, and wait.
    _writer: File,
}

impl Silence {
    fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("silence");
        make_fifo(&path)?;
        let writer = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self {
            path,
            _writer: writer,
        })
    }
}

/// Blocks of `stacks.Blocked`: which have the path's code in which tiers.
const SIZES: [(u64, u32); 4] = [
    (65_537, 0),
    (70_001, 300),
    (75_011, 3_000),
    (80_021, 30_000),
];

/// Whether a thread with this name is in `read`.
fn reads(pid: u32, name: &str) -> Result<Option<()>> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let is_it = fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name);
        if is_it {
            let call = fs::read_to_string(task.join("syscall"))?;
            return Ok(call
                .starts_with(&format!("{} ", libc::SYS_read))
                .then_some(()));
        }
    }
    Ok(None)
}

/// What a JVM says of all its threads, at a safepoint.
fn thread_dump(pid: u32) -> Result<String> {
    let output = Jdk::full()?
        .tool("jcmd")
        .args([&pid.to_string(), "Thread.print"])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Threads go down the same path after more and more calls of it; each waits
/// there, and the tracer's stack of its block is the thread dump's.
fn blocked(jdk: &Jdk, options: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let silence = Silence::new(folder.path())?;
    let mut target = jdk.start(options, "stacks.Blocked", &[])?;
    let tracer = Tracer::record(target.pid, &[])?;
    for (size, calls) in SIZES {
        target.ask(&format!("warm {calls}"), "done ")?;
        let order = format!("block {} {size}", silence.path.display());
        target.ask(&order, "done ")?;
        wait_until("a thread in read", || {
            reads(target.pid, &format!("b{size}"))
        })?;
    }
    let dump = thread_dump(target.pid)?;
    let report = tracer.stop()?.report()?;
    for (size, calls) in SIZES {
        let inlined = compare(&report, &dump, size)?;
        println!("{} {options:?}: {inlined} inlined after {calls}", jdk.name);
        let interprets = calls == 0 || options.contains(&"-Xint");
        let never_inlines = options.contains(&"-Xint");
        ensure!(
            interprets || calls < 30_000 || inlined > 0,
            "nothing inlined"
        );
        ensure!(!never_inlines || inlined == 0, "{inlined} inlined");
    }
    Ok(())
}

/// Compares the stack of the only block of a size with that of the thread that
/// holds it, and tells how many inlined frames it has.
fn compare(report: &View, dump: &str, size: u64) -> Result<usize> {
    let mut sites = report
        .sites
        .iter()
        .filter(|site| site.live_bytes == size && site.live_count == 1);
    let site = sites
        .next()
        .with_context(|| format!("no block of {size}"))?;
    ensure!(sites.next().is_none(), "two blocks of {size}");
    let (found, real) = (
        java_frames(site),
        thread_in_dump(dump, &format!("b{size}"))?,
    );
    ensure!(
        real.len() > 20 && found == real,
        "{size}: the tracer has\n{}\nand the JVM\n{}",
        found.join("\n"),
        real.join("\n")
    );
    Ok(site.frames.iter().filter(|frame| frame.inlined).count())
}

/// How a JVM is told to run code: by all means, by the first compiler, by the
/// interpreter, by the second compiler.
const WAYS: [&[&str]; 4] = [
    &[],
    &["-XX:TieredStopAtLevel=1"],
    &["-Xint"],
    &["-XX:-TieredCompilation"],
];

/// On Debian's JDK in all ways, on the others in the first.
#[test]
fn of_blocked_threads() -> Result<()> {
    let full = Jdk::full()?;
    for jdk in Jdk::versions()? {
        let ways = if jdk == full { &WAYS[..] } else { &WAYS[..1] };
        for options in ways {
            blocked(&jdk, options).with_context(|| format!("{} {options:?}", jdk.name))?;
        }
    }
    Ok(())
}

// --- the program's own stack traces ---

/// How often deflaters were made on each path, as `stacks.Mix` knows it.
fn traces(target: &mut Target) -> Result<BTreeMap<String, u64>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("traces");
    target.ask(&format!("traces {}", file.display()), "done ")?;
    let mut traces = BTreeMap::new();
    for line in fs::read_to_string(&file)?.lines() {
        let (count, frames) = line.split_once(' ').context(line.to_owned())?;
        let frames: Vec<String> = frames.split_terminator(';').map(plain_frame).collect();
        *traces.entry(frames.join("\n")).or_default() += count.parse::<u64>()?;
    }
    Ok(traces)
}

/// The same as the tracer knows it.
fn seen(report: &View) -> Result<BTreeMap<String, u64>> {
    let mut seen = BTreeMap::new();
    for site in &report.sites {
        if !ends_in(site, &["Java_java_util_zip_Deflater_init", "calloc"]) {
            continue;
        }
        let frames = java_frames(site);
        let own = frames
            .iter()
            .position(|frame| frame.starts_with("stacks.Mix.allocate:"));
        let own = own.with_context(|| format!("{site:#?}"))?;
        *seen.entry(frames[own..].join("\n")).or_default() += site.allocated_count;
    }
    Ok(seen)
}

fn stack_traces(jdk: &Jdk) -> Result<()> {
    // So that hidden frames are in stack traces too.
    let options = [
        "-XX:+UnlockDiagnosticVMOptions",
        "-XX:+ShowHiddenFrames",
        "-Dtraced=true",
    ];
    let mut target = jdk.start(&options, "stacks.Mix", &[])?;
    let before = traces(&mut target)?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.ask("work 150", "done ")?;
    let report = tracer.stop()?.report()?;
    let mut real = traces(&mut target)?;
    for (trace, count) in before {
        *real.entry(trace).or_default() -= count;
    }
    real.retain(|_, count| *count > 0);
    let found = seen(&report)?;
    println!("{}: {} different stack traces", jdk.name, real.len());
    ensure!(real.len() >= 20, "{} different ones", real.len());
    let differing = |one: &BTreeMap<String, u64>, other: &BTreeMap<String, u64>| {
        let differs = |(trace, count): &(&String, &u64)| other.get(*trace) != Some(count);
        let differing: Vec<_> = one.iter().filter(differs).take(2).collect();
        format!("{differing:#?}")
    };
    ensure!(
        found == real,
        "only the tracer has {}\nonly the JVM {}",
        differing(&found, &real),
        differing(&real, &found)
    );
    Ok(())
}

#[test]
fn of_stack_traces_that_the_program_takes_itself() -> Result<()> {
    for jdk in Jdk::versions()? {
        stack_traces(&jdk).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}
