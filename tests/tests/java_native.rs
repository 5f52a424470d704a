//! Buffers and thread stacks of JVMs, read from their memory, against what the
//! JVMs' own beans and tracking say.

use anyhow::{Context, Result, ensure};

use unfreed_tests::model::JavaNative;
use unfreed_tests::model::java_native::{BufferPool, Buffers, NativeView};
use unfreed_tests::{Finished, Jdk, Program, Target, Tracer};

/// Sizes of buffers, primes.
const DIRECT: [u64; 3] = [100_003, 1_009, 65_537];
const MAPPED: [u64; 2] = [8_191, 131_071];

/// Threads that are made, and their stacks in KiB.
const THREADS: u64 = 50;
const STACK: u64 = 640;

/// Bytes at the end of each Java thread's stack that catch overflows: four
/// pages.
const GUARDS: u64 = 4 << 12;

/// Ways in which objects and pointers to them are kept.
const FORMS: [&[&str]; 3] = [
    &["-Xmx64m", "-XX:MaxDirectMemorySize=31m"],
    &["-XX:+UseSerialGC", "-XX:-UseCompressedOops"],
    // Compact headers: JDK 24 and later.
    &[
        "-XX:+UseParallelGC",
        "-XX:+IgnoreUnrecognizedVMOptions",
        "-XX:+UseCompactObjectHeaders",
    ],
];

/// What the beans say: count, capacity and bytes used.
fn pools(target: &mut Target) -> Result<[[u64; 3]; 2]> {
    let line = target.ask("pools", "pools ")?;
    let numbers = line
        .split(' ')
        .map(str::parse)
        .collect::<Result<Vec<_>, _>>();
    let numbers = numbers.with_context(|| line.clone())?;
    let (pools, rest) = numbers.as_chunks();
    ensure!(rest.is_empty(), "{line}");
    Ok([
        *pools.first().context("no pool")?,
        *pools.get(1).context("one pool")?,
    ])
}

fn told(buffers: &Buffers) -> [[u64; 3]; 2] {
    let of = |pool: BufferPool| [pool.count, pool.capacity, pool.used];
    [of(buffers.direct), of(buffers.mapped)]
}

fn buffers(view: &NativeView) -> Result<Buffers> {
    view.buffers.with_context(|| format!("{view:?}"))
}

fn native(finished: &Finished) -> Result<JavaNative> {
    let report = finished.report()?;
    ensure!(report.java_native.len() == 1, "{:?}", report.java_native);
    report.java_native.first().cloned().context("no JVM")
}

fn end(native: &JavaNative) -> Result<&NativeView> {
    native.last.as_ref().context("no end")
}

/// The text without its line breaks.
fn words(finished: &Finished) -> String {
    let words: Vec<_> = finished.stdout.split_whitespace().collect();
    words.join(" ")
}

#[test]
fn buffers_are_those_of_the_beans() -> Result<()> {
    let program = Program::copy("Native")?;
    for jdk in Jdk::versions()? {
        // Without compact headers the third is the first with another collector.
        let forms = match jdk.major {
            17 | 24.. => FORMS.len(),
            _ => 1,
        };
        for (index, form) in FORMS.into_iter().enumerate().take(forms) {
            let mut target = Target::start_with(&mut jdk.command(form, &program))?;
            // One of each, but for the first form: there the classes that
            // count are not initialised yet.
            if index > 0 {
                target.command("direct 17")?;
                target.command("map 19")?;
            }
            let before = pools(&mut target)?;
            let tracer = Tracer::record(target.pid, &[])?;
            for size in DIRECT {
                target.command(&format!("direct {size}"))?;
            }
            for size in MAPPED {
                target.command(&format!("map {size}"))?;
            }
            // Objects move.
            target.command("collect")?;
            let after = pools(&mut target)?;
            let finished = tracer.stop()?;
            let native = native(&finished)?;
            let what = || format!("{} {form:?}: {native:?}", jdk.name);
            let first = buffers(&native.first).with_context(what)?;
            let last = buffers(end(&native)?).with_context(what)?;
            ensure!(told(&first) == before, "{} {before:?}", what());
            ensure!(told(&last) == after, "{} {after:?}", what());
            let gained = |pool: usize, value: usize| after[pool][value] - before[pool][value];
            ensure!(
                gained(0, 0) == DIRECT.len() as u64
                    && gained(0, 1) == DIRECT.iter().sum::<u64>()
                    && gained(1, 0) == MAPPED.len() as u64
                    && gained(1, 1) == MAPPED.iter().sum::<u64>(),
                "{before:?} {after:?}"
            );
            let limit = last.direct.limit;
            ensure!(index > 0 || limit == Some(31 << 20), "{}", what());
            let text = words(&finished);
            let [direct, mapped] = [after[0][0], after[1][0]];
            for part in [
                format!("Direct buffers: {direct} (+3) of"),
                format!("Mapped buffers: {mapped} (+2) of"),
                "by ours 163 KiB in 3 blocks of the run is live".to_owned(),
            ] {
                ensure!(text.contains(&part), "no {part:?} in {text}");
            }
        }
    }
    Ok(())
}

