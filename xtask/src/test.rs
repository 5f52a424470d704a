//! All tests: set-up, lints, unit tests as the user, and the end-to-end tests
//! as root.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use tracer_ebpf_build::{Toolchain, workspace};

use crate::build::Profile;
use crate::setup::{Group, ensure};
use crate::shell::{as_root_with, cannot_run, capture, cargo, echo, say};
use crate::tally::Tally;
use crate::{fuzz, jdks, lint, pool, targets, vm};

/// The package of the end-to-end tests.
pub(crate) const END_TO_END: &str = "unfreed-tests";
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
    let toolchain = ensure(&[Group::Lint, Group::Test, Group::Vm])?;
    let tally = match filter {
        None => everything(&toolchain)?,
        Some(name) => named(name)?,
    };
    println!("{tally}");
    Ok(if tally.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Lints and all tests. Side by side is what waits or has one thread: cores are
/// what is scarce. An error ends us, and with us all that runs beside.
fn everything(toolchain: &Toolchain) -> Result<Tally> {
    lint::format()?;
    let beside = thread::spawn(|| {
        lint::dependencies()?;
        fuzz::briefly()
    });
    let end_to_end = Arc::new(EndToEnd::build()?);
    lint::code(toolchain)?;
    // Cargo leaves VMs too little: they begin when all is built.
    let elsewhere = thread::spawn({
        let end_to_end = Arc::clone(&end_to_end);
        move || vm::oldest_and_newest(&end_to_end)
    });
    let mut tally = unit_tests(None)?;
    tally += end_to_end.run(None)?;
    tally += join(beside)?;
    let table = join(elsewhere)?;
    print!("{table}");
    Ok(tally + table.tally())
}

/// The tests whose names contain `name`.
fn named(name: &str) -> Result<Tally> {
    let end_to_end = EndToEnd::build()?;
    let tally = unit_tests(Some(name))? + end_to_end.run(Some(name))?;
    if tally.ran() == 0 {
        bail!("no test's name contains {name:?}");
    }
    Ok(tally)
}

fn join<T>(work: thread::JoinHandle<Result<T>>) -> Result<T> {
    work.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// The end-to-end tests, ready to be run.
#[derive(Debug)]
pub(crate) struct EndToEnd {
    /// The test programs.
    pub(crate) programs: Vec<PathBuf>,
}

impl EndToEnd {
    /// Builds the binary, the programs that are traced, and the tests.
    ///
    /// # Errors
    /// Fails when something cannot be built.
    pub(crate) fn build() -> Result<Self> {
        let programs = end_to_end_programs()?;
        targets::build_all()?;
        Ok(Self { programs })
    }

    /// Runs them, or those whose names contain `filter`.
    ///
    /// # Errors
    /// One of the programs cannot be run.
    fn run(&self, filter: Option<&str>) -> Result<Tally> {
        pool::run(&self.programs, &|program| {
            let mut command = Self::command_with(program, &[HEAP_REST])?;
            command
                .current_dir(workspace().join("tests"))
                .args([THREADS, "--color=never"])
                .args(filter);
            Ok(command)
        })
    }

    /// A command that runs one of their programs as root, in their environment.
    ///
    /// # Errors
    /// See [`EndToEnd::variables`].
    pub(crate) fn command(program: &Path) -> Result<Command> {
        Self::command_with(program, &[])
    }

    fn command_with(program: &Path, more: &[(&str, &str)]) -> Result<Command> {
        let variables = Self::variables()?;
        let variables = variables
            .iter()
            .map(|(name, value)| (*name, value.as_os_str()));
        let more = more.iter().map(|(name, value)| (*name, OsStr::new(*value)));
        Ok(as_root_with(variables.chain(more), program))
    }

    /// The environment of the tests.
    ///
    /// # Errors
    /// The workspace's path cannot be in a list of paths.
    pub(crate) fn variables() -> Result<[(&'static str, OsString); 3]> {
        Ok([
            ("UNFREED_BIN", Profile::Dev.folder().join("unfreed").into()),
            ("UNFREED_TARGETS", targets::folder().into()),
            ("UNFREED_JDKS", jdks::homes()?),
        ])
    }
}

/// Unit tests of all packages, and the examples in their documentation.
fn unit_tests(filter: Option<&str>) -> Result<Tally> {
    let mut tests = cargo();
    let nextest = has_nextest();
    if nextest {
        tests.args([
            "nextest",
            "run",
            "--no-tests=pass",
            "--no-fail-fast",
            "--color=never",
        ]);
    } else {
        tests.args([
            "test",
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
            "--color=never",
        ]);
    }
    tests
        .args(["--workspace", "--exclude", END_TO_END])
        .args(filter);
    let mut tally = run_tests(&mut tests)?;
    if nextest && filter.is_some() {
        // It counts what the filter leaves out as skipped.
        tally.skipped = 0;
    }
    let mut examples = cargo();
    examples
        .args(["test", "--doc", "--workspace", "--color=never"])
        .args(filter);
    Ok(tally + run_tests(&mut examples)?)
}

fn has_nextest() -> bool {
    cargo()
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Builds all there is in the workspace, as the user, and returns the programs
/// of the end-to-end tests. All at once: the binary and its unit tests take a
/// core each, and for one package alone cargo would build scripts anew, without
/// the debug information that they share with xtask.
fn end_to_end_programs() -> Result<Vec<PathBuf>> {
    let messages = capture(cargo().args([
        "build",
        "--workspace",
        "--all-targets",
        "--message-format=json-render-diagnostics",
    ]))?;
    test_programs(&messages)
}

/// The end-to-end tests' programs among cargo's JSON messages, one a line.
fn test_programs(messages: &str) -> Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: serde_json::Value =
            serde_json::from_str(line).context("cannot parse cargo's messages")?;
        let package = message["package_id"].as_str().unwrap_or_default();
        if message["profile"]["test"] == true
            && package.contains(&format!("#{END_TO_END}@"))
            && let Some(program) = message["executable"].as_str()
        {
            programs.push(program.into());
        }
    }
    Ok(programs)
}

/// Runs tests to their end, and counts what they print, which is shown too.
/// A run that fails without a failed test counts as one.
fn run_tests(command: &mut Command) -> Result<Tally> {
    echo(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| cannot_run(command))?;
    let stdout = child.stdout.take().map(count_lines);
    let stderr = child.stderr.take().map(count_lines);
    let mut tally = Tally::default();
    for counter in [stdout, stderr].into_iter().flatten() {
        match counter.join() {
            Ok(counted) => tally += counted,
            Err(panic) => resume_unwind(panic),
        }
    }
    let status = child.wait().with_context(|| cannot_run(command))?;
    if !status.success() && tally.failed == 0 {
        say(format_args!("no test failed, and yet: {status}"));
        tally.failed = 1;
    }
    Ok(tally)
}

fn count_lines(stream: impl Read + Send + 'static) -> thread::JoinHandle<Tally> {
    thread::spawn(move || {
        let mut tally = Tally::default();
        for line in BufReader::new(stream)
            .lines()
            .map_while(std::io::Result::ok)
        {
            tally += Tally::of_line(&line);
            say(line);
        }
        tally
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_programs_are_run() {
        let messages = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/xtask#0.1.0","profile":{"test":true},"executable":"/t/debug/deps/xtask-2"}
{"reason":"compiler-artifact","package_id":"path+file:///w/tests#unfreed-tests@0.1.0","profile":{"test":true},"executable":"/t/debug/deps/record-1"}
{"reason":"compiler-artifact","package_id":"path+file:///w/tests#unfreed-tests@0.1.0","profile":{"test":false},"executable":"/t/debug/incidents"}
{"reason":"compiler-artifact","package_id":"path+file:///w/tests#unfreed-tests@0.1.0","profile":{"test":true},"executable":null}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            test_programs(messages).unwrap(),
            [PathBuf::from("/t/debug/deps/record-1")]
        );
        assert!(test_programs("warning: unused").is_err());
    }
}
