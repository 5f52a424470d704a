//! A JVM's own account of its native memory, against `jcmd` and programs that
//! know.

use anyhow::{Context, Result, ensure};

use unfreed_tests::model::{JavaMemory, JvmAccount, NativeMemory, Tracking};
use unfreed_tests::{Jdk, Program, Target, Tracer};

/// Bytes of a direct buffer, prime; and what the JVM takes for it, whole words.
const BUFFER: u64 = 100_003;
const TAKEN: u64 = BUFFER.next_multiple_of(8);
/// How many are made.
const BUFFERS: u64 = 7;
/// What else the JVM may take meanwhile in the category with the buffers, where
/// they have none of their own.
const OTHERS: u64 = 32 << 10;
/// What answering a question changes: a command leaves some bytes of itself
/// (3 to 11 were seen), and each block has a header of 16.
const ANSWERING: [&str; 2] = ["Internal", "Native Memory Tracking"];
const ANSWERED: u64 = 4 << 10;
/// What the compilers' arenas gave back, which a thread of the JVM frees every
/// five seconds: half of it may be gone a moment later.
const GIVEN_BACK: &str = "Arena Chunk";
/// A JVM may compile or load something between our question and that of
/// `jcmd`. That two answers agree to the byte is no chance, so one try of
/// these is enough.
const TRIES: usize = 6;

/// Whether one of a few tries succeeds.
fn one_of_some(mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 1..TRIES {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(error) => println!("once more: {error:#}"),
        }
    }
    attempt()
}

/// Whether a JVM's tracking knows bytes, and has a category for what is in no
/// other. That of Java 8 has neither.
fn is_exact(jdk: &Jdk) -> bool {
    jdk.major > 8
}

/// The category that direct buffers are in.
fn of_buffers(jdk: &Jdk) -> &'static str {
    match is_exact(jdk) {
        true => "Other",
        false => "Internal",
    }
}

/// A trace in which direct buffers are made; with what it printed. The target
/// lives on.
fn traced(jdk: &Jdk, program: &Program, options: &[&str]) -> Result<(Target, JavaMemory, String)> {
    let mut target = Target::start_with(&mut jdk.command(options, program))?;
    let tracer = Tracer::record(target.pid, &["--java-heap"])?;
    for _ in 0..BUFFERS {
        target.command(&format!("direct {BUFFER}"))?;
    }
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let heap = report.java_heap.first().context("no Java heap")?;
    ensure!(heap.problem.is_none(), "{:?}", heap.problem);
    let memory = report.java_memory.first().context("no account")?;
    // Lines are broken wherever they are full.
    let words: Vec<_> = finished.stdout.split_whitespace().collect();
    Ok((target, memory.clone(), words.join(" ")))
}

fn category(tracking: &Tracking, name: &str) -> Result<NativeMemory> {
    let mut categories = tracking.categories.iter();
    let found = categories.find(|category| category.name == name);
    Ok(found
        .with_context(|| format!("no {name}: {tracking:?}"))?
        .memory)
}

