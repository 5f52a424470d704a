//! All that is seen of a JVM beside its heap, in one run: VMs, where each start of a
//! JVM takes long, run this alone. How each is seen, and on every JDK, is tested
//! elsewhere. The program is `targets/java/All.java`.

use std::cell::Cell;

use anyhow::{Result, ensure};
use unfreed_tests::java_stack::has_frame;
use unfreed_tests::model::{MemoryKind, Site};
use unfreed_tests::wholeness::{check, mix_is_seen};
use unfreed_tests::{Jdk, Sums, Target, Tracer, View, targets, unless_missed, wait_known};

/// Methods are compiled as soon as they are called often, each alone.
const OPTIONS: [&str; 5] = [
    "-Xbatch",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:CompileCommand=quiet",
    "-XX:CompileCommand=dontinline,stacks.Thrown$Work::*",
];

/// Copies of a class that are thrown away, and how often each allocates.
const COPIES: u64 = 2;
const CALLS: u64 = 7;

/// The JDK whose code is gone with its class, for certain.
fn start() -> Result<(Jdk, Target)> {
    let jdk = Jdk::newest()?;
    let libraries = format!("-Djava.library.path={}", targets().display());
    let options = [&OPTIONS[..], &[libraries.as_str()]].concat();
    let target = jdk.start(&options, "All", &[])?;
    Ok((jdk, target))
}

/// So many things without bytes.
fn things(made: u64, gone: u64) -> Sums {
    Sums {
        allocated_count: made,
        freed_count: gone,
        live_count: made - gone,
        ..Sums::default()
    }
}

/// Stacks through code that is gone have the name that the JVM told.
fn names_of_gone_code(report: &View) -> Result<()> {
    for (native, method) in [
        (
            "Java_java_util_zip_Deflater_init",
            "stacks.Thrown$Work.first",
        ),
        (
            "Java_java_util_zip_Inflater_init",
            "stacks.Thrown$Work.second",
        ),
    ] {
        let is_it = |site: &&Site| has_frame(site, native) && has_frame(site, method);
        let sites: Vec<&Site> = report.sites.iter().filter(is_it).collect();
        let all: u64 = sites.iter().map(|site| site.allocated_count).sum();
        let is_told = |site: &&&Site| {
            let mut reasons = site
                .frames
                .iter()
                .filter_map(|frame| frame.reason.as_deref());
            reasons.any(|reason| reason.contains("the JVM told"))
        };
        let told: u64 = sites
            .iter()
            .filter(is_told)
            .map(|site| site.allocated_count)
            .sum();
        ensure!(
            told > 0 && all.is_multiple_of(COPIES * CALLS),
            "{method}: {told} of {all} told"
        );
    }
    Ok(())
}

#[test]
fn all_of_a_jvm_is_seen_in_one_run() -> Result<()> {
    let calls = Cell::new(0);
    let run = || {
        let (report, all) = run()?;
        calls.set(all);
        Ok(report)
    };
    unless_missed(run, |report| all_is_seen(report, calls.get()))
}

/// A run's report, and how often the mix of stacks has allocated.
fn run() -> Result<(View, u64)> {
    let (_, mut target) = start()?;
    let tracer = Tracer::record(target.pid, &["--poll", "1h"])?;
    wait_known(tracer.pid(), target.pid)?;
    let calls = target.ask("mix work 3", "done ")?.parse()?;
    for command in [
        "handles keep 1013".to_owned(),
        "handles drop 101".to_owned(),
        "started stay 13".to_owned(),
        "started end 29".to_owned(),
        format!("thrown round {COPIES}"),
    ] {
        target.ask(&command, "done ")?;
    }
    let report = tracer.stop()?.report()?;
    ensure!(target.finish()?.success());
    Ok((report, calls))
}

fn all_is_seen(report: &View, calls: u64) -> Result<()> {
    check(report, &Jdk::newest()?)?;
    mix_is_seen(report, calls)?;
    names_of_gone_code(report)?;
    for (kind, function, expected) in [
        (MemoryKind::JniHandle, "keep_object", things(1013, 101)),
        (MemoryKind::Thread, "Started.stay", things(13, 0)),
        (MemoryKind::Thread, "Started.end", things(29, 29)),
    ] {
        let found = report.sums(function, kind);
        ensure!(
            found == expected,
            "{function}: {found:?}, not {expected:?}\n{}",
            report.table()
        );
    }
    Ok(())
}
