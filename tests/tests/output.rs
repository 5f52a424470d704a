//! Every output, written by the real binary, parses and says the same.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use unfreed_tests::pprof::Profile;
use unfreed_tests::{
    Outputs, Sums, Target, Tracer, View, folded, gunzip, is_drawing, run_leak as run, target_path,
    unfreed, wait_until,
};

/// What `run` leaves live, in bytes.
const LIVE: u64 = 7 * 1009 + 16 * 509;

// --- formats ---

#[test]
fn every_format_is_written_in_one_run() -> Result<()> {
    let out = Outputs::new()?;
    let (svg, stacks, profile, text) = (
        out.text("x.svg"),
        out.text("x.folded"),
        out.text("x.pb.gz"),
        out.text("x.txt"),
    );
    let finished = run(&["-o", &svg, "-o", &stacks, "-o", &profile, "-o", &text])?;
    let report = finished.report()?;
    assert_eq!(report.heap("leak_blocks"), Sums::live(1009, 7));
    assert_eq!(
        (report.totals.live_bytes, report.totals.live_count),
        (LIVE, 23)
    );

    let stacks = folded(&out.path("x.folded"))?;
    assert_eq!(stacks.iter().map(|(_, bytes)| bytes).sum::<u64>(), LIVE);
    let (stack, bytes) = stacks
        .iter()
        .find(|(stack, _)| stack.contains("leak_blocks"))
        .context("no leak")?;
    assert_eq!(*bytes, 7 * 1009);
    let place = |name| stack.split(';').position(|frame| frame.starts_with(name));
    assert!(
        place("main") < place("leak_blocks") && place("leak_blocks") < place("malloc"),
        "{stack}"
    );

    let svg = fs::read_to_string(out.path("x.svg"))?;
    assert!(is_drawing(&svg) && svg.contains("leak_blocks") && svg.contains("bytes"));

    let profile = Profile::parse(&gunzip(&out.path("x.pb.gz"))?)?;
    let mut types = profile.sample_types.clone();
    types.sort();
    assert_eq!(
        types,
        [
            "alloc_objects",
            "alloc_space",
            "inuse_objects",
            "inuse_space"
        ]
    );
    assert_eq!(profile.sum("inuse_space"), LIVE);
    assert_eq!(profile.sum("inuse_objects"), 23);
    assert_eq!(profile.sum("alloc_space"), report.totals.allocated_bytes);
    assert_eq!(profile.sum("alloc_objects"), report.totals.allocated_count);
    assert!(profile.strings.iter().any(|text| text == "leak_blocks"));

    assert!(fs::read_to_string(out.path("x.txt"))?.contains("leak_blocks"));
    assert!(
        finished.stdout.contains("leak_blocks"),
        "no table:\n{}",
        finished.stdout
    );
    Ok(())
}

#[test]
fn the_json_has_its_documented_fields() -> Result<()> {
    let finished = run(&[])?;
    let report: Value = serde_json::from_str(&fs::read_to_string(finished.json())?)?;
    assert_eq!(report["schema"], "unfreed/1");
    for field in [
        "processes",
        "sites",
        "losses",
        "overhead",
        "duration",
        "totals",
        "modules",
    ] {
        assert!(!report[field].is_null(), "no {field}");
    }
    let site = &report["sites"][0];
    for field in [
        "live_bytes",
        "live_count",
        "allocated_bytes",
        "allocated_count",
        "freed_count",
    ] {
        assert!(site[field].is_u64(), "no {field} in {site}");
    }
    let frames = site["frames"].as_array().context("no frames")?;
    let frame = frames
        .iter()
        .find(|frame| frame["file"].is_string())
        .context("no file")?;
    for field in ["function", "file", "line", "module", "address", "inlined"] {
        assert!(!frame[field].is_null(), "no {field} in {frame}");
    }
    Ok(())
}

