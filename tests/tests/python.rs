//! Python functions in call paths: each allocates a size of its own, by the same C call, and
//! Python itself says through which functions.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use unfreed_tests::model::{Frame, MemoryKind, Origin, Site, StackEnd};
use unfreed_tests::{Target, Tracer, View};

/// Debian's Python.
const PYTHON: &str = "/usr/bin/python3";

/// Debian's, and those that `UNFREED_PYTHONS` names besides, separated by colons.
fn pythons() -> Vec<String> {
    let others = std::env::var("UNFREED_PYTHONS").unwrap_or_default();
    let others = others.split(':').filter(|path| !path.is_empty());
    [PYTHON]
        .into_iter()
        .chain(others)
        .map(str::to_owned)
        .collect()
}

/// A function as Python has it: its name, file and first line.
type Function = (String, String, u32);

/// Calls by the functions that led to them, the innermost first.
type Paths = BTreeMap<(u64, Vec<Function>), u64>;

fn start(python: &str) -> Result<Target> {
    let mut python = Command::new(python);
    python.args(["-S", "-E", "targets/python/frames.py"]);
    Target::start_with(&mut python)
}

/// What Python says.
fn real(said: &str) -> Result<Paths> {
    let paths: Vec<(u64, u64, Vec<Function>)> = serde_json::from_str(said)?;
    let paths = paths.into_iter();
    Ok(paths
        .map(|(size, count, path)| ((size, path), count))
        .collect())
}

fn function(frame: &Frame) -> Result<Function> {
    let name = frame
        .function
        .as_ref()
        .with_context(|| format!("{frame:?}"))?;
    let file = frame.file.as_ref().with_context(|| format!("{frame:?}"))?;
    let line = frame.line.with_context(|| format!("{frame:?}"))?;
    Ok((name.to_string(), file.to_string(), line))
}

fn is_python(frame: &&Frame) -> bool {
    frame.origin == Origin::Python
}

/// The functions of Python on a call path, the innermost first.
fn functions(site: &Site) -> Result<Vec<Function>> {
    let frames = site.frames.iter().rev();
    frames.filter(is_python).map(function).collect()
}

/// What the tracer says of calls of these sizes, where blocks of nobody else's have them:
/// `malloc` is asked for them by `ctypes`, a `bytearray` by Python.
fn found(report: &View, sizes: &[u64]) -> Result<Paths> {
    let mut paths = Paths::new();
    for site in report
        .sites
        .iter()
        .filter(|site| site.kind == MemoryKind::Heap)
    {
        let size = site.live_bytes.checked_div(site.live_count).unwrap_or(0);
        if sizes.contains(&size) && site.live_bytes == size * site.live_count {
            ensure!(site.stack_end == StackEnd::Start, "{site:?}");
            *paths.entry((size, functions(site)?)).or_default() += site.live_count;
        }
    }
    Ok(paths)
}

#[test]
fn each_call_is_of_the_functions_that_python_says() -> Result<()> {
    for python in pythons() {
        agrees(&python).with_context(|| python.clone())?;
    }
    Ok(())
}

fn agrees(python: &str) -> Result<()> {
    let mut target = start(python)?;
    let tracer = Tracer::record(target.pid, &["--top", "1000"])?;
    let said = target.ask("work", "stacks ")?;
    let finished = tracer.stop()?;
    ensure!(target.finish()?.success());
    let real = real(&said)?;
    let sizes: Vec<u64> = real.keys().map(|(size, _)| *size).collect();
    ensure!(real.len() >= 19, "{real:?}");
    let found = found(&finished.report()?, &sizes)?;
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
    // Whoever reads it sees the functions, and not the interpreter's. (How many of a row's depends on
    // what is said of it.)
    for shown in ["take", "work"] {
        ensure!(finished.stdout.contains(shown), "{}", finished.stdout);
    }
    ensure!(!finished.stdout.contains("_PyEval_EvalFrameDefault"));
    Ok(())
}

/// In a child its copy of the interpreter's state counts, at the same addresses.
#[test]
fn a_forked_child_has_names_of_its_own() -> Result<()> {
    let mut target = start(PYTHON)?;
    let tracer = Tracer::record(target.pid, &["--follow", "--per-process"])?;
    target.ask("fork", "stacks ")?;
    let report = tracer.stop()?.report()?;
    ensure!(target.finish()?.success());
    let mut sites = report.sites.iter().filter(|site| {
        let pid = report
            .processes
            .get(site.process)
            .map(|process| process.pid);
        pid != Some(target.pid) && site.live_bytes == 1009
    });
    let site = sites.next().context("the child's block")?;
    let functions = functions(site)?;
    let names: Vec<&str> = functions.iter().map(|(name, ..)| &name[..]).collect();
    let expected = ["take", "handle", "forked", "main", "<module>"];
    ensure!(names == expected && sites.next().is_none(), "{names:?}");
    Ok(())
}
