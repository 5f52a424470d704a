//! Global handles of a JVM's native interface, live by call path. The program
//! is `targets/java/Handles.java` with `targets/c/jni_handles.c`.

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::MemoryKind;
use unfreed_tests::{Jdk, Sums, Target, Tracer, View, targets};

fn start(jdk: &Jdk, options: &[&str]) -> Result<Target> {
    let libraries = format!("-Djava.library.path={}", targets().display());
    let options = [&[libraries.as_str()], options].concat();
    jdk.start(&options, "Handles", &[])
}

fn tell(target: &mut Target, commands: &[&str]) -> Result<()> {
    for command in commands {
        target.ask(command, "done ")?;
    }
    Ok(())
}

/// As many handles as were made and deleted.
fn handles(made: u64, deleted: u64) -> Sums {
    Sums {
        allocated_count: made,
        freed_count: deleted,
        live_count: made - deleted,
        ..Sums::default()
    }
}

fn made_by(report: &View, function: &str) -> Sums {
    report.sums(function, MemoryKind::JniHandle)
}

/// The words of a text, whose lines are broken wherever they are full.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_exact(jdk: &Jdk, options: &[&str], how: &[&str]) -> Result<()> {
    let mut target = start(jdk, options)?;
    // These are from before the run, and their end is of no interest.
    tell(&mut target, &["keep 13"])?;
    let tracer = Tracer::record(target.pid, how)?;
    tell(
        &mut target,
        &[
            "drop 13",
            "keep 1013",
            "drop 101",
            "keepWeakly 211",
            "dropWeak 11",
            "pass 307",
            "passNothing 17",
            "keep 2003",
        ],
    )?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let table = report.table();
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    for (function, sums) in [
        ("keep_object", handles(3016, 101)),
        ("Java_Handles_keep", handles(3016, 101)),
        ("keep_weakly", handles(211, 11)),
        ("pass_object", handles(307, 307)),
    ] {
        let found = made_by(&report, function);
        ensure!(
            found == sums,
            "{function}: {found:?}, not {sums:?}\n{table}"
        );
    }
    let site = report
        .sites_with("keep_object")
        .find(|site| site.kind == MemoryKind::JniHandle);
    let frames = &site.context("no site")?.frames;
    let leaf = frames.last().and_then(|frame| frame.function.as_deref());
    ensure!(leaf == Some("jni_NewGlobalRef"), "{leaf:?}");
    let is_java = |function: &str| function.contains("Handles.once");
    let mut functions = frames.iter().filter_map(|frame| frame.function.as_deref());
    ensure!(functions.any(is_java), "{frames:?}");
    // They are in no total.
    let memory = || report.sites.iter().filter(|site| site.kind.is_memory());
    let live: u64 = memory().map(|site| site.live_count).sum();
    let allocated: u64 = memory().map(|site| site.allocated_count).sum();
    ensure!(live == report.totals.live_count, "{table}");
    ensure!(allocated == report.totals.allocated_count, "{table}");
    let text = words(&finished.stdout);
    ensure!(
        text.contains("JNI handles: ") && text.contains(" 2,915 "),
        "{text}"
    );
    Ok(())
}

#[test]
fn handles_are_live_where_they_were_made() -> Result<()> {
    for jdk in &Jdk::with_symbols()? {
        is_exact(jdk, &[], &[]).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}

#[test]
fn handles_are_the_same_with_return_addresses_left_alone() -> Result<()> {
    for jdk in &Jdk::some_with_symbols()? {
        is_exact(jdk, &[], &["--returns", "instructions"]).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}

/// The JVM checks each call in a function of its own before the usual one.
#[test]
fn checked_calls_count_once() -> Result<()> {
    for jdk in &Jdk::some_with_symbols()? {
        is_exact(jdk, &["-Xcheck:jni"], &[]).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}

/// The functions behind are not to be found then. Of the JVM's threads all is
/// known: they are started by an exported one.
#[test]
fn a_library_without_symbols_says_so() -> Result<()> {
    let mut target = start(&Jdk::stripped()?, &[])?;
    let tracer = Tracer::record(target.pid, &[])?;
    tell(&mut target, &["keep 503"])?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    ensure!(made_by(&report, "") == Sums::default());
    let jvm = report.jvm.first().context("no JVM")?;
    let problem = jvm.handle_problem.as_deref().unwrap_or_default();
    ensure!(problem.contains("has no symbols"), "{jvm:?}");
    ensure!(jvm.thread_problem.is_none(), "{jvm:?}");
    let text = words(&finished.stdout);
    ensure!(
        text.contains("are not counted: the Java VM's library has no symbols"),
        "{text}"
    );
    Ok(())
}

#[test]
fn handles_of_a_program_that_ended_were_live_at_its_end() -> Result<()> {
    let mut target = start(&Jdk::full()?, &[])?;
    let tracer = Tracer::record(target.pid, &[])?;
    tell(&mut target, &["keep 503", "drop 3"])?;
    target.finish()?;
    let report = tracer.wait()?.report()?;
    assert_eq!(made_by(&report, "keep_object"), handles(503, 3));
    Ok(())
}

/// With `--older-than` live are those that are old enough.
#[test]
fn young_handles_are_left_out_if_so_asked() -> Result<()> {
    let mut target = start(&Jdk::full()?, &[])?;
    let tracer = Tracer::record(target.pid, &["--older-than", "1h"])?;
    tell(&mut target, &["keep 503"])?;
    let finished = tracer.stop()?;
    let found = made_by(&finished.report()?, "keep_object");
    assert_eq!((found.allocated_count, found.live_count), (503, 0));
    assert!(!finished.stdout.contains("JNI handles"));
    Ok(())
}

#[test]
fn without_the_probes_no_handle_is_seen() -> Result<()> {
    let mut target = start(&Jdk::full()?, &[])?;
    let tracer = Tracer::record(target.pid, &["--no-jvm-probes"])?;
    tell(&mut target, &["keep 503"])?;
    let report = tracer.stop()?.report()?;
    assert_eq!(made_by(&report, ""), Sums::default());
    Ok(())
}
