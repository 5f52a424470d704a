//! JavaScript functions in call paths: each allocates a size of its own, by the same C++
//! function, and V8 itself says through which functions.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::iter;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::{Frame, MemoryKind, Origin, Site, StackEnd};
use unfreed_tests::{Finished, Target, Tracer, View};

const SCRIPT: &str = "targets/node/functions.js";

/// The function that asks for memory; node's own are below it.
const TAKE: &str = "take";

/// A function as V8 has it: its name, file (empty if it has none) and the line where it begins.
type Function = (String, String, u32);

/// Calls by the functions that led to them, the innermost first.
type Paths = BTreeMap<(u64, Vec<Function>), u64>;

/// Debian's node, and those that `UNFREED_NODES` names besides, separated by colons.
fn nodes() -> Vec<String> {
    let others = env::var("UNFREED_NODES").unwrap_or_default();
    let others = others.split(':').filter(|path| !path.is_empty());
    iter::once("node")
        .chain(others)
        .map(str::to_owned)
        .collect()
}

fn start(node: &str, flags: &[&str]) -> Result<Target> {
    let mut node = Command::new(node);
    node.args(["--expose-gc", "--allow-natives-syntax"])
        .args(flags)
        .arg(SCRIPT);
    Target::start_with(&mut node)
}

/// What V8 says.
fn real(said: &str) -> Result<Paths> {
    let paths: Vec<(u64, u64, Vec<Function>)> = serde_json::from_str(said)?;
    let paths = paths.into_iter();
    Ok(paths
        .map(|(size, count, path)| ((size, path), count))
        .collect())
}

fn function(frame: &Frame) -> Result<Function> {
    let known = || format!("{frame:?}");
    let name = frame.function.as_ref().with_context(known)?;
    // Code that was made of a text has none.
    let file = frame.file.as_deref().unwrap_or_default();
    let line = frame.line.with_context(known)?;
    Ok((name.to_string(), file.to_string(), line))
}

/// The functions of JavaScript on a call path from [`TAKE`] on, the innermost first.
fn functions(site: &Site) -> Result<Vec<Function>> {
    let frames = site.frames.iter().rev();
    let own = frames
        .filter(|frame| frame.origin == Origin::JavaScript)
        .skip_while(|frame| frame.function.as_deref() != Some(TAKE));
    own.map(function).collect()
}

/// What the tracer says of calls of these sizes.
fn found(report: &View, sizes: &[u64]) -> Result<Paths> {
    let mut paths = Paths::new();
    let heap = |site: &&Site| site.kind == MemoryKind::Heap;
    for site in report.sites.iter().filter(heap) {
        let size = site.live_bytes.checked_div(site.live_count).unwrap_or(0);
        if sizes.contains(&size) && site.live_bytes == size * site.live_count {
            let whole = [StackEnd::Start, StackEnd::StartByFramePointers];
            ensure!(whole.contains(&site.stack_end), "{site:?}");
            *paths.entry((size, functions(site)?)).or_default() += site.live_count;
        }
    }
    Ok(paths)
}

fn sizes(real: &Paths) -> Vec<u64> {
    real.keys().map(|(size, _)| *size).collect()
}

fn agree(real: &Paths, finished: &Finished) -> Result<()> {
    let report = finished.report()?;
    let lost = report.losses.iter().find(|loss| loss.cause == "sites_full");
    ensure!(lost.is_none_or(|loss| loss.count == 0), "{lost:?}");
    let found = found(&report, &sizes(real))?;
    for path in real.keys().chain(found.keys()) {
        ensure!(
            found.get(path) == real.get(path),
            "{path:?}: {:?}, really {:?}; of this size {:?}",
            found.get(path),
            real.get(path),
            found
                .iter()
                .filter(|(other, _)| other.0 == path.0)
                .collect::<Vec<_>>()
        );
    }
    Ok(())
}

