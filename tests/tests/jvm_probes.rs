//! What HotSpot's own probes tell, against what the program did and what its
//! management beans say. The program is `targets/java/Probes.java`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::jvm::{Jvm, LiveThread};
use unfreed_tests::{Jdk, Target, Tracer, View, unfreed, wait_until};

const COLLECTIONS: u64 = 7;
const CLASSES: u64 = 41;
const THREADS: u64 = 5;
const ENDED: u64 = 3;
const FAILURES: u64 = 13;

/// What each collector counted, from `name=count,name=count`.
fn beans(answer: &str) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for bean in answer.split(',') {
        let (name, count) = bean.split_once('=').with_context(|| answer.to_owned())?;
        let count = count.parse()?;
        if count > 0 {
            counts.insert(name.to_owned(), count);
        }
    }
    Ok(counts)
}

fn only(report: &View) -> Result<&Jvm> {
    ensure!(report.jvm.len() == 1, "{:?}", report.jvm);
    let jvm = &report.jvm[0];
    ensure!(jvm.problem.is_none() && jvm.unreadable == 0, "{jvm:?}");
    ensure!(jvm.missing_probes.is_empty(), "{:?}", jvm.missing_probes);
    Ok(jvm)
}

/// Hits that were lost in a full ring.
fn untold(report: &View) -> Result<u64> {
    let mut losses = report.losses.iter();
    let loss = losses.find(|loss| loss.cause == "probe_ring_full");
    Ok(loss.context("no such loss")?.count)
}

/// Records a program that does everything, and returns what was counted and
/// what its beans say.
fn record(jdk: &Jdk, options: &[&str]) -> Result<(View, BTreeMap<String, u64>)> {
    let mut target = jdk.start(options, "Probes", &[])?;
    let tracer = Tracer::record(target.pid, &[])?;
    let answer = target.ask(&format!("gc {COLLECTIONS}"), "done ")?;
    for command in [
        format!("classes {CLASSES}"),
        format!("failures {FAILURES}"),
        format!("threads {THREADS}"),
        format!("ended {ENDED}"),
    ] {
        target.ask(&command, "done ")?;
    }
    let report = tracer.stop()?.report()?;
    assert_eq!(untold(&report)?, 0);
    Ok((report, beans(&answer)?))
}

fn agrees(jdk: &Jdk, options: &[&str]) -> Result<()> {
    let (report, beans) = record(jdk, options)?;
    let jvm = only(&report)?;
    let counted: BTreeMap<String, u64> = jvm
        .collections
        .collectors
        .iter()
        .filter(|collector| collector.count > 0)
        .map(|collector| (collector.name.clone(), collector.count))
        .collect();
    let context = format!("{} {options:?}", jdk.home.display());
    assert_eq!(counted, beans, "{context}");
    assert!(jvm.collections.count >= COLLECTIONS, "{context}");
    assert_eq!(jvm.collections.full, COLLECTIONS, "{context}");
    let loaded = |name: &str| {
        let group = jvm.classes.groups.iter().find(|group| group.name == name);
        group.map_or(0, |group| group.loaded)
    };
    assert_eq!(loaded("Probes$Loaded"), CLASSES, "{context}");
    assert!(jvm.classes.loader_count >= CLASSES, "{context}");
    let failed = jvm.classes.failures.first().context("no failures")?;
    let failed = (failed.class.as_str(), failed.count);
    assert_eq!(failed, ("Probes$Failing", FAILURES), "{context}");
    let stays: Vec<_> = jvm
        .threads
        .oldest
        .iter()
        .filter(|thread| thread.name.starts_with("stays-"))
        .collect();
    assert_eq!(stays.len() as u64, THREADS, "{context}");
    assert!(stays.iter().all(|thread| thread.daemon), "{stays:?}");
    assert!(jvm.threads.started >= THREADS + ENDED, "{context}");
    assert!(jvm.threads.stopped >= ENDED, "{context}");
    assert_eq!(jvm.threads.live, jvm.threads.oldest.len() as u64);
    let old = jvm
        .pools
        .iter()
        .find(|pool| pool.old)
        .context("no old generation")?;
    assert!(old.points.len() as u64 >= COLLECTIONS, "{context}");
    assert!(old.points.iter().all(|point| point.used > 0), "{context}");
    assert!(old.points.iter().all(|point| point.used <= point.committed));
    assert!(jvm.probe_hits > 0);
    Ok(())
}

