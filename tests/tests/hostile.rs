//! A target that is made to harm who traces it: the tracer's memory and time
//! are bounded, and its report is right. A program of its own, since the peak of
//! memory is that of all children.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::Origin;
use unfreed_tests::{Target, Tracer};

/// The tracer's peak of memory, KiB: a fifth of it without hostility.
const PEAK: i64 = 256 << 10;

/// From the signal to the report, with a million symbols sorted by a tracer
/// that is not optimized.
const TIME: Duration = Duration::from_secs(40);

/// The perf map of a target; removed with this value.
struct PerfMap(PathBuf);

impl Drop for PerfMap {
    fn drop(&mut self) {
        let _gone_before = fs::remove_file(&self.0);
    }
}

#[test]
fn names_that_are_made_to_harm_cost_little() -> Result<()> {
    let mut target = Target::start("hostile")?;
    let map = PerfMap(PathBuf::from(format!("/tmp/perf-{}.map", target.pid)));
    let size = fs::metadata(&map.0)?.len();
    ensure!((1_400_000..1_700_000).contains(&size), "{size}");
    let folder = tempfile::tempdir()?;
    let outputs = ["a.svg", "a.folded", "a.pb.gz", "a.txt"].map(|name| folder.path().join(name));
    let mut options = Vec::new();
    for output in &outputs {
        options.extend(["-o", output.to_str().context("a path in UTF-8")?]);
    }
    let tracer = Tracer::record(target.pid, &options)?;
    let truth = target.command("run_hostile")?;
    let began = Instant::now();
    let report = tracer.stop()?.report()?;
    let took = began.elapsed();
    report.agrees_with(&truth)?;
    let sites = report.sites_with("leak_through_compiled");
    let mut frames = sites.flat_map(|site| &site.frames);
    let compiled = frames.find(|frame| frame.origin == Origin::Jit);
    let name = compiled.and_then(|frame| frame.function.as_deref());
    let name = name.with_context(|| report.table())?;
    ensure!(
        name.starts_with("xxxx") && name.len() <= 16 << 10,
        "{}",
        name.len()
    );
    for output in &outputs {
        let size = fs::metadata(output)?.len();
        ensure!(
            (100..1_000_000).contains(&size),
            "{} has {size}",
            output.display()
        );
    }
    drop(target);
    let peak = peak_of_children();
    eprintln!("peak {peak} KiB, {took:?} from the signal to the report");
    ensure!(peak < PEAK, "{peak} KiB");
    ensure!(took < TIME, "{took:?}");
    Ok(())
}

/// The largest peak of memory of any child that ended, KiB.
fn peak_of_children() -> i64 {
    // SAFETY: an all-zero rusage is valid, and the call fills it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a valid pointer to a local.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    usage.ru_maxrss
}
