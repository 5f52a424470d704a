//! Which Java classes grow, against programs that know.

use std::fs;
use std::iter;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::{ClassGrowth, GrowthVerdict, JavaHeap, Report, StackEnd};
use unfreed_tests::{Jdk, Program, Target, Tracer, wait_known, wait_until};

const GROWN: &str = "Heap$Grown";
const CHURNED: &str = "Heap$Churned";
/// Bytes of either class's objects.
const SIZE: u64 = 24;
/// What has a JVM tell of each object; the other way, for JDK 11, means more.
const ALLOCATED: &str = "-XX:+DTraceAllocProbes";
/// Bytes of an array of seven.
const ARRAY: u64 = 48;
/// The least time from one step of a target to the next.
const STEP: Duration = Duration::from_millis(20);
/// A small heap that is collected often.
const OPTIONS: [&str; 3] = ["-Xmx48m", "-Xmn8m", "-XX:+UseSerialGC"];

fn class<'a>(heap: &'a JavaHeap, name: &str) -> Option<&'a ClassGrowth> {
    heap.classes.iter().find(|class| class.class == name)
}

fn gained(series: &[u64]) -> i64 {
    let at = |value: Option<&u64>| value.map_or(0, |value| value.cast_signed());
    at(series.last()) - at(series.first())
}

/// A trace in which the target does `steps` over and over, until there are
/// enough histograms for a verdict. The steps must be small: a large heap takes
/// long to count, and histograms are the rarer for it. But they must collect
/// often: what is overdue is counted before a collection.
fn traced(
    jdk: &Jdk,
    program: &Program,
    options: &[&str],
    mut steps: impl FnMut(&mut Target) -> Result<()>,
) -> Result<(JavaHeap, String)> {
    let mut target = Target::start_with(&mut jdk.command(&OPTIONS, program))?;
    let options: Vec<_> = ["--java-heap", "--interval", "3s"]
        .iter()
        .chain(options)
        .copied()
        .collect();
    let tracer = Tracer::record(target.pid, &options)?;
    let written = tracer.folder().join("report.json");
    let (mut last, mut next) = (None, Instant::now());
    wait_until("eight histograms after collections", || {
        if next <= Instant::now() {
            steps(&mut target)?;
            next = Instant::now() + STEP;
        }
        // Each report is read once.
        let changed = fs::metadata(&written).and_then(|file| file.modified()).ok();
        if changed == last {
            return Ok(None);
        }
        last = changed;
        let text = fs::read(&written).unwrap_or_default();
        let report: Option<Report> = serde_json::from_slice(&text).ok();
        let heap = report.and_then(|report| report.java_heap.into_iter().next());
        let samples = heap.map(|heap| heap.samples).unwrap_or_default();
        let floors = samples.iter().filter(|sample| sample.after_collection);
        Ok((floors.count() >= 8).then_some(()))
    })?;
    let finished = tracer.stop()?;
    let heap = finished.report()?.java_heap.first().cloned();
    let heap = heap.context("no Java heap")?;
    ensure!(heap.problem.is_none(), "{:?}", heap.problem);
    // Lines are broken wherever they are full.
    let words: Vec<_> = finished.stdout.split_whitespace().collect();
    Ok((heap, words.join(" ")))
}

/// Some of one class are kept, many of another are dropped: the one grows, by
/// exactly as many as there are, and the other is quiet.
#[test]
fn a_class_that_grows_is_told_from_churn() -> Result<()> {
    let program = Program::copy("Heap")?;
    for jdk in Jdk::versions()? {
        let (heap, _) = traced(&jdk, &program, &[], |target| {
            target.command("grow 7")?;
            target.command("churn 100003").map(drop)
        })
        .with_context(|| jdk.home.display().to_string())?;
        let grown = class(&heap, GROWN).context("not in the report")?;
        ensure!(grown.verdict == GrowthVerdict::Grows, "{grown:?}");
        ensure!(gained(&grown.bytes) == gained(&grown.instances) * SIZE.cast_signed());
        let others = heap.classes.iter().filter(|class| {
            class.verdict == GrowthVerdict::Grows && class.class.starts_with("Heap")
        });
        ensure!(others.count() == 1, "{:?}", class(&heap, CHURNED));
    }
    Ok(())
}