/// All functions are made by one of V8's compilers, and none is put into another: then all
/// paths are those that V8 says.
fn agrees(tier: &str, flags: &[&str]) -> Result<()> {
    for node in nodes() {
        agrees_of(&node, tier, flags).with_context(|| node.clone())?;
    }
    Ok(())
}

/// Removes a process's perf map, and the logs that V8 writes beside it where the process was.
fn remove_perf_map(pid: u32) -> Result<()> {
    fs::remove_file(format!("/tmp/perf-{pid}.map"))?;
    let log = format!("-{pid}-v8.log");
    for entry in fs::read_dir(".")? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if name.starts_with("isolate-") && name.ends_with(&log) {
            fs::remove_file(name)?;
        }
    }
    Ok(())
}

fn agrees_of(node: &str, tier: &str, flags: &[&str]) -> Result<Finished> {
    let mut target = start(node, flags)?;
    // V8's compilers ask for memory on many paths.
    let tracer = Tracer::record(target.pid, &["--top", "1000", "--max-sites", "65536"])?;
    let real = real(&target.ask("work", "stacks ")?)?;
    let made_by = target.ask("tier", "tier ")?;
    let finished = tracer.stop()?;
    let pid = target.pid;
    ensure!(target.finish()?.success());
    if flags.contains(&"--perf-basic-prof") {
        remove_perf_map(pid)?;
    }
    // Node 18 does not say.
    let is_made = made_by == tier || made_by.is_empty() && node != "node";
    ensure!(is_made && real.len() >= 29, "{made_by}, {real:?}");
    agree(&real, &finished)?;
    // Whoever reads it sees the functions, and not the interpreter's. (How many of a row's depends on
    // what is said of it.)
    for shown in ["take", "work"] {
        ensure!(finished.stdout.contains(shown), "{}", finished.stdout);
    }
    ensure!(!finished.stdout.contains("InterpreterEntryTrampoline"));
    Ok(finished)
}

#[test]
fn each_call_is_of_the_functions_that_v8_says_interpreted() -> Result<()> {
    agrees("Ignition", &["--no-opt", "--no-sparkplug"])
}

#[test]
fn each_call_is_of_the_functions_that_v8_says_in_quick_code() -> Result<()> {
    agrees("Sparkplug", &["--always-sparkplug", "--no-opt"])
}

#[test]
fn each_call_is_of_the_functions_that_v8_says_optimised() -> Result<()> {
    // Not all versions can be told to.
    let flags = ["--always-turbofan", "--max-inlined-bytecode-size=0"];
    agrees_of("node", "Turbofan", &flags).map(drop)
}

/// With a perf map beside it, which names the same code by its address, a function is named
/// once, and by V8.
#[test]
fn a_perf_map_names_no_function_again() -> Result<()> {
    let interpreted = [
        "--no-opt",
        "--no-sparkplug",
        "--interpreted-frames-native-stack",
    ];
    let quick = ["--no-opt", "--always-sparkplug"];
    for (tier, flags) in [("Ignition", &interpreted[..]), ("Sparkplug", &quick)] {
        let flags = [&["--perf-basic-prof"], flags].concat();
        let finished = agrees_of("node", tier, &flags)?;
        let report = finished.report()?;
        let frames = report.sites.iter().flat_map(|site| &site.frames);
        let own = ["take", "handle", "recurse"];
        let mut seen = 0;
        for frame in frames {
            let name = frame.function.as_deref().unwrap_or_default();
            let is_own = own.iter().any(|own| name.contains(own)) && name.contains("functions.js");
            ensure!(!is_own, "{frame:?}");
            seen += usize::from(name == "take" && frame.origin == Origin::JavaScript);
        }
        ensure!(seen > 20, "{seen}");
    }
    Ok(())
}

