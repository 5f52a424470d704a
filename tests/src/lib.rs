//! What the end-to-end tests share: target programs with a known truth, the
//! tracer as a child process, and a typed view of what it reported.
//!
//! A test never sleeps and hopes. It waits for a fact, up to [`deadline`].
//!
//! `UNFREED_BIN` names the tracer (default `target/debug/unfreed`) and
//! `UNFREED_TARGETS` the folder of the built target programs (default
//! `target/targets`); `cargo xtask test` sets both.

use std::env;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub mod account;
mod agreement;
pub mod allocators;
pub mod container;
pub mod disk;
mod entries;
mod foreign;
pub mod gdb;
pub mod held_labels;
pub mod incident;
pub mod interpreter;
pub mod java_stack;
pub mod jdk;
mod kernel;
mod kernel_map;
mod known_code;
mod lines;
mod missed;
/// The report's schema, from the tracer itself: there is one definition.
#[path = "../../tracer-user/src/model/mod.rs"]
pub mod model;
mod oracle;
mod outputs;
pub mod pprof;
mod program;
pub mod receiver;
mod recording;
mod report;
pub mod service;
mod stack;
mod target;
pub mod terminal;
pub mod tmux;
mod tracer;
pub mod wholeness;

pub use agreement::{Agreement, Runs};
pub use entries::{Entries, Happened};
pub use foreign::{EventCounter, ReturnProbe};
pub use gdb::{Backtraces, Gdb};
pub use jdk::Jdk;
pub use kernel::{
    KernelObjects, RAW_TRACEPOINT, TRACEPOINT, TRACING, kernel_version, patched_bytes, send_signal,
    verified_instructions,
};
pub use kernel_map::KernelMap;
pub use known_code::wait_known;
pub use missed::unless_missed;
pub use oracle::{HeapUse, valgrind, valgrind_lost};
pub use outputs::{Outputs, folded, gunzip, is_drawing, leak_command, run_leak, unpacked};
pub use program::Program;
pub use recording::Recording;
pub use report::{Sums, View};
pub use stack::Stack;
pub use target::{Target, Truth, TruthEntry};
pub use tracer::{Finished, Tracer, unfreed};

/// How long any single fact may take before a test fails: a minute, or
/// `UNFREED_DEADLINE` in seconds where machines are slow.
pub fn deadline() -> Duration {
    let seconds = env::var("UNFREED_DEADLINE")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Folder of the target programs.
pub fn targets() -> PathBuf {
    env::var_os("UNFREED_TARGETS").map_or_else(|| workspace().join("target/targets"), PathBuf::from)
}

/// Path of a built target program.
///
/// # Errors
/// It was not built.
pub fn target_path(name: &str) -> Result<PathBuf> {
    let path = targets().join(name);
    ensure!(
        path.exists(),
        "{} was not built; run `cargo xtask targets`",
        path.display()
    );
    Ok(path)
}

/// A target in Erlang's runtime: its native code serves commands.
///
/// # Errors
/// It was not built.
pub fn erlang() -> Result<Command> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/targets/erlang/native.escript");
    let library = target_path("libnative.so")?;
    let mut command = Command::new("escript");
    // The runtime adds the ending.
    command.arg(script).arg(library.with_extension(""));
    Ok(command)
}

/// Path of the tracer.
///
/// # Errors
/// It was not built.
pub fn binary() -> Result<PathBuf> {
    let path = env::var_os("UNFREED_BIN")
        .map_or_else(|| workspace().join("target/debug/unfreed"), PathBuf::from);
    ensure!(
        path.exists(),
        "{} was not built; run `cargo xtask build`",
        path.display()
    );
    Ok(path)
}

/// The folder of a target's source, to look up line numbers.
pub fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("targets")
        .join(file)
}

/// Line number (from 1) of the only line of a target's source that contains
/// `marker`.
///
/// # Errors
/// No line or more than one contains it.
pub fn line_of(file: &str, marker: &str) -> Result<u32> {
    let path = source(file);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| line.contains(marker));
    match (lines.next(), lines.next()) {
        (Some((number, _)), None) => Ok(number),
        (first, _) => bail!(
            "{} lines of {file} contain {marker:?}",
            if first.is_some() { "several" } else { "no" }
        ),
    }
}

/// Makes a pipe with a name.
///
/// # Errors
/// It cannot be made.
pub fn make_fifo(path: &Path) -> Result<()> {
    let name = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: `name` is a string that lives until after the call.
    let made = unsafe { libc::mkfifo(name.as_ptr(), 0o600) };
    ensure!(made == 0, "mkfifo: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Asks until there is an answer.
///
/// # Errors
/// There was none within [`deadline`]; the message names `what`.
pub fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = deadline();
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(Instant::now() < end, "waited {deadline:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}