#[test]
fn sites_come_by_live_bytes_and_totals_are_their_sums() -> Result<()> {
    let report = run(&[])?.report()?;
    assert!(
        report
            .sites
            .is_sorted_by(|one, other| one.live_bytes >= other.live_bytes)
    );
    let sums = report
        .sites
        .iter()
        .map(Sums::of)
        .fold(Sums::default(), |sum, site| sum + site);
    let totals = report.totals;
    assert_eq!(
        (
            sums.live_bytes,
            sums.allocated_bytes,
            sums.freed_bytes,
            sums.freed_count
        ),
        (
            totals.live_bytes,
            totals.allocated_bytes,
            totals.freed_bytes,
            totals.freed_count
        )
    );
    // What was freed has a lifetime each.
    for site in &report.sites {
        let lifetimes: u64 = site.lifetimes.iter().map(|bucket| bucket.count).sum();
        assert_eq!(lifetimes, site.freed_count, "{site:?}");
    }
    Ok(())
}

#[test]
fn overhead_counts_the_probes_that_ran() -> Result<()> {
    let report = run(&[])?.report()?;
    let calls = report.totals.allocated_count + report.totals.freed_count;
    assert!(report.overhead.probe_hits >= calls, "{:?}", report.overhead);
    assert!(report.overhead.kernel_bytes > 0 && report.overhead.nanoseconds_per_hit > 0.0);
    Ok(())
}

#[test]
fn a_dash_is_standard_output() -> Result<()> {
    let mut target = Target::start("leak")?;
    let tracer = Tracer::record(
        target.pid,
        &["--duration", "1s", "-o", "-", "--format", "json"],
    );
    // The line `tracing` has been seen, so the second is not over.
    let tracer = tracer?;
    let truth = target.command("leak_blocks")?;
    let stdout = tracer.wait()?.stdout;
    let start = stdout.find('{').context("no JSON")?;
    let mut documents = serde_json::Deserializer::from_str(&stdout[start..]).into_iter();
    let report = documents.next().context("no JSON")??;
    View::new(report).agrees_with(&truth)
}

#[test]
fn quiet_prints_nothing() -> Result<()> {
    let finished = run(&["-q"])?;
    finished.report()?;
    let target_says = Command::new(target_path("leak")?)
        .args(["leak_blocks", "cache_blocks"])
        .output()?;
    assert_eq!(
        finished.stdout,
        String::from_utf8(target_says.stdout)?.trim_end()
    );
    assert_eq!(finished.stderr, "");
    Ok(())
}

#[test]
fn quiet_to_standard_output_is_only_the_document() -> Result<()> {
    let target = Target::start("leak")?;
    let pid = target.pid.to_string();
    let finished = unfreed(&[
        "record",
        "-q",
        "-p",
        &pid,
        "--duration",
        "200ms",
        "-o",
        "-",
        "--format",
        "json",
    ])?;
    let report: Value = serde_json::from_str(&finished.stdout)?;
    assert_eq!(report["schema"], "unfreed/1");
    Ok(())
}

// --- time ---

#[test]
fn duration_ends_the_run() -> Result<()> {
    let mut target = Target::start("leak")?;
    let tracer = Tracer::record(target.pid, &["--duration", "1500ms"])?;
    let truth = target.command("leak_blocks")?;
    let report = tracer.wait()?.report()?;
    report.agrees_with(&truth)?;
    assert!(report.duration >= 1.5, "{}", report.duration);
    Ok(())
}

