//! Java threads, alive by where they were started. The program is
//! `targets/java/Started.java`.

use std::fs;

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::MemoryKind;
use unfreed_tests::{Jdk, Sums, Target, Tracer, View, wait_until};

const STAY: u64 = 13;
const END: u64 = 29;

/// As many threads as were started and ended.
fn threads(started: u64, ended: u64) -> Sums {
    Sums {
        allocated_count: started,
        freed_count: ended,
        live_count: started - ended,
        ..Sums::default()
    }
}

/// The sums of the threads that a method of the program started.
fn started_by(report: &View, method: &str) -> Sums {
    let is_it = |function: &str| function.contains(method);
    let sites = report.sites.iter().filter(|site| {
        let mut functions = site.frames.iter().filter_map(|one| one.function.as_deref());
        site.kind == MemoryKind::Thread && functions.any(is_it)
    });
    sites
        .map(Sums::of)
        .fold(Sums::default(), |sum, site| sum + site)
}

fn tasks(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?.count())
}

/// A Java thread is joined a moment before the kernel's ends: waits for that.
fn stay_and_end(target: &mut Target) -> Result<()> {
    target.ask(&format!("stay {STAY}"), "done ")?;
    let before = tasks(target.pid)?;
    target.ask(&format!("end {END}"), "done ")?;
    let pid = target.pid;
    wait_until("the threads' end", || {
        Ok((tasks(pid)? <= before).then_some(()))
    })
}

fn is_exact(jdk: &Jdk) -> Result<()> {
    // Compilers start no threads of their own meanwhile.
    let mut target = jdk.start(&["-Xint", "-XX:+UseSerialGC"], "Started", &[])?;
    target.ask("stay 3", "done ")?;
    let tracer = Tracer::record(target.pid, &[])?;
    stay_and_end(&mut target)?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    for (method, sums) in [
        ("Started.stay", threads(STAY, 0)),
        ("Started.end", threads(END, END)),
    ] {
        let found = started_by(&report, method);
        let table = report.table();
        ensure!(found == sums, "{method}: {found:?}, not {sums:?}\n{table}");
    }
    ensure!(report.lost() == 0, "{:?}", report.occurred());
    let text = &finished.stdout;
    ensure!(text.contains("Threads: 13 live from 1 call path"), "{text}");
    Ok(())
}

#[test]
fn threads_are_alive_where_they_were_started() -> Result<()> {
    for jdk in &Jdk::some()? {
        is_exact(jdk).with_context(|| jdk.name.clone())?;
    }
    Ok(())
}

/// That the process ends does not mean that its threads did before.
#[test]
fn threads_of_a_process_that_ended_were_alive_at_its_end() -> Result<()> {
    let mut target = Jdk::full()?.start(&["-Xint", "-XX:+UseSerialGC"], "Started", &[])?;
    let tracer = Tracer::record(target.pid, &[])?;
    stay_and_end(&mut target)?;
    target.finish()?;
    let report = tracer.wait()?.report()?;
    // Its methods may have ended before anybody read their names.
    for sums in [threads(STAY, 0), threads(END, END)] {
        let mut sites = report.sites.iter();
        let found = sites.any(|site| site.kind == MemoryKind::Thread && Sums::of(site) == sums);
        ensure!(found, "no {sums:?}\n{}", report.table());
    }
    Ok(())
}

#[test]
fn without_the_probes_no_thread_is_seen() -> Result<()> {
    let mut target = Jdk::full()?.start(&[], "Started", &[])?;
    let tracer = Tracer::record(target.pid, &["--no-jvm-probes"])?;
    stay_and_end(&mut target)?;
    let report = tracer.stop()?.report()?;
    assert_eq!(started_by(&report, ""), Sums::default());
    Ok(())
}