/// Every object that is kept is counted, and no other.
#[test]
fn the_counts_are_exact() -> Result<()> {
    let program = Program::copy("Heap")?;
    let some = Jdk::some()?;
    for jdk in Jdk::versions()? {
        for options in [&["--java-heap"][..], &["--java-heap", "--live"]] {
            if options.len() == 2 && !some.contains(&jdk) {
                continue;
            }
            let mut target = Target::start_with(&mut jdk.command(&OPTIONS, &program))?;
            let tracer = Tracer::record(target.pid, options)?;
            for _ in 0..7 {
                target.command("grow 10007")?;
                target.command("churn 100003")?;
            }
            target.command("collect")?;
            let report = tracer.stop()?.report()?;
            let heap = report.java_heap.first().context("no Java heap")?;
            let problem = || format!("{}, {options:?}: {heap:?}", jdk.home.display());
            let grown = class(heap, GROWN).with_context(problem)?;
            ensure!(gained(&grown.instances) == 7 * 10007, "{}", problem());
            ensure!(gained(&grown.bytes) == 7 * 10007 * SIZE.cast_signed());
            // The one from its start was garbage, and may be collected.
            let churned = class(heap, CHURNED).map_or(0, |class| gained(&class.instances));
            ensure!(matches!(churned, -1 | 0), "{}", problem());
            ensure!(heap.live_only == (options.len() == 2));
            let unsampled = heap.sampled.problem.as_deref();
            let says_why = unsampled.is_some_and(|why| why.contains("has no symbols"));
            ensure!(says_why == jdk.is_stripped(), "{unsampled:?}");
            let pause = heap.samples.last().and_then(|sample| sample.pause);
            ensure!(pause.is_some_and(|pause| pause > 0.0), "{}", problem());
        }
    }
    Ok(())
}

/// Without a collection garbage cannot be told from growth, and is not.
#[test]
fn nothing_is_claimed_without_collections() -> Result<()> {
    let program = Program::copy("Heap")?;
    let mut target = Target::start_with(&mut Jdk::full()?.command(&["-Xmn64m"], &program))?;
    let tracer = Tracer::record(target.pid, &["--java-heap"])?;
    target.command("churn 10007")?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let heap = report.java_heap.first().context("no Java heap")?;
    let churned = class(heap, CHURNED).context("no churn")?;
    ensure!(gained(&churned.instances) == 10007, "{churned:?}");
    ensure!(churned.verdict == GrowthVerdict::Unknown, "{churned:?}");
    let table = &finished.stdout;
    ensure!(table.contains("Too few collections"), "{table}");
    Ok(())
}

/// Some collectors count along references: what is dropped is not there, even
/// if nothing was collected.
#[test]
fn some_collectors_count_no_garbage() -> Result<()> {
    let program = Program::copy("Heap")?;
    let jdk = Jdk::full()?;
    for collector in ["-XX:+UseZGC", "-XX:+UseShenandoahGC"] {
        let options = [collector, "-Xmx256m"];
        let mut target = Target::start_with(&mut jdk.command(&options, &program))?;
        let tracer = Tracer::record(target.pid, &["--java-heap"])?;
        target.command("grow 1009")?;
        target.command("churn 100003")?;
        let finished = tracer.stop()?;
        let report = finished.report()?;
        let heap = report.java_heap.first().context("no Java heap")?;
        let grown = class(heap, GROWN).context("not in the report")?;
        ensure!(gained(&grown.instances) == 1009, "{collector}: {grown:?}");
        ensure!(class(heap, CHURNED).is_none(), "{collector}: {heap:?}");
        ensure!(heap.samples.iter().all(|sample| sample.after_collection));
        ensure!(finished.stdout.contains("counts no garbage"));
    }
    Ok(())
}