#[test]
fn interval_rewrites_the_outputs_and_the_timeline_grows() -> Result<()> {
    let mut target = Target::start("leak")?;
    let tracer = Tracer::record(target.pid, &["--interval", "100ms"])?;
    let path = tracer.folder().join("report.json");
    let read = || -> Result<Option<View>> {
        let Ok(text) = fs::read_to_string(&path) else {
            return Ok(None);
        };
        // Empty before the first interval; never half of a report.
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(View::new(
            serde_json::from_str(&text).context("half a report")?,
        )))
    };
    target.command("leak_blocks")?;
    let first = wait_until("a report with the first leak", || {
        Ok(read()?.filter(|report| report.totals.live_count == 7))
    })?;
    target.command("leak_blocks")?;
    let second = wait_until("a report with both", || {
        Ok(read()?.filter(|report| report.totals.live_count == 14))
    })?;
    assert!(second.timeline.len() > first.timeline.len());
    let last = tracer.stop()?.report()?;
    assert!(last.timeline.len() >= second.timeline.len());
    assert!(last.timeline.is_sorted_by(|one, other| one.at < other.at));
    let counts = last.timeline.iter().map(|point| point.totals.live_count);
    assert!(
        counts.is_sorted()
            && last
                .timeline
                .iter()
                .any(|point| point.totals.live_count == 7)
    );
    Ok(())
}

#[test]
fn older_than_leaves_young_blocks_out_of_the_live_numbers() -> Result<()> {
    let mut target = Target::start("leak")?;
    let tracer = Tracer::record(target.pid, &["--older-than", "1h"])?;
    target.command("leak_blocks")?;
    let report = tracer.stop()?.report()?;
    let found = report.heap("leak_blocks");
    assert_eq!((found.live_count, found.live_bytes), (0, 0), "{found:?}");
    assert_eq!(
        (found.allocated_count, found.freed_count),
        (7, 0),
        "{found:?}"
    );
    assert_eq!(report.totals.live_bytes, 0);
    Ok(())
}

#[test]
fn older_than_keeps_old_blocks() -> Result<()> {
    const AGE: Duration = Duration::from_secs(3);
    let mut target = Target::start("leak")?;
    let tracer = Tracer::record(target.pid, &["--older-than", "3s"])?;
    target.command("leak_blocks")?;
    std::thread::sleep(AGE); // time itself is the fact to wait for
    let young = Instant::now();
    target.command("cache_blocks")?;
    let report = tracer.stop()?.report()?;
    ensure!(
        young.elapsed() < AGE,
        "this machine is too slow to tell old from young"
    );
    let site = report.sites_with("leak_blocks").next().context("no site")?;
    assert_eq!((site.live_count, site.live_bytes), (7, 7 * 1009));
    assert!(
        site.oldest_age.is_some_and(|age| age >= 3.0),
        "{:?}",
        site.oldest_age
    );
    assert_eq!(report.heap("cache_blocks").live_count, 0);
    Ok(())
}

// --- exit codes ---

#[test]
fn fail_above_is_a_gate() -> Result<()> {
    for (limit, code) in [("1k", 3), ("1M", 0)] {
        let finished = run(&["--fail-above", limit])?;
        assert_eq!(
            finished.status.code(),
            Some(code),
            "{limit}: {}",
            finished.stderr
        );
        assert_eq!(finished.report_of_any_end()?.totals.live_bytes, LIVE);
    }
    let exactly = LIVE.to_string();
    assert_eq!(
        run(&["--fail-above", &exactly])?.status.code(),
        Some(0),
        "not above"
    );
    Ok(())
}

#[test]
fn run_passes_the_exit_code_on() -> Result<()> {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)] {
        let finished = Tracer::run(&[], &["sh", "-c", script])?.wait()?;
        assert_eq!(
            finished.status.code(),
            Some(code),
            "{script}: {}",
            finished.stderr
        );
        assert_eq!(finished.report_of_any_end()?.processes.len(), 1);
    }
    Ok(())
}

#[test]
fn run_passes_standard_input_and_output_on() -> Result<()> {
    let out = Outputs::new()?;
    fs::write(out.path("in"), "through the tracer\n")?;
    let input = fs::File::open(out.path("in"))?;
    let finished = Tracer::run_with(&["-q"], &["cat"], |tracer| {
        tracer.stdin(input);
    })?;
    assert_eq!(finished.wait()?.stdout, "through the tracer");
    Ok(())
}
