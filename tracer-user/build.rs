//! Builds the BPF object, and the sampler that programs can be started with, and hands
//! their paths to the code that embeds them, with that of the page of `unfreed serve`.
//!
//! It only looks for a toolchain and for a page; `cargo xtask setup` brings both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use tracer_ebpf_build::{Object, build, choose, inputs, look, page};

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
    match sampler() {
        Ok(path) => println!("cargo::rustc-env=UNFREED_SAMPLER={}", path.display()),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    match page_files() {
        Ok(path) => println!("cargo::rustc-env=UNFREED_PAGE={}", path.display()),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    }
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

/// Builds the library that programs are started with by `--sampler`: by the compiler
/// alone, since it must not unwind, whatever the profile of all else is.
fn sampler() -> Result<PathBuf> {
    const SOURCES: &str = "sampler/src";
    println!("cargo::rerun-if-changed={SOURCES}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").context("cargo did not set OUT_DIR")?);
    let library = out.join("unfreed-sampler.so");
    let compiler = std::env::var_os("RUSTC").context("cargo did not set RUSTC")?;
    let here = std::env::var("CARGO_MANIFEST_DIR")?;
    let status = Command::new(compiler)
        .args(["--edition", "2024", "--crate-type", "cdylib"])
        .args(["--crate-name", "unfreed_sampler", "--cfg", "preload"])
        .args(["-C", "opt-level=3", "-C", "panic=abort"])
        .args(["-C", "codegen-units=1", "-C", "strip=debuginfo"])
        // The kernel finds a semaphore by its place in the file, in whatever is mapped from
        // there to be written to: that must be one mapping.
        .args(["-C", "relro-level=off"])
        .args(["-C", "link-arg=-Wl,-soname,unfreed-sampler"])
        .arg(format!("--remap-path-prefix={here}=."))
        .arg("-o")
        .arg(&library)
        .arg(Path::new(SOURCES).join("lib.rs"))
        .status()
        .context("cannot run the compiler for the sampler")?;
    ensure!(status.success(), "the sampler did not build");
    Ok(library)
}

/// Files of the page; the first is what a browser opens.
const PAGE: [&str; 4] = ["index.html", "page.js", "page.css", "licences.txt"];

/// Copies the page to where this build of the package owns it. Where none was built, one
/// sentence says so in its place.
fn page_files() -> Result<PathBuf> {
    const MISSING: &str = "page/missing.html";
    let out = PathBuf::from(std::env::var_os("OUT_DIR").context("cargo did not set OUT_DIR")?);
    let (built, copies) = (page(), out.join("page"));
    fs::create_dir_all(&copies)?;
    println!("cargo::rerun-if-changed={MISSING}");
    // Cargo would run this at each build if there were no folder.
    fs::create_dir_all(&built)?;
    println!("cargo::rerun-if-changed={}", built.display());
    let is_built = PAGE.iter().all(|name| built.join(name).is_file());
    for name in PAGE {
        let bytes = match (is_built, name == PAGE[0]) {
            (true, _) => fs::read(built.join(name))?,
            (false, true) => fs::read(MISSING)?,
            (false, false) => Vec::new(),
        };
        write_new(&copies.join(name), &bytes)?;
    }
    Ok(copies)
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
    write_new(&copy, &bytes)?;
    Ok(copy)
}

/// Writes a file, unless it is so already.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).ok().as_deref() != Some(bytes) {
        fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