/// What `jcmd` prints of a category: reserved and committed bytes.
fn printed(text: &str, name: &str) -> Option<(u64, u64)> {
    let line = text.lines().find(|line| {
        let title = line.trim_start_matches('-').trim_start();
        line.starts_with('-') && title.starts_with(&format!("{name} (reserved="))
    })?;
    let number = |key: &str| {
        let (_, rest) = line.split_once(key)?;
        rest.split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    Some((number("reserved=")?, number("committed=")?))
}

#[test]
fn categories_are_those_of_jcmd() -> Result<()> {
    let program = Program::copy("Heap")?;
    let jcmd = Jdk::full()?;
    for jdk in Jdk::versions()? {
        one_of_some(|| compare_categories(&jdk, &program, &jcmd))?;
    }
    Ok(())
}

fn compare_categories(jdk: &Jdk, program: &Program, jcmd: &Jdk) -> Result<()> {
    let on = ["-XX:NativeMemoryTracking=summary", "-Xmx64m"];
    let (target, memory, text) = traced(jdk, program, &on)?;
    let problem = || jdk.home.display().to_string();
    let last = memory.last.as_ref().with_context(problem)?;
    let tracking = last.tracking.as_ref().with_context(problem)?;
    let (unit, scale) = if is_exact(jdk) {
        (1, "b")
    } else {
        (1024, "KB")
    };
    ensure!(tracking.unit == unit, "{}: {}", problem(), tracking.unit);
    let direct = format!("VM.native_memory summary scale={scale}");
    let direct = jcmd.jcmd(target.pid, &direct)?;
    let printed = |name: &str| {
        let (reserved, committed) = printed(&direct, name)?;
        Some((reserved * unit, committed * unit))
    };
    let names = direct
        .lines()
        .filter(|line| line.contains(" (reserved=") && line.starts_with('-'));
    ensure!(
        names.count() == tracking.categories.len(),
        "{tracking:?}\n{direct}"
    );
    for each in &tracking.categories {
        let (reserved, committed) =
            printed(&each.name).with_context(|| format!("no {} in {direct}", each.name))?;
        let most = match each.name.as_str() {
            GIVEN_BACK => continue,
            name if ANSWERING.contains(&name) => ANSWERED,
            _ => 0,
        };
        ensure!(
            reserved.abs_diff(each.memory.reserved) <= most
                && committed.abs_diff(each.memory.committed) <= most,
            "{each:?} is {reserved} and {committed} in {direct}"
        );
    }
    let heap = category(tracking, "Java Heap")?;
    ensure!(printed("Java Heap") == Some((heap.reserved, heap.committed)));
    ensure!(heap.reserved == 64 << 20, "{heap:?}");
    for part in [
        "as the JVM itself has it",
        of_buffers(jdk),
        "by ours, of all callers",
    ] {
        ensure!(text.contains(part), "no {part:?} in {text}");
    }
    Ok(())
}

/// Direct buffers are in a category of their own, to the byte; on Java 8 in one
/// with others, to the KiB.
#[test]
fn direct_buffers_are_exact() -> Result<()> {
    let program = Program::copy("Heap")?;
    for jdk in Jdk::versions()? {
        let on = ["-XX:NativeMemoryTracking=summary"];
        let (_target, memory, _) = traced(&jdk, &program, &on)?;
        let of_buffers = |account: &JvmAccount| {
            let tracking = account.tracking.as_ref().context("no tracking")?;
            category(tracking, of_buffers(&jdk))
        };
        let before = of_buffers(&memory.first)?;
        let after = of_buffers(memory.last.as_ref().context("no end")?)?;
        let gained = (
            after.malloc_bytes - before.malloc_bytes,
            after.malloc_count - before.malloc_count,
        );
        let (bytes, count) = (gained.0.abs_diff(BUFFERS * TAKEN), gained.1);
        let is_right = match is_exact(&jdk) {
            true => (bytes, count) == (0, BUFFERS),
            false => bytes <= OTHERS && count >= BUFFERS,
        };
        ensure!(is_right, "{}: {before:?} {after:?}", jdk.home.display());
    }
    Ok(())
}

/// Without a flag: what every JVM tells, and how to learn the rest.
#[test]
fn a_jvm_without_tracking_tells_what_it_can() -> Result<()> {
    let program = Program::copy("Heap")?;
    let jcmd = Jdk::full()?;
    for jdk in Jdk::some()? {
        one_of_some(|| compare_account(&jdk, &program, &jcmd))?;
    }
    Ok(())
}

/// Used bytes of the code cache, as a JVM prints its segments; none if it does
/// not tell.
fn code_cache(text: &str) -> Option<u64> {
    let of = |kind: &str| {
        let lines = text.lines().filter(|line| line.starts_with(kind));
        let used = lines.filter_map(|line| {
            let (_, rest) = line.split_once(" used=")?;
            rest.split_once("Kb")?.0.parse::<u64>().ok()
        });
        used.reduce(|one, other| one + other)
    };
    Some(of("CodeHeap ").or_else(|| of("CodeCache:"))? << 10)
}

fn compare_account(jdk: &Jdk, program: &Program, jcmd: &Jdk) -> Result<()> {
    let (target, memory, text) = traced(jdk, program, &[])?;
    let problem = || format!("{}: {memory:?}", jdk.home.display());
    let last = memory.last.as_ref().with_context(problem)?;
    ensure!(last.tracking.is_none(), "{}", problem());
    ensure!(text.contains("-XX:NativeMemoryTracking=summary"), "{text}");
    let counters = jcmd.jcmd(target.pid, "PerfCounter.print")?;
    let counter = |name: &str| {
        let value = counters
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value
            .and_then(|value| value.parse::<u64>().ok())
            .with_context(|| name.to_owned())
    };
    ensure!(
        last.threads == Some(counter("java.threads.live")?),
        "{}",
        problem()
    );
    let loaded = counter("java.cls.loadedClasses")? + counter("java.cls.sharedLoadedClasses")?;
    let unloaded =
        counter("java.cls.unloadedClasses")? + counter("java.cls.sharedUnloadedClasses")?;
    ensure!(last.classes == Some(loaded - unloaded), "{}", problem());
    let committed = last.metaspace.with_context(problem)?;
    let (command, line) = match jdk.major {
        8 => ("GC.heap_info", format!(" committed {}K,", committed >> 10)),
        _ => (
            "VM.metaspace basic scale=1",
            format!(" {committed} bytes ("),
        ),
    };
    let metaspace = jcmd.jcmd(target.pid, command)?;
    ensure!(metaspace.contains(&line), "{}\n{metaspace}", problem());
    // Java 8 has no command that tells it.
    let told = match jdk.major {
        8 => None,
        _ => code_cache(&jcmd.jcmd(target.pid, "Compiler.codecache")?),
    };
    ensure!(told.is_some() != (jdk.major == 8), "{}", problem());
    ensure!(last.code_cache == told, "{told:?}: {}", problem());
    Ok(())
}