#[test]
fn counts_agree_with_the_program_and_its_beans() -> Result<()> {
    for jdk in &Jdk::versions_with_symbols()? {
        agrees(jdk, &[])?;
    }
    Ok(())
}

#[test]
fn every_collector_is_counted() -> Result<()> {
    for jdk in &Jdk::some_with_symbols()? {
        for collector in ["-XX:+UseSerialGC", "-XX:+UseParallelGC", "-XX:+UseG1GC"] {
            agrees(jdk, &[collector])?;
        }
    }
    Ok(())
}

/// Collectors that work beside the program: their beans count pauses apart
/// from collections, and so do we.
#[test]
fn collections_beside_the_program_are_counted() -> Result<()> {
    let jdk = &Jdk::full()?;
    for collector in ["-XX:+UseZGC", "-XX:+UseShenandoahGC"] {
        let (report, beans) = record(jdk, &[collector])?;
        let collections = &only(&report)?.collections;
        let cycles = beans.iter().find(|(name, _)| name.contains("Cycles"));
        let (name, cycles) = cycles.with_context(|| format!("{beans:?}"))?;
        let counted = collections.collectors.iter().find(|one| one.name == *name);
        assert_eq!(counted.map(|one| one.count), Some(*cycles), "{collector}");
        let pauses: u64 = beans
            .iter()
            .filter(|(name, _)| name.contains("Pauses"))
            .map(|(_, count)| count)
            .sum();
        assert!(collections.pauses >= pauses, "{collector} {collections:?}");
        assert_eq!(collections.full, 0, "{collector}");
    }
    Ok(())
}

#[test]
fn classes_that_go_are_counted() -> Result<()> {
    for jdk in &Jdk::versions_with_symbols()? {
        let mut target = jdk.start(&[], "Probes", &[])?;
        target.ask("classes 9", "done ")?;
        let tracer = Tracer::record(target.pid, &[])?;
        target.ask("unload 1", "done ")?;
        let report = tracer.stop()?.report()?;
        let groups = &only(&report)?.classes.groups;
        let group = groups.iter().find(|group| group.name == "Probes$Loaded");
        let group = group.with_context(|| format!("{groups:?}"))?;
        assert_eq!(
            (group.loaded, group.unloaded),
            (0, 9),
            "{}",
            jdk.home.display()
        );
    }
    Ok(())
}

/// A tracer that is stopped reads nothing, and the ring overflows: what was
/// lost is counted, and nothing more.
#[test]
fn hits_that_nobody_reads_are_counted_as_lost() -> Result<()> {
    const MANY: u64 = 9_001;
    let jdk = &Jdk::full()?;
    let mut target = jdk.start(&[], "Probes", &[])?;
    let tracer = Tracer::record(target.pid, &[])?;
    tracer.signal(libc::SIGSTOP)?;
    target.ask(&format!("classes {MANY}"), "done ")?;
    tracer.signal(libc::SIGCONT)?;
    let report = tracer.stop()?.report()?;
    let lost = untold(&report)?;
    let classes = &only(&report)?.classes;
    let group = classes
        .groups
        .iter()
        .find(|group| group.name == "Probes$Loaded");
    let told = group.context("no class was told")?.loaded;
    assert!(lost > 0 && told > 1000, "{told} told, {lost} lost");
    assert!(told + lost >= MANY, "{told} told, {lost} lost");
    assert!(told + lost < MANY + 1000, "{told} told, {lost} lost");
    Ok(())
}

