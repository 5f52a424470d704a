//! All tests: set-up, lints, unit tests as the user, and the end-to-end tests
//! as root.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use tracer_ebpf_build::{Toolchain, workspace};

use crate::programs::{EndToEnd, Unit, build};
use crate::setup::{Group, ensure};
use crate::shell::{cargo, say};
use crate::tally::Tally;
use crate::timeline::Timeline;
use crate::{fuzz, libtest, lint, pool, vm};

/// Tests of one program that run at a time.
const THREADS: &str = "--test-threads=2";
/// The rest between histograms of a Java heap, as a multiple of what one took.
/// The usual one, 50, is for people's programs; `cargo xtask incidents` has it.
const HEAP_REST: (&str, &str) = ("UNFREED_HEAP_REST", "5");

/// Runs everything, on the oldest and the newest kernel too, or the tests whose
/// names contain `filter`, and prints one closing line. The code says failure
/// when a test failed or was skipped.
///
/// # Errors
/// Fails when something cannot be set up, linted or built.
pub(crate) fn all(filter: Option<&str>) -> Result<ExitCode> {
    let timeline = Arc::new(Timeline::new());
    let toolchain = timeline.phase("set-up", || ensure(&[Group::Lint, Group::Test, Group::Vm]))?;
    let tally = match filter {
        None => everything(&toolchain, &timeline)?,
        Some(name) => named(name, &timeline)?,
    };
    println!("{tally}");
    Ok(if tally.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Lints and all tests. Cores are what is scarce: the build has them for itself,
/// and all that follows it goes on side by side, so that none is idle while a
/// test waits. An error ends us, and with us all that runs beside.
fn everything(toolchain: &Toolchain, timeline: &Arc<Timeline>) -> Result<Tally> {
    timeline.phase("formatting", lint::format)?;
    let (end_to_end, units) = timeline.phase("build", build)?;
    let end_to_end = Arc::new(end_to_end);
    let elsewhere = thread::spawn({
        let (end_to_end, timeline) = (Arc::clone(&end_to_end), Arc::clone(timeline));
        move || vm::oldest_and_newest(&end_to_end, &timeline)
    });
    let lints = thread::spawn({
        let (toolchain, timeline) = (toolchain.clone(), Arc::clone(timeline));
        move || -> Result<Tally> {
            timeline.phase("clippy", || lint::code(&toolchain))?;
            timeline.phase("examples", || examples(None))
        }
    });
    let beside = thread::spawn({
        let timeline = Arc::clone(timeline);
        move || -> Result<Tally> {
            timeline.phase("licences", lint::dependencies)?;
            timeline.phase("fuzzing", fuzz::briefly)
        }
    });
    let mut tally = unit_tests(&units, None, end_to_end.timed, timeline)?;
    tally += end_to_end_tests(&end_to_end, None, timeline)?;
    tally += join(lints)? + join(beside)?;
    let table = join(elsewhere)?;
    print!("{timeline}\n{table}");
    Ok(tally + table.tally())
}

/// The tests whose names contain `name`.
fn named(name: &str, timeline: &Timeline) -> Result<Tally> {
    let (end_to_end, units) = build()?;
    let tally = unit_tests(&units, Some(name), end_to_end.timed, timeline)?
        + examples(Some(name))?
        + end_to_end_tests(&end_to_end, Some(name), timeline)?;
    if tally.ran() == 0 {
        bail!("no test's name contains {name:?}");
    }
    Ok(tally)
}

fn join<T>(work: thread::JoinHandle<Result<T>>) -> Result<T> {
    work.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs the end-to-end tests, or those whose names contain `filter`.
fn end_to_end_tests(tests: &EndToEnd, filter: Option<&str>, timeline: &Timeline) -> Result<Tally> {
    let command = |program: &Path| {
        let times: &[(&str, &str)] = if tests.timed {
            &[libtest::VARIABLE]
        } else {
            &[]
        };
        let mut command = EndToEnd::command(program, &[&[HEAP_REST], times].concat())?;
        command.current_dir(workspace().join("tests"));
        arguments(&mut command, filter, tests.timed);
        Ok(command)
    };
    timeline.phase("end-to-end tests", || {
        pool::run(&tests.programs, &command, timeline)
    })
}

/// Runs the unit tests of all packages.
fn unit_tests(
    units: &[Unit],
    filter: Option<&str>,
    timed: bool,
    timeline: &Timeline,
) -> Result<Tally> {
    let programs: Vec<PathBuf> = units.iter().map(|unit| unit.program.clone()).collect();
    let command = |program: &Path| {
        let unit = units.iter().find(|unit| unit.program == program);
        let mut command = unit.context("no such program")?.command();
        if timed {
            let (name, value) = libtest::VARIABLE;
            command.env(name, value);
        }
        arguments(&mut command, filter, timed);
        Ok(command)
    };
    timeline.phase("unit tests", || pool::run(&programs, &command, timeline))
}

fn arguments(command: &mut Command, filter: Option<&str>, timed: bool) {
    command.args([THREADS, "--color=never"]);
    if timed {
        command.args(libtest::OPTIONS);
    }
    command.args(filter);
}

/// Runs the examples in the packages' documentation.
fn examples(filter: Option<&str>) -> Result<Tally> {
    let mut examples = cargo();
    examples
        .args(["test", "--doc", "--workspace", "--color=never"])
        .args(filter);
    let (tally, output) = pool::one(&mut examples)?;
    say(output);
    Ok(tally)
}