/// Shenandoah leaves objects behind that it has moved; ZGC's pointers are not
/// read, and that is said.
#[test]
fn collectors_that_move_objects_beside_the_program_are_known() -> Result<()> {
    let program = Program::copy("Native")?;
    let (mut shenandoah, mut zgc) = (0, 0);
    for jdk in Jdk::some()? {
        for (option, name) in [
            ("-XX:+UseShenandoahGC", "Shenandoah"),
            ("-XX:+UseZGC", "ZGC"),
        ] {
            let options = ["-XX:+UnlockExperimentalVMOptions", option, "-Xmx64m"];
            // A JVM that was built without it does not start.
            let Ok(mut target) = Target::start_with(&mut jdk.command(&options, &program)) else {
                continue;
            };
            let tracer = Tracer::record(target.pid, &[])?;
            target.command(&format!("direct {}", DIRECT[0]))?;
            target.command("collect")?;
            let after = pools(&mut target)?;
            let finished = tracer.stop()?;
            let native = native(&finished)?;
            let last = end(&native)?;
            let what = || format!("{} {name}: {native:?}", jdk.name);
            ensure!(last.stacks.is_some(), "{}", what());
            if name == "Shenandoah" {
                shenandoah += 1;
                let last = buffers(last).with_context(what)?;
                ensure!(told(&last) == after, "{} {after:?}", what());
            } else {
                zgc += 1;
                let problem = last.buffers_problem.as_deref().with_context(what)?;
                ensure!(
                    problem.contains("ZGC") && last.buffers.is_none(),
                    "{}",
                    what()
                );
                let text = words(&finished);
                ensure!(
                    text.contains("Its buffers are not known: its collector (ZGC)"),
                    "{text}"
                );
            }
        }
    }
    ensure!(shenandoah > 0 && zgc > 0, "{shenandoah} {zgc}");
    Ok(())
}

/// What the JVM's tracking says of stacks: reserved and committed bytes. Those
/// that it commits to guard a Java thread's stack ([`GUARDS`]) are never used.
///
/// ```text
///                             (stack: reserved=18939904, committed=1265664)
/// ```
fn tracked(jdk: &Jdk, pid: u32) -> Result<(u64, u64)> {
    let mut text = jdk.jcmd(pid, "VM.native_memory summary scale=b")?;
    if !text.contains("(stack:") {
        // Java 8 knows no scale.
        text = jdk.jcmd(pid, "VM.native_memory summary")?;
    }
    let number = |key: &str| {
        let (_, rest) = text.split_once("(stack: ")?.1.split_once(key)?;
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (digits, unit) = rest.split_at(end);
        let unit = if unit.starts_with("KB") { 1 << 10 } else { 1 };
        Some(digits.parse::<u64>().ok()? * unit)
    };
    let both = number("reserved=").zip(number("committed="));
    both.with_context(|| format!("no stacks in {text}"))
}

#[test]
fn stacks_are_those_of_the_jvms_tracking() -> Result<()> {
    let program = Program::copy("Native")?;
    let jcmd = Jdk::full()?;
    for jdk in Jdk::versions()? {
        let size = format!("-Xss{STACK}k");
        let options = [
            "-XX:NativeMemoryTracking=summary",
            "-XX:+UseSerialGC",
            &size,
        ];
        let mut target = Target::start_with(&mut jdk.command(&options, &program))?;
        // The thread that answers is there from the first question on.
        tracked(&jcmd, target.pid)?;
        let before = tracked(&jcmd, target.pid)?;
        let tracer = Tracer::record(target.pid, &[])?;
        target.command(&format!("threads {THREADS}"))?;
        let finished = tracer.stop()?;
        let after = tracked(&jcmd, target.pid)?;
        let native = native(&finished)?;
        let what = || format!("{}: {before:?} {after:?} {native:?}", jdk.name);
        for (view, (reserved, committed)) in [(&native.first, before), (end(&native)?, after)] {
            let stacks = view.stacks.with_context(what)?;
            println!("{}: {stacks:?}, tracked {reserved} {committed}", jdk.name);
            ensure!(
                stacks.unknown == 0 && stacks.other.resident > 0,
                "{}",
                what()
            );
            // A libjvm.so without its symbols does not tell of all threads, and
            // other threads' mappings may be larger than their stacks.
            if stacks.vm.threads == 0 {
                let others = stacks.java.reserved + stacks.other.reserved;
                ensure!(jdk.major == 8 && others >= reserved, "{}", what());
                continue;
            }
            ensure!(
                stacks.java.reserved + stacks.vm.reserved == reserved,
                "{}",
                what()
            );
            let resident = stacks.java.resident + stacks.vm.resident;
            let tracked = resident + GUARDS * stacks.java.threads;
            // Between the two readings, threads may need some more pages.
            ensure!(
                tracked.abs_diff(committed) <= 64 << 10,
                "{tracked} {}",
                what()
            );
            // The launcher's first thread waits for the others.
            ensure!(stacks.other.threads == 1, "{}", what());
        }
        ensure!(after.0 == before.0 + THREADS * (STACK << 10), "{}", what());
        let (first, last) = (native.first.stacks, end(&native)?.stacks);
        let (first, last) = (
            first.with_context(what)?.java,
            last.with_context(what)?.java,
        );
        ensure!(last.threads == first.threads + THREADS, "{}", what());
        ensure!(
            last.reserved == first.reserved + THREADS * (STACK << 10),
            "{}",
            what()
        );
        let part = format!("Java threads (+{THREADS}): ");
        ensure!(words(&finished).contains(&part), "{}", finished.stdout);
    }
    Ok(())
}
