//! All tests: set-up, lints, unit tests as the user, and the end-to-end tests
//! as root.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use tracer_ebpf_build::{Toolchain, workspace};

use crate::programs::{EndToEnd, Unit, build, build_units};
use crate::setup::{Group, ensure};
use crate::shell::{cargo, say};
use crate::tally::Tally;
use crate::timeline::Timeline;
use crate::{deny, fuzz, libtest, lint, npm, pool, vm};

/// Tests of one program that run at a time.
const THREADS: &str = "--test-threads=2";
/// How nice what nothing waits for is; VMs have 5.
const NICE: i32 = 10;
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

/// Lints and all tests. Cores are what is scarce, so none is to be idle while
/// something waits: the VMs run as soon as there is what they need, and what
/// nothing waits for fills the gaps.
fn everything(toolchain: &Toolchain, timeline: &Arc<Timeline>) -> Result<Tally> {
    timeline.phase("formatting", lint::format)?;
    let fleet = beside(timeline, |timeline| {
        timeline.phase("kernels fetched", vm::fetch_regular)
    });
    let others = beside(timeline, |timeline| {
        timeline.phase("licences", || npm::check().and_then(|()| deny::check()))?;
        timeline.phase("fuzzing", fuzz::briefly)
    });
    let (end_to_end, mut units) = timeline.phase("build", build)?;
    let end_to_end = Arc::new(end_to_end);
    let elsewhere = thread::spawn({
        let (end_to_end, timeline) = (Arc::clone(&end_to_end), Arc::clone(timeline));
        move || vm::run_choice(&join(fleet)?, &end_to_end, &timeline)
    });
    units.extend(timeline.phase("build of unit tests", build_units)?);
    let lints = beside(timeline, {
        let toolchain = toolchain.clone();
        move |timeline| {
            timeline.phase("clippy on the BPF program", || {
                lint::kernel_side(&toolchain)
            })?;
            timeline.phase("examples", || examples(None))
        }
    });
    let mut tally = unit_tests(&units, None, end_to_end.timed, timeline)?;
    let (quiet, programs): (Vec<_>, Vec<_>) = end_to_end
        .programs
        .iter()
        .cloned()
        .partition(|program| pool::wants_quiet(program));
    let command = |program: &Path| end_to_end_command(program, &end_to_end, None);
    let run = |programs: &[PathBuf]| pool::run(programs, &command, timeline);
    let mut ran = timeline.phase("end-to-end tests", || run(&programs))?;
    let (lints, others, table) = (join(lints), join(others), join(elsewhere));
    ran.add(timeline.phase("tests that want quiet", || run(&quiet))?);
    let (counted, repeated) = timeline.phase("failed tests repeated", || {
        pool::repeat(ran, &command, timeline)
    })?;
    tally += counted;
    print!("{timeline}");
    let table = table?;
    print!("\n{table}");
    for line in repeated {
        println!("{line}");
    }
    Ok(tally + lints? + others? + table.tally())
}

/// Does work on a thread of its own that others need not wait for. What it runs
/// goes after them where there are too few cores. That it failed is said at once.
fn beside<T: Send + 'static>(
    timeline: &Arc<Timeline>,
    work: impl FnOnce(&Timeline) -> Result<T> + Send + 'static,
) -> thread::JoinHandle<Result<T>> {
    let timeline = Arc::clone(timeline);
    thread::spawn(move || {
        // For Linux a thread is a process here, and what it starts is as nice.
        let _as_nice_as_others = rustix::process::setpriority_process(None, NICE);
        let result = work(&timeline);
        if let Err(error) = &result {
            say(format_args!("error: {error:#}"));
        }
        result
    })
}

/// The tests whose names contain `name`.
fn named(name: &str, timeline: &Timeline) -> Result<Tally> {
    let (end_to_end, mut units) = build()?;
    units.extend(build_units()?);
    let command = |program: &Path| end_to_end_command(program, &end_to_end, Some(name));
    let tally = unit_tests(&units, Some(name), end_to_end.timed, timeline)?
        + examples(Some(name))?
        + pool::run(&end_to_end.programs, &command, timeline)?.tally;
    if tally.ran() == 0 {
        bail!("no test's name contains {name:?}");
    }
    Ok(tally)
}

fn join<T>(work: thread::JoinHandle<Result<T>>) -> Result<T> {
    work.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs the end-to-end tests of a program, or those of them whose names contain `filter`.
fn end_to_end_command(program: &Path, tests: &EndToEnd, filter: Option<&str>) -> Result<Command> {
    let times: &[(&str, &str)] = if tests.timed {
        &[libtest::VARIABLE]
    } else {
        &[]
    };
    let mut command = EndToEnd::command(program, &[&[HEAP_REST], times].concat())?;
    command.current_dir(workspace().join("tests"));
    arguments(&mut command, filter, tests.timed);
    Ok(command)
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
    let ran = timeline.phase("unit tests", || pool::run(&programs, &command, timeline))?;
    Ok(ran.tally)
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
