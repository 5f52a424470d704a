//! Formatting, clippy on both sides of the kernel boundary, and the policy on
//! dependencies.

use anyhow::Result;
use tracer_ebpf_build::Toolchain;

use crate::setup::cargo_tool;
use crate::shell::{cargo, run};

/// The release of cargo-deny that reads `deny.toml`.
const CARGO_DENY: &str = "0.20.2";

/// Runs every lint; the quickest to fail first.
///
/// # Errors
/// Fails with the first lint that finds something.
pub(crate) fn all(toolchain: &Toolchain) -> Result<()> {
    format()?;
    code(toolchain)?;
    dependencies()
}

/// That all code is formatted.
///
/// # Errors
/// Fails if some is not.
pub(crate) fn format() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["fmt", "--check", "--manifest-path", "tests/fuzz/Cargo.toml"]))
}

/// Clippy.
///
/// # Errors
/// Fails if it finds something.
pub(crate) fn code(toolchain: &Toolchain) -> Result<()> {
    run(cargo()
        .args(["clippy", "--workspace", "--all-targets", "--quiet"])
        .args(["--", "-D", "warnings"]))?;
    run(&mut tracer_ebpf_build::clippy(toolchain))
}

/// Licences, bans and sources of all dependencies. The advisory database is
/// on the network and changes by the hour: `cargo deny check advisories` is
/// a job of its own, not of a build that should be repeatable.
///
/// # Errors
/// Fails if they break the policy in `deny.toml`.
pub(crate) fn dependencies() -> Result<()> {
    cargo_tool("cargo-deny", CARGO_DENY)?;
    let deny = tracer_ebpf_build::tools().join("bin/cargo-deny");
    run(std::process::Command::new(deny)
        .current_dir(tracer_ebpf_build::workspace())
        .args([
            "--offline",
            "--log-level",
            "warn",
            "check",
            "licenses",
            "bans",
            "sources",
        ]))
}
