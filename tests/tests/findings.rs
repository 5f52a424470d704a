//! The answers of a run: verdicts, what is told first, and that the table says the same.
//!
//! The target (`targets/c/behaviours.c`) does for twelve seconds everything that what is
//! live can do.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use unfreed_tests::model::{Finding, FindingKind, Site, Verdict};
use unfreed_tests::{Target, Tracer, View, target_path, unfreed};

/// What each function of the target is.
const RIGHT: [(&str, &[Verdict]); 9] = [
    ("keeps_all", &[Verdict::Leak]),
    ("forgets_some", &[Verdict::Leak]),
    ("leaks_in_bursts", &[Verdict::Leak]),
    ("replaces_oldest", &[Verdict::Churn, Verdict::Plateau]),
    ("sets_up", &[Verdict::Startup]),
    // Right after they were freed none is live.
    ("gathers", &[Verdict::Batch, Verdict::Churn]),
    ("fills_a_pool", &[Verdict::Plateau, Verdict::Startup]),
    // It cannot be told from a table that is full some day.
    ("enlarges_a_table", &[Verdict::Growing]),
    ("scratches", &[Verdict::Churn]),
];

fn verdict_of(report: &View, function: &str) -> Result<Verdict> {
    let mut sites = report.sites_with(function);
    let site = sites
        .next()
        .with_context(|| format!("no site of {function}"))?;
    let confidence = site.confidence.context("no confidence")?;
    ensure!((0.0..1.0).contains(&confidence), "{function}: {confidence}");
    site.verdict
        .with_context(|| format!("no verdict on {function}"))
}

fn is_about(finding: &Finding, function: &str) -> bool {
    finding.path.iter().any(|name| name.contains(function))
}

#[test]
fn leaks_are_told_from_what_is_none() -> Result<()> {
    let mut target = Target::start("behaviours")?;
    let tracer = Tracer::record(target.pid, &["--limit", "64M"])?;
    let truth = target.command("work")?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    report.agrees_with(&truth)?;
    for (function, right) in RIGHT {
        let verdict = verdict_of(&report, function)?;
        ensure!(
            right.contains(&verdict),
            "{function}: {verdict:?}\n{}",
            report.table()
        );
    }
    let leaks: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|finding| finding.kind == FindingKind::Leak)
        .collect();
    // By bytes a second: 1,009, 521 and 300 in 10 ms.
    let functions = ["keeps_all", "forgets_some", "leaks_in_bursts"];
    assert_eq!(leaks.len(), functions.len(), "{leaks:?}");
    for (leak, (function, rate)) in leaks
        .iter()
        .zip(functions.iter().zip([1009.0, 521.0, 300.0]))
    {
        ensure!(is_about(leak, function), "{function}: {leak:?}");
        ensure!(leak.title.starts_with(function), "{leak:?}");
        // 10 ms and what a tick takes.
        let most = rate * 100.0;
        ensure!(
            (0.5 * most..1.1 * most).contains(&leak.bytes_per_second),
            "{leak:?}"
        );
        ensure!(leak.evidence.len() >= 2, "{leak:?}");
    }
    let forecast = leaks[0].forecast.as_ref().context("no forecast")?;
    assert_eq!(
        (forecast.limit.as_str(), forecast.limit_bytes),
        ("--limit", 64 << 20)
    );
    let resident: u64 = report.balance.iter().map(|it| it.resident_end).sum();
    assert_eq!(forecast.left_bytes, forecast.limit_bytes - resident);
    let seconds = forecast.left_bytes as f64 / leaks[0].bytes_per_second;
    ensure!((forecast.seconds - seconds).abs() < 1.0, "{forecast:?}");
    // The table says it first, in few lines.
    let table = &finished.stdout;
    let (first, _) = table.split_once("BLOCKS").context("no table")?;
    for words in ["1. LEAK (", "> work > keeps_all", "Not leaks:"] {
        ensure!(first.contains(words), "no {words:?} in\n{first}");
    }
    ensure!(first.lines().count() <= 40, "{first}");
    ensure!(table.contains("looks like a leak ("), "{table}");
    Ok(())
}

/// Some of the suite of labelled behaviours that `cargo xtask bench verdicts` measures,
/// told from each other in a short time: the program, the mode, and its words.
const OF_THE_SUITE: [(&str, &str); 6] = [
    ("c", "steady_leak"),
    ("c", "batches"),
    ("cpp", "remember_answers"),
    ("cpp", "make_lazily"),
    ("rust", "newest_entries"),
    ("rust", "fill_arenas"),
];
/// Seconds after which they are judged.
const JUDGED_AFTER: u64 = 18;

/// A label of the suite, as far as it is used here.
#[derive(Deserialize)]
struct Label {
    program: String,
    mode: String,
    judged: String,
    #[serde(default)]
    bytes_per_second: Option<f64>,
    from: BTreeMap<u64, Vec<Verdict>>,
}

#[test]
fn labelled_behaviours_are_what_their_labels_say() -> Result<()> {
    let labels: Vec<Label> = serde_json::from_str(include_str!("../targets/verdicts/labels.json"))?;
    let one = |(program, mode): (&str, &str)| {
        let is_it = |label: &&Label| label.program == program && label.mode == mode;
        let label = labels.iter().find(is_it);
        let label = label.with_context(|| format!("{program}:{mode} has no label"))?;
        judge(label).with_context(|| format!("{program}:{mode}"))
    };
    let one = &one;
    thread::scope(|scope| {
        let threads = OF_THE_SUITE.map(|name| scope.spawn(move || one(name)));
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })
}

