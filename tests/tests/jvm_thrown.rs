//! Names of compiled code that was thrown away before anybody looked at it, by
//! what the JVM told of it. The program is `targets/java/stacks/Thrown.java`.

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::{Frame, Origin};
use unfreed_tests::{Jdk, Target, Tracer, View};

const ROUNDS: u64 = 5;
/// How often each method allocates in a round.
const CALLS: u64 = 7;

/// Each native function with the method that leads to it.
const PATHS: [(&str, &str); 2] = [
    ("Java_java_util_zip_Deflater_init", "first"),
    ("Java_java_util_zip_Inflater_init", "second"),
];

/// Methods are compiled as soon as they are called often, whole, each alone.
const OPTIONS: [&str; 5] = [
    "-Xbatch",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:CompileCommand=quiet",
    "-XX:CompileCommand=dontinline,stacks.Thrown$Work::*",
];

fn start(jdk: &Jdk) -> Result<Target> {
    jdk.start(&OPTIONS, "stacks.Thrown", &[])
}

/// The report of a run in which names are looked up at its end.
fn traced(jdk: &Jdk, options: &[&str]) -> Result<View> {
    let mut target = start(jdk)?;
    let options = [&["--poll", "1h"], options].concat();
    let tracer = Tracer::record(target.pid, &options)?;
    target.ask(&format!("round {ROUNDS}"), "done ")?;
    tracer.stop()?.report()
}

fn is_told(frame: &Frame) -> bool {
    let reason = frame.reason.as_deref().unwrap_or_default();
    frame.function.is_some() && reason.contains("the JVM told")
}

/// Allocations below a native function; and those whose method of the program
/// is named by what the JVM told, and from memory.
fn named(report: &View, (native, method): (&str, &str)) -> Result<(u64, u64, u64)> {
    let (mut all, mut told, mut by_memory) = (0, 0, 0);
    let of_native = report.sites.iter().filter(|site| {
        let mut functions = site.frames.iter().filter_map(|one| one.function.as_deref());
        functions.any(|function| function == native)
    });
    for site in of_native {
        for frame in site.frames.iter().filter(|frame| is_told(frame)) {
            ensure!(
                frame.line.is_none() && frame.origin == Origin::Jit,
                "{frame:?}"
            );
        }
        let own = |frame: &&Frame| {
            let function = frame.function.as_deref().unwrap_or_default();
            function.starts_with("stacks.Thrown$Work.") && !function.ends_with("accept")
        };
        let found: Vec<_> = site.frames.iter().filter(own).collect();
        for frame in &found {
            let is_it = frame
                .function
                .as_deref()
                .is_some_and(|name| name.ends_with(method));
            ensure!(is_it, "{native} below {frame:?}");
        }
        all += site.allocated_count;
        told += u64::from(found.iter().any(|frame| is_told(frame))) * site.allocated_count;
        by_memory += u64::from(found.iter().any(|frame| !is_told(frame))) * site.allocated_count;
    }
    Ok((all, told, by_memory))
}

/// Every stack has its method's name, though the class is gone, and none has
/// the other's, though both were at the same places.
#[test]
fn code_that_is_gone_has_the_name_that_it_had() -> Result<()> {
    for jdk in &Jdk::all()? {
        let report = traced(jdk, &[]).with_context(|| jdk.name.clone())?;
        for path in PATHS {
            let (all, told, by_memory) = named(&report, path).with_context(|| jdk.name.clone())?;
            let what = format!("{}: {}: {told} of {all} told", jdk.name, path.1);
            ensure!(all > 0 && all % (ROUNDS * CALLS) == 0, what);
            // The tracer's first look may come while the first classes live.
            let sums = format!("{what}, {by_memory} in memory");
            ensure!(told > 0 && told + by_memory == all, sums);
        }
        ensure!(report.lost() == 0, "{:?}", report.occurred());
    }
    Ok(())
}

/// Without the JVM's probes there is nothing to name it by, but a reason.
#[test]
fn without_the_probes_there_is_a_reason() -> Result<()> {
    let jdk = Jdk::all()?.pop().context("no JDK")?;
    let report = traced(&jdk, &["--no-jvm-probes"])?;
    for path in PATHS {
        let (_, told, _) = named(&report, path)?;
        ensure!(told == 0, "{told}");
    }
    let mut frames = report.sites.iter().flat_map(|site| &site.frames);
    let mut reasons = frames.by_ref().filter_map(|frame| frame.reason.as_deref());
    ensure!(
        reasons.any(|reason| reason.contains("before it")),
        "no reason"
    );
    Ok(())
}
