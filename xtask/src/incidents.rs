//! Runs the incidents in `tests/targets/java/incidents`, and their healthy
//! twins, under the tracer on every JDK at hand: the program `incidents` of the
//! tests' package, which runs and judges them.

use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::build::{Profile, unfreed};
use crate::programs::{END_TO_END, EndToEnd};
use crate::setup::{Group, ensure};
use crate::shell::{cannot_run, cargo, echo, run as run_command};
use crate::targets;

const PROGRAM: &str = "incidents";

/// Sets up, builds, and runs all, or those on one version of Java, or one. The
/// code says failure when a verdict is wrong.
///
/// # Errors
/// Fails when something cannot be set up or built.
pub(crate) fn run(jdk: Option<u32>, name: Option<&str>) -> Result<ExitCode> {
    ensure(&[Group::Test])?;
    unfreed(Profile::Dev)?;
    targets::build_all()?;
    run_command(cargo().args(["build", "--package", END_TO_END, "--bin", PROGRAM]))?;

    let mut command = EndToEnd::command(&Profile::Dev.folder().join(PROGRAM), &[])?;
    if let Some(major) = jdk {
        command.args(["--jdk", &major.to_string()]);
    }
    command.args(name).stdin(Stdio::null());
    echo(&command);
    let status = command.status().with_context(|| cannot_run(&command))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
