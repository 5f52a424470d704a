//! Builds the BPF object and hands its path to the code that embeds it.
//!
//! It only looks for a toolchain; `cargo xtask setup` installs one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use tracer_ebpf_build::{build, choose, inputs, look};

fn main() -> ExitCode {
    let toolchain = choose(&look());
    for input in inputs(toolchain.as_ref().ok()) {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    let toolchain = match toolchain {
        Ok(toolchain) => toolchain,
        Err(missing) => {
            println!("cargo::error={missing}");
            return ExitCode::SUCCESS;
        }
    };
    match build(&toolchain).and_then(|object| embed(&object)) {
        Ok(object) => println!("cargo::rustc-env=UNFREED_BPF_OBJECT={}", object.display()),
        Err(error) => {
            // A code of failure makes cargo show the compiler's messages too.
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Copies the object to where this build of the package owns it. An object
/// that has not changed keeps its time, so that nothing is compiled again.
fn embed(object: &Path) -> Result<PathBuf> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").context("cargo did not set OUT_DIR")?);
    let copy = out.join("unfreed-bpf");
    let bytes = fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    if fs::read(&copy).ok().as_ref() != Some(&bytes) {
        fs::write(&copy, bytes).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    Ok(copy)
}
