//! Builds the Java programs in `tests/targets/java` into `target/targets/java`:
//! for the oldest release that we trace, so that every runtime runs the same
//! bytes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use tracer_ebpf_build::workspace;

use crate::shell::run;
use crate::targets;

/// The oldest release that we trace.
const RELEASE: &str = "11";

/// Where built classes are: a class path.
pub(crate) fn folder() -> PathBuf {
    targets::folder().join("java")
}

/// Compiles all of them.
///
/// # Errors
/// A source cannot be read or does not compile.
pub(crate) fn build() -> Result<()> {
    let sources = workspace().join("tests/targets/java");
    let cannot_read = || format!("cannot read {}", sources.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(&sources).with_context(cannot_read)? {
        let path = entry.with_context(cannot_read)?.path();
        if path.extension().is_some_and(|end| end == "java") {
            files.push(path);
        }
    }
    run(Command::new("javac")
        .args(["--release", RELEASE, "-g", "-d"])
        .arg(folder())
        .args(&files))
    .context("cannot build the Java targets")
}
