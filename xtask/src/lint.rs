//! Formatting, clippy on both sides of the kernel boundary, and the policy on
//! dependencies.

use anyhow::Result;
use tracer_ebpf_build::Toolchain;

use crate::shell::{cargo, run};
use crate::{deny, npm};

/// Runs every lint; the quickest to fail first.
///
/// # Errors
/// Fails with the first lint that finds something.
pub(crate) fn all(toolchain: &Toolchain) -> Result<()> {
    format()?;
    run(cargo()
        .args(["clippy", "--workspace", "--all-targets", "--quiet"])
        .args(["--", "-D", "warnings"]))?;
    kernel_side(toolchain)?;
    npm::check()?;
    deny::check()
}

/// That all code is formatted.
///
/// # Errors
/// Fails if some is not.
pub(crate) fn format() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["fmt", "--check", "--manifest-path", "tests/fuzz/Cargo.toml"]))
}

/// Clippy on the BPF program.
///
/// # Errors
/// Fails if it finds something.
pub(crate) fn kernel_side(toolchain: &Toolchain) -> Result<()> {
    run(&mut tracer_ebpf_build::clippy(toolchain))
}