fn judge(label: &Label) -> Result<()> {
    let path = target_path(&format!("verdicts_{}", label.program))?;
    let mut target = Target::start_with(Command::new(path).arg(&label.mode))?;
    let tracer = Tracer::record(target.pid, &[])?;
    target.tell("go")?;
    // It tells once a second what is live.
    let told = format!("{} ", label.judged);
    let mut live = 0.0;
    for _ in 0..JUDGED_AFTER {
        let line = target.hear("live ")?;
        let (_, bytes) = line
            .split_once(&told)
            .context("it tells of something else")?;
        live = bytes.parse()?;
    }
    let finished = tracer.stop()?;
    let report = finished.report()?;
    let right = label.from.range(..=JUDGED_AFTER).next_back();
    let (_, right) = right.context("its label has no class")?;
    let is_it = |site: &&Site| {
        let names = site
            .frames
            .iter()
            .filter_map(|frame| frame.function.as_deref());
        names.into_iter().any(|name| name.contains(&label.judged))
    };
    // The one that allocates most is what the mode is about.
    let sites = report.sites.iter().filter(is_it);
    let site = sites.max_by_key(|site| site.allocated_bytes);
    let verdict = site.context("no site")?.verdict;
    let is_right = verdict.is_some_and(|verdict| right.contains(&verdict));
    ensure!(is_right, "{verdict:?}\n{}", report.table());
    let leak = report
        .findings
        .iter()
        .find(|it| it.kind == FindingKind::Leak);
    match (leak, label.bytes_per_second) {
        (None, None) => Ok(()),
        (Some(leak), Some(_)) => {
            let is = live / JUDGED_AFTER as f64;
            let near = (0.7 * is..1.4 * is).contains(&leak.bytes_per_second);
            ensure!(
                near && is_about(leak, &label.judged),
                "{is} bytes/s: {leak:?}"
            );
            Ok(())
        }
        (other, _) => bail!("{other:?}"),
    }
}

/// A saved report says the same again.
#[test]
fn a_saved_report_has_the_same_findings() -> Result<()> {
    let path = target_path("leak")?;
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("report.json");
    let program = path.to_string_lossy();
    let command = [program.as_ref(), "leak_blocks", "cache_blocks"];
    let output = format!("{}", json.display());
    let run = [&["run", "-o", &output, "--"], &command[..]].concat();
    let finished = unfreed(&run)?;
    let (_, first) = finished.stdout.split_once('\n').context("no table")?;
    ensure!(first.contains("The run was too short to tell"), "{first}");
    let again = unfreed(&["report", &output])?;
    assert_eq!(again.stdout.trim_end(), first.trim_end());
    Ok(())
}

/// Of what came once, and large, nobody knows whether more will come; but what fills grows, and what
/// is not in memory is nothing yet.
#[test]
fn single_large_blocks_are_told_by_what_of_them_is_in_memory() -> Result<()> {
    const MIB: u64 = 1 << 20;
    let mut target = Target::start("chunks")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("work")?;
    let finished = tracer.stop()?;
    let report = finished.report()?;
    report.agrees_with(&truth)?;
    let about = |function: &str| {
        let mut findings = report.findings.iter().filter(|it| !it.kind.is_harmless());
        findings.find(|it| is_about(it, function))
    };
    let site = |function| report.sites_with(function).next().context("no site");

    let chunk = about("takes_a_chunk").context("the chunk is in no finding")?;
    assert_eq!(chunk.kind, FindingKind::Undecided, "{chunk:?}");
    assert_eq!(site("takes_a_chunk")?.verdict, None);
    ensure!(
        finished.stdout.contains("TOO EARLY TO SAY 16.0 MiB"),
        "{}",
        finished.stdout
    );

    let pool = about("takes_a_pool").context("the pool is in no finding")?;
    assert_eq!(pool.kind, FindingKind::Growing, "{pool:?}");
    // 1 MiB each 0.3 s.
    let rate = pool.bytes_per_second / (1 << 20) as f64;
    ensure!((2.0..4.5).contains(&rate), "{pool:?}");
    let filled = site("takes_a_pool")?
        .resident_bytes
        .context("nobody looked")?;
    ensure!((25 * MIB..=33 * MIB).contains(&filled), "{filled}");

    ensure!(about("reserves").is_none(), "{:?}", report.findings);
    let empty = site("reserves")?;
    ensure!(
        empty.live_bytes > 64 * MIB && empty.resident_bytes == Some(4096),
        "{empty:?}"
    );
    Ok(())
}

/// What takes the place of as many blocks from before the run does not grow.
#[test]
fn a_cache_that_was_full_before_is_no_leak() -> Result<()> {
    let mut target = Target::start("renewed")?;
    target.command("fill")?;
    let tracer = Tracer::record(target.pid, &[])?;
    let truth = target.command("renew")?;
    let report = tracer.stop()?.report()?;
    report.agrees_with(&truth)?;
    let site = report.sites_with("entry").next().context("no site")?;
    assert_eq!(site.verdict, Some(Verdict::Churn), "{site:?}");
    let mut findings = report.findings.iter().filter(|it| !it.kind.is_harmless());
    let about = findings.find(|it| is_about(it, "entry"));
    ensure!(about.is_none(), "{about:?}");
    Ok(())
}