/// Objects that the garbage collector moves stay the functions that they were: one function,
/// one call path.
#[test]
fn what_was_moved_is_one_function() -> Result<()> {
    let flags = [
        "--no-opt",
        "--no-sparkplug",
        "--compact-on-every-full-gc",
        "--stress-compaction",
    ];
    let mut target = start("node", &flags)?;
    let tracer = Tracer::record(target.pid, &["--top", "1000"])?;
    let real = real(&target.ask("work", "stacks ")?)?;
    let finished = tracer.stop()?;
    ensure!(target.finish()?.success());
    let report = finished.report()?;
    // Not all could be read before they were moved: names are another test's.
    let heap = report
        .sites
        .iter()
        .filter(|it| it.kind == MemoryKind::Heap && it.live_count > 0);
    let mut counts = BTreeMap::<u64, u64>::new();
    for site in heap.clone() {
        *counts.entry(site.live_bytes / site.live_count).or_default() += site.live_count;
    }
    let mut really = BTreeMap::<u64, u64>::new();
    for ((size, _), count) in &real {
        *really.entry(*size).or_default() += count;
    }
    counts.retain(|size, _| really.contains_key(size));
    ensure!(counts == really, "{counts:?}, really {really:?}");
    let of_put = heap.filter(|site| site.live_bytes == 30 * 100_043);
    ensure!(of_put.count() == 1, "{:?}", report.sites);
    Ok(())
}

/// Whether V8 may have put some functions of a path into those that call them.
fn is_part(found: &[Function], real: &[Function]) -> bool {
    let mut rest = real.iter();
    found
        .iter()
        .all(|function| rest.any(|other| other == function))
}

/// As V8 runs by itself: first interpreted, then compiled again and again, with small
/// functions put into those that call them. Each path has what is left of V8's.
#[test]
fn what_v8_does_by_itself_leaves_the_functions_that_call() -> Result<()> {
    for node in nodes() {
        leaves_the_functions_that_call(&node).with_context(|| node.clone())?;
    }
    Ok(())
}

fn leaves_the_functions_that_call(node: &str) -> Result<()> {
    let mut target = start(node, &[])?;
    let tracer = Tracer::record(target.pid, &["--top", "1000"])?;
    let mut said = String::new();
    for _ in 0..10 {
        said = target.ask("work", "stacks ")?;
    }
    let report = tracer.stop()?.report()?;
    ensure!(target.finish()?.success());
    let real = real(&said)?;
    let mut counts = BTreeMap::<u64, i64>::new();
    for ((size, _), count) in &real {
        *counts.entry(*size).or_default() += i64::try_from(*count)?;
    }
    for site in report.sites.iter().filter(|it| it.kind == MemoryKind::Heap) {
        let size = site.live_bytes.checked_div(site.live_count).unwrap_or(0);
        let Some(count) = counts.get_mut(&size) else {
            continue;
        };
        *count -= i64::try_from(site.live_count)?;
        let frames = site.frames.iter().rev();
        let scripts = frames.filter(|frame| frame.origin == Origin::JavaScript);
        let path: Vec<Function> = scripts.map(function).collect::<Result<_>>()?;
        let own: Vec<Function> = path
            .into_iter()
            .skip_while(|(_, file, _)| file.starts_with("node:"))
            .collect();
        let mut paths = real.keys().filter(|(other, _)| *other == size);
        ensure!(
            !own.is_empty() && paths.any(|(_, path)| is_part(&own, path)),
            "{size}: {own:?}"
        );
    }
    ensure!(counts.values().all(|count| *count == 0), "{counts:?}");
    Ok(())
}

/// A worker has objects of its own.
#[test]
fn a_workers_functions_have_names() -> Result<()> {
    let mut target = start("node", &["--no-opt"])?;
    let tracer = Tracer::record(target.pid, &["--top", "1000"])?;
    let real = real(&target.ask("worker", "stacks ")?)?;
    let finished = tracer.stop()?;
    ensure!(target.finish()?.success());
    ensure!(real.len() == 2, "{real:?}");
    agree(&real, &finished)
}
