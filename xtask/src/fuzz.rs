//! Fuzzing of everything that reads what others made.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tracer_ebpf_build::workspace;

use crate::packages::Packages;
use crate::shell::{cargo, run, say};
use crate::tally::Tally;

/// What libFuzzer needs of the compiler: the flags that cargo-fuzz gives it, by
/// LLVM's own options (llvm/lib/Transforms/Instrumentation/SanitizerCoverage.cpp).
/// Building cargo-fuzz takes as long as building the targets.
const COVERAGE: [&str; 9] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-sanitizer-coverage-stack-depth",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
];

/// Debian's package with libFuzzer itself, and where it is in there. To compile it
/// takes a fifth of the time that the build takes.
const LIBRARY: (&str, &str) = (
    "libfuzzer-14-dev/bookworm",
    "usr/lib/llvm-14/lib/libFuzzer.a",
);

/// Where code is built for.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// What each target takes in `cargo xtask test`: so many inputs, or seconds if it is
/// slow.
const SHORT: Limit = Limit {
    inputs: Some(10_000),
    seconds: 1,
};

/// When fuzzing ends, if nothing is found.
#[derive(Debug, Clone, Copy)]
struct Limit {
    inputs: Option<u32>,
    seconds: u32,
}

/// What an input may cost: seconds, MiB (of which libFuzzer itself takes some
/// 50), and how many bytes it may have.
const LIMITS: [&str; 3] = ["-timeout=5", "-rss_limit_mb=512", "-max_len=16384"];

/// What is fuzzed; each is a program in `tests/fuzz/targets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// ELF files, for unwind tables
    Unwind,
    /// The content of `.eh_frame` in an otherwise sound file
    Frames,
    /// ELF files, for symbols
    Symbols,
    /// Machine code at whose beginning probes are to be placed
    Placement,
    /// Go's table of functions
    Go,
    /// `/proc/PID/maps`
    Maps,
    /// Records of perf's side band
    Records,
    /// The kernel's type information
    Btf,
    /// Perf maps, which name code that was compiled at run time
    Jit,
    /// Mangled names
    Names,
    /// ELF files with USDT probes, and the probes' arguments
    Usdt,
    /// Structures of allocators and threads in another process's memory
    Holders,
    /// ELF files with debug information, for the members of classes and variables
    Members,
    /// A JVM's flight recordings
    Flights,
}

impl Target {
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// The inputs in the repository that it begins with.
    fn seeds(self) -> PathBuf {
        let folder = match self {
            Self::Unwind | Self::Symbols => "elf".into(),
            other => other.name(),
        };
        workspace().join("tests/fuzz/corpus").join(folder)
    }
}

/// Fuzzes the targets (all of them if none is named), each for so long. What
/// is learned stays in `target/fuzz/corpus`, for the next time.
///
/// # Errors
/// Fails if a target does not build, or with the first that finds something.
pub(crate) fn run_for(targets: &[Target], seconds: u32) -> Result<()> {
    build()?;
    let limit = Limit {
        inputs: None,
        seconds,
    };
    let all = Target::value_variants();
    for target in if targets.is_empty() { all } else { targets } {
        fuzz(*target, limit)?;
    }
    Ok(())
}

/// A few inputs for every target, and a second at most.
///
/// # Errors
/// Fails if a target does not build.
pub(crate) fn briefly() -> Result<Tally> {
    build()?;
    let mut tally = Tally::default();
    for target in Target::value_variants() {
        match fuzz(*target, SHORT) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                say(format_args!("{error:#}"));
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

fn folder() -> PathBuf {
    workspace().join("target/fuzz")
}

/// Builds all targets, with counters at all branches and comparisons for
/// libFuzzer to see. Sanitizers need a nightly compiler, and find nothing in
/// code without `unsafe`; overflows and failed assertions are found anyway.
fn build() -> Result<()> {
    let mut command = cargo();
    command
        .args(["build", "--release", "--quiet", "--bins"])
        .args(["--manifest-path", "tests/fuzz/Cargo.toml"])
        // With a target named, build scripts and macros do without the flags.
        .args(["--target", TRIPLE, "--target-dir"])
        .arg(folder())
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"));
    match library() {
        Ok(library) => command.env("CUSTOM_LIBFUZZER_PATH", library),
        Err(error) => {
            say(format_args!("libFuzzer is compiled: {error:#}"));
            &mut command
        }
    };
    run(&mut command)
}

/// Fetches libFuzzer if it is not there.
fn library() -> Result<PathBuf> {
    let (package, path) = LIBRARY;
    let folders = Packages::of_vms()?.unpack(&[package])?;
    let folder = folders.first().context("the package is missing")?;
    Ok(folder.join(path))
}

fn fuzz(target: Target, limit: Limit) -> Result<()> {
    let name = target.name();
    let learned = folder().join("corpus").join(&name);
    let findings = folder().join("findings");
    for folder in [&learned, &findings] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut artifacts = OsString::from("-artifact_prefix=");
    artifacts.push(findings.join(format!("{name}-")));
    let binary = folder().join(TRIPLE).join("release").join(&name);
    run(Command::new(binary)
        .arg(&learned)
        .arg(target.seeds())
        .args(LIMITS)
        .arg(format!("-max_total_time={}", limit.seconds))
        .args(limit.inputs.map(|inputs| format!("-runs={inputs}")))
        .args(["-print_final_stats=1", "-verbosity=0"])
        .arg(artifacts))
    .with_context(|| format!("{name} found an input, in {}", findings.display()))
}
