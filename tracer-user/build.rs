//! Builds the BPF object and hands its path to the code that embeds it.
//!
//! It only looks for a toolchain; `cargo xtask setup` installs one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use tracer_ebpf_build::{Object, build, choose, inputs, look};

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
    for object in Object::ALL {
        match build(&toolchain, object).and_then(|built| embed(&built, object)) {
            Ok(path) => println!("cargo::rustc-env={}={}", variable(object), path.display()),
            Err(error) => {
                // A code of failure makes cargo show the compiler's messages too.
                eprintln!("error: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// The variable by which the code finds an object.
const fn variable(object: Object) -> &'static str {
    match object {
        Object::Oldest => "UNFREED_BPF_OBJECT",
        Object::FindVma => "UNFREED_BPF_OBJECT_FIND_VMA",
    }
}

/// Copies the object to where this build of the package owns it. An object
/// that has not changed keeps its time, so that nothing is compiled again.
fn embed(built: &Path, object: Object) -> Result<PathBuf> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").context("cargo did not set OUT_DIR")?);
    let copy = out.join(object.name());
    let bytes = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(&copy).ok().as_ref() != Some(&bytes) {
        fs::write(&copy, bytes).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    Ok(copy)
}