#[test]
fn a_machine_that_we_start_is_counted_too() -> Result<()> {
    let jdk = &Jdk::full()?;
    let java = jdk.java(&[], "Probes", &[])?;
    let command: Vec<_> = [java.get_program()]
        .into_iter()
        .chain(java.get_args())
        .collect();
    let (commands, end) = std::io::pipe()?;
    let options = ["--interval", "200ms"];
    let tracer = Tracer::run_with(&options, &command, |tracer| {
        tracer.stdin(commands);
    })?;
    // The program collects as it ends, which is when its input does.
    wait_until("probes in the JVM", || {
        let report = tracer.report_so_far()?;
        Ok(report
            .is_some_and(|report| !report.jvm.is_empty())
            .then_some(()))
    })?;
    drop(end);
    let report = tracer.wait()?.report()?;
    let jvm = only(&report)?;
    assert!(jvm.collections.full >= 1, "{:?}", jvm.collections);
    // Its library is found once it is mapped: the first classes are missed,
    // and the report says since when they are counted.
    assert!(jvm.classes.loaded > 0, "{:?}", jvm.classes);
    assert!(jvm.began > 0.0, "{}", jvm.began);
    let stays = |thread: &LiveThread| thread.name == "stays-0";
    assert!(jvm.threads.oldest.iter().any(stays), "{:?}", jvm.threads);
    Ok(())
}

#[test]
fn a_machine_that_was_built_without_probes_says_so() -> Result<()> {
    let jdk = &Jdk::stripped()?;
    let mut target = jdk.start(&[], "Probes", &[])?;
    let tracer = Tracer::record(target.pid, &[])?;
    for command in ["gc 3", "direct 100"] {
        target.ask(command, "done ")?;
    }
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let jvm = report.jvm.first().context("no JVM")?;
    let problem = jvm.problem.as_deref();
    assert_eq!(problem, Some("it was built without probes"));
    assert_eq!((jvm.probe_hits, jvm.collections.count), (0, 0));
    let text = &finished.stdout;
    assert!(text.contains("without probes"), "{text}");
    // Nobody counts collections: nothing is claimed of them.
    assert!(!text.contains("garbage collections"), "{text}");
    let pid = target.pid.to_string();
    unfreed(&["record", "-p", &pid, "--survived", "2"])?
        .fails_saying(&["was built without probes", "--older-than"])
}

#[test]
fn without_its_probes_nothing_is_told() -> Result<()> {
    let jdk = &Jdk::full()?;
    let mut target = jdk.start(&[], "Probes", &[])?;
    let tracer = Tracer::record(target.pid, &["--no-jvm-probes"])?;
    target.ask("gc 1", "done ")?;
    let report = tracer.stop()?.report()?;
    assert!(report.jvm.is_empty(), "{:?}", report.jvm);
    Ok(())
}

#[test]
fn a_program_that_is_no_jvm_survives_nothing() -> Result<()> {
    let target = Target::start("leak")?;
    let pid = target.pid.to_string();
    unfreed(&["record", "-p", &pid, "--survived", "2"])?
        .fails_saying(&["has no libjvm.so", "--older-than"])
}

/// Live blocks must have survived as many collections as was asked for.
#[test]
fn what_survived_is_told_from_what_is_young() -> Result<()> {
    let jdk = &Jdk::full()?;
    let live = |after: &[&str]| -> Result<u64> {
        let mut target = jdk.start(&["-XX:+UseSerialGC"], "Probes", &[])?;
        let tracer = Tracer::record(target.pid, &["--survived", "2"])?;
        for command in ["gc 1", "direct 100", after[0]] {
            target.ask(command, "done ")?;
        }
        let tracer = tracer.stop()?;
        let report = tracer.report()?;
        let heading = "only blocks that survived 2 garbage collections";
        let text = tracer
            .stdout
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert!(text.contains(heading), "{text}");
        let direct = report
            .sites
            .iter()
            .filter(|site| site.allocated_bytes >= 100 * 40_009 && site.allocated_count == 100);
        Ok(direct.map(|site| site.live_count).sum())
    };
    assert_eq!(live(&["gc 1"])?, 0);
    assert_eq!(live(&["gc 2"])?, 100);
    Ok(())
}