/// With `--live` there is no garbage, and the table says what it cost.
#[test]
fn a_collection_before_each_leaves_no_doubt() -> Result<()> {
    let program = Program::copy("Heap")?;
    let (heap, table) = traced(&Jdk::full()?, &program, &["--live"], |target| {
        target.command("grow 7")?;
        target.command("churn 100003").map(drop)
    })?;
    let grown = class(&heap, GROWN).context("not in the report")?;
    ensure!(grown.verdict == GrowthVerdict::Grows, "{heap:?}");
    for part in [GROWN, "each after a full collection", "stood still for"] {
        ensure!(table.contains(part), "no {part:?} in {table}");
    }
    Ok(())
}

/// All objects of a class on all call paths: how many, and their bytes. Lines
/// differ: compiled code does not say where it tells the VM of an object.
fn told(heap: &JavaHeap, name: &str) -> Result<(u64, u64)> {
    let paths = &class(heap, name).context("not in the report")?.allocated;
    for path in paths {
        let own = path.frames.last().context("no frames")?;
        let problem = || format!("{own:?}, {} of it", path.samples);
        ensure!(own.function.as_deref() == Some("Heap.run"), problem());
        ensure!(path.stack_end == StackEnd::Start, problem());
    }
    let samples = paths.iter().map(|path| path.samples).sum();
    Ok((samples, paths.iter().map(|path| path.bytes).sum()))
}

/// A JVM that was started with its allocation probes tells of each object:
/// interpreted, compiled, and too many for a buffer.
fn each_object_is_counted(jdk: &Jdk, flag: &str, rounds: u64, churned: u64) -> Result<()> {
    let program = Program::copy("Heap")?;
    let options = [&OPTIONS[..], &[flag]].concat();
    let mut target = Target::start_with(&mut jdk.command(&options, &program))?;
    let tracer = Tracer::record(target.pid, &["--java-heap"])?;
    wait_known(tracer.pid(), target.pid)?;
    for _ in 0..rounds {
        target.command("grow 10007")?;
        target.command("arrays 5003")?;
        target.command(&format!("churn {churned}"))?;
    }
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let heap = report.java_heap.first().context("no Java heap")?;
    let problem = || format!("{}: {:?}", jdk.name, heap.sampled);
    ensure!(heap.sampled.exact, "{}", problem());
    for (name, count, size) in [
        (GROWN, rounds * 10007, SIZE),
        ("Heap$Grown[]", rounds * 5003, ARRAY),
        (CHURNED, rounds * churned, SIZE),
    ] {
        let found = told(heap, name).with_context(problem)?;
        let what = format!("{name}: {found:?}, not {count}");
        ensure!(found == (count, count * size), "{what}, {}", problem());
    }
    ensure!(heap.sampled.samples > rounds * (10007 + 5003 + churned));
    ensure!(finished.stdout.contains("the JVM tells of each"));
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    Ok(())
}

#[test]
fn each_object_of_one_jvm_is_counted() -> Result<()> {
    each_object_is_counted(&Jdk::full()?, ALLOCATED, 1, 1009)
}

#[test]
fn each_object_is_counted_on_every_jdk() -> Result<()> {
    let flags = [ALLOCATED, "-XX:+ExtendedDTraceProbes"];
    let flags = flags.into_iter().chain(iter::repeat(ALLOCATED));
    for (jdk, flag) in iter::zip(Jdk::with_symbols()?, flags) {
        each_object_is_counted(&jdk, flag, 3, 100_003)?;
    }
    Ok(())
}

/// Without our use of the JVM's own probes there are samples.
#[test]
fn probes_that_may_not_be_used_are_not() -> Result<()> {
    let program = Program::copy("Heap")?;
    let options = [ALLOCATED, "-Xmn8m"];
    let mut target = Target::start_with(&mut Jdk::full()?.command(&options, &program))?;
    let tracer = Tracer::record(target.pid, &["--java-heap", "--no-jvm-probes"])?;
    target.command("churn 100003")?;
    let report = tracer.stop()?.report()?;
    let heap = report.java_heap.first().context("no Java heap")?;
    ensure!(!heap.sampled.exact, "{heap:?}");
    ensure!(
        (1..10_000).contains(&heap.sampled.samples),
        "{:?}",
        heap.sampled
    );
    Ok(())
}
