//! Names of compiled code that was thrown away before anybody looked at it, by
//! what the JVM told of it. The program is `targets/java/stacks/Thrown.java`.

use std::fs;

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
fn has_the_name_that_it_had(jdk: &Jdk) -> Result<()> {
    let report = traced(jdk, &[])?;
    for path in PATHS {
        let (all, told, by_memory) = named(&report, path)?;
        let what = format!("{}: {told} of {all} told", path.1);
        ensure!(all > 0 && all % (ROUNDS * CALLS) == 0, what);
        // The tracer's first look may come while the first classes live; and
        // until JDK 19 code stays for as long as nobody sweeps it.
        let sums = format!("{what}, {by_memory} in memory");
        ensure!(told > 0 || jdk.major < 20, sums);
        ensure!(told + by_memory == all, sums);
    }
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    Ok(())
}

#[test]
fn code_that_is_gone_has_its_name() -> Result<()> {
    let newest = Jdk::all()?.pop().context("no JDK")?;
    has_the_name_that_it_had(&newest)
}

#[test]
fn code_that_is_gone_has_its_name_on_every_jdk() -> Result<()> {
    for jdk in &Jdk::with_symbols()? {
        has_the_name_that_it_had(jdk).with_context(|| jdk.name.clone())?;
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

/// Code from before the run that is thrown away is known by a perf map alone,
/// which leaves no file behind.
#[test]
fn a_perf_map_names_what_was_compiled_before() -> Result<()> {
    for jdk in Jdk::all()?.iter().filter(|jdk| jdk.major >= 17) {
        let mut target = start(jdk)?;
        target.ask(&format!("hold {ROUNDS}"), "done ")?;
        let options = ["--poll", "1h", "--no-jvm-probes", "--jvm-attach"];
        let tracer = Tracer::record(target.pid, &options)?;
        target.ask("use 0", "done ")?;
        let report = tracer.stop()?.report()?;
        for path in PATHS {
            let (all, told, by_memory) = named(&report, path).with_context(|| jdk.name.clone())?;
            let sums = format!("{}: {told} and {by_memory} of {all}", jdk.name);
            // Before 21 the code of unloaded classes stays for a while, and so
            // may what it was made from.
            let some = told > 0 || jdk.major < 21;
            ensure!(some && told + by_memory == all, sums);
        }
        leaves_no_perf_map(target.pid)?;
    }
    Ok(())
}

fn leaves_no_perf_map(pid: u32) -> Result<()> {
    let own = format!("perf-{pid}.map");
    for entry in fs::read_dir("/tmp")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(name != own && !name.starts_with(".unfreed-"), "{name}");
    }
    Ok(())
}

/// What a perf map cannot be had of says why, and a file in its way stays.
#[test]
fn without_a_perf_map_there_is_a_reason() -> Result<()> {
    let problem = |jdk: &Jdk, prepare: &dyn Fn(u32) -> Result<()>| {
        let mut target = start(jdk)?;
        prepare(target.pid)?;
        let tracer = Tracer::record(target.pid, &["--jvm-attach"])?;
        target.ask("round 1", "done ")?;
        let finished = tracer.stop()?;
        let report = finished.report()?;
        let jvm = report.jvm.first().context("no JVM")?;
        let problem = jvm.perf_map_problem.clone().unwrap_or_default();
        ensure!(
            finished.stdout.contains("no perf map") != problem.is_empty()
                && finished.stderr.contains("no perf map of") != problem.is_empty(),
            problem
        );
        anyhow::Ok((target.pid, problem))
    };
    let jdks = Jdk::all()?;
    let old = jdks.iter().find(|jdk| jdk.major == 11).context("no 11")?;
    let (_, why) = problem(old, &|_| Ok(()))?;
    ensure!(why.contains("came with JDK 17"), why);
    let write = |pid| Ok(fs::write(format!("/tmp/perf-{pid}.map"), "mine\n")?);
    let (pid, why) = problem(&Jdk::full()?, &write)?;
    let path = format!("/tmp/perf-{pid}.map");
    let text = fs::read_to_string(&path)?;
    fs::remove_file(&path)?;
    ensure!(why.contains("there already") && text == "mine\n", why);
    Ok(())
}
