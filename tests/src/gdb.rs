//! What gdb says about the call paths of a program's allocations.
//!
//! A script inside gdb (`gdb.py`) stops at the first instruction of each
//! function of the allocator and writes gdb's backtrace down. A target repeats
//! a command exactly, so it runs it once under the tracer and once under gdb,
//! in one process, where all addresses are the same.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use crate::lines::Lines;
use crate::stack::write_frames;
use crate::{patched_bytes, wait_until};

/// The functions in which gdb stops.
const ALLOCATORS: [&str; 8] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "aligned_alloc",
    "memalign",
    "posix_memalign",
    "valloc",
];

/// gdb, attached to a process that then runs on. It is killed with this value.
#[derive(Debug)]
pub struct Gdb {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    folder: TempDir,
}

/// Which allocations gdb writes down, of those from one place for one size.
#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    /// So many of the first.
    pub first: u64,
    /// Then each so-manyth.
    pub every: u64,
    /// After so many calls, from any place, gdb lets the program run on alone.
    /// A stop takes 0.05 ms and more, the more threads there are.
    pub stops: u64,
}

impl Sampling {
    /// All.
    pub const ALL: Self = Self {
        first: 0,
        every: 1,
        stops: u64::MAX,
    };
}

/// All that gdb wrote down.
#[derive(Debug, Clone, Deserialize)]
pub struct Backtraces {
    /// One entry for each function, size and call path.
    pub stacks: Vec<Backtrace>,
}

/// A call path as gdb sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct Backtrace {
    /// The allocator's function.
    pub function: String,
    /// The size asked for, bytes.
    pub size: u64,
    /// How many allocations.
    pub count: u64,
    /// The function's first instruction, then return addresses.
    pub frames: Vec<Position>,
    /// Why gdb found no more frames.
    pub end: String,
}

/// An address, and what is mapped there.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Position {
    /// The address.
    pub address: u64,
    /// The file; empty for anonymous memory.
    pub path: String,
    /// Offset in the file.
    pub offset: u64,
}

impl Gdb {
    /// Attaches to a process and waits until it runs on with all breakpoints
    /// in place. The process has to end before gdb does.
    ///
    /// The kernel may take a tracer's probes away only after the tracer has
    /// ended: gdb comes after that.
    ///
    /// # Errors
    /// gdb is missing, or it cannot attach.
    pub fn attach(pid: u32, sampling: Sampling) -> Result<Self> {
        Self::attach_with(pid, Config::new(sampling), &[])
    }

    /// The same for the first child that the process forks from then on. gdb
    /// ends when the child has ended.
    ///
    /// # Errors
    /// See [`Gdb::attach`].
    pub fn attach_to_child_of(pid: u32, sampling: Sampling) -> Result<Self> {
        let settings = ["-iex", "set follow-fork-mode child"];
        Self::attach_with(pid, Config::new(sampling), &settings)
    }

    /// The same, and once at each of these addresses the process gets
    /// SIGALRM.
    ///
    /// # Errors
    /// See [`Gdb::attach`].
    pub fn attach_and_interrupt(pid: u32, addresses: &BTreeSet<u64>) -> Result<Self> {
        let config = Config {
            interrupted: addresses,
            ..Config::new(Sampling::ALL)
        };
        Self::attach_with(pid, config, &[])
    }

    fn attach_with(pid: u32, config: Config<'_>, settings: &[&str]) -> Result<Self> {
        wait_until("the end of all probes", || {
            Ok((patched_bytes(pid)? == 0).then_some(()))
        })?;
        let folder = tempfile::tempdir()?;
        let mut command = gdb(&folder, config);
        command
            .args(settings)
            .args(["-p", &pid.to_string()])
            .args(["-x", &script(&folder)?]);
        let mut gdb = Self::spawn(command, folder)?;
        let ready = gdb
            .stdout
            .wait_for("the line `gdb is ready`", |line| line == "gdb is ready");
        match ready {
            Ok(_) => Ok(gdb),
            Err(error) => Err(error.context(gdb.complaints())),
        }
    }

    /// Runs a program to its end. `adapt` sets gdb's, and so the program's,
    /// environment and folder.
    ///
    /// # Errors
    /// gdb is missing, or the program does not end well.
    pub fn run(
        program: &[String],
        sampling: Sampling,
        adapt: impl FnOnce(&mut Command),
    ) -> Result<Backtraces> {
        let folder = tempfile::tempdir()?;
        let mut command = gdb(
            &folder,
            Config {
                runs: true,
                ..Config::new(sampling)
            },
        );
        command
            .args(["-x", &script(&folder)?])
            .arg("--args")
            .args(program);
        adapt(&mut command);
        Self::spawn(command, folder)?.finish()
    }

    fn spawn(mut command: Command, folder: TempDir) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting gdb (package gdb)")?;
        let stdout = Lines::of(child.stdout.take().context("no standard output")?);
        let stderr = Lines::of(child.stderr.take().context("no standard error")?);
        Ok(Self {
            child,
            stdout,
            stderr,
            folder,
        })
    }

    /// Lets gdb write nothing more down, of what the process does at its end.
    ///
    /// # Errors
    /// The folder shared with gdb is gone.
    pub fn is_enough(&self) -> Result<()> {
        Ok(fs::write(self.folder.path().join("enough"), "")?)
    }

    /// What gdb wrote down, once the process has ended.
    ///
    /// # Errors
    /// The process or gdb does not end well.
    pub fn finish(mut self) -> Result<Backtraces> {
        let status = wait_until("gdb's end", || Ok(self.child.try_wait()?))?;
        let path = self.folder.path().join("stacks.json");
        ensure!(
            status.success(),
            "gdb ended with {status}: {}",
            self.complaints()
        );
        let text = fs::read_to_string(&path).with_context(|| self.complaints())?;
        serde_json::from_str(&text).context("gdb.py wrote something else than JSON")
    }

    /// What gdb says on standard error.
    fn complaints(&mut self) -> String {
        // The deadline of one that still runs would be long.
        let _ended_before = self.child.kill();
        std::mem::replace(&mut self.stderr, Lines::of(std::io::empty())).all()
    }
}

impl Drop for Gdb {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _reaped_before = self.child.wait();
    }
}

/// What `gdb.py` is told.
#[derive(Debug, Clone, Copy)]
struct Config<'a> {
    sampling: Sampling,
    runs: bool,
    interrupted: &'a BTreeSet<u64>,
}

impl Config<'_> {
    fn new(sampling: Sampling) -> Self {
        Self {
            sampling,
            runs: false,
            interrupted: const { &BTreeSet::new() },
        }
    }
}

/// gdb without anybody's settings and without debug information of libraries:
/// it unwinds by `.eh_frame` alone.
fn gdb(folder: &TempDir, config: Config<'_>) -> Command {
    let sampling = config.sampling;
    let config = json!({
        "out": folder.path().join("stacks.json"),
        "enough": folder.path().join("enough"),
        "allocators": ALLOCATORS,
        "first": sampling.first,
        "every": sampling.every,
        "stops": sampling.stops,
        "runs": i32::from(config.runs),
        "signal": "SIGALRM",
        "interrupted": config.interrupted,
    });
    let mut command = Command::new("gdb");
    command.args(["-nx", "-batch"]);
    for setting in [
        "debuginfod enabled off",
        "debug-file-directory /nonexistent",
        "pagination off",
        "startup-with-shell off",
    ] {
        command.args(["-iex", &format!("set {setting}")]);
    }
    // gdb would tell the program its own terminal's size.
    command.args(["-iex", "unset environment LINES"]);
    command.args(["-iex", "unset environment COLUMNS"]);
    command.args(["-iex", &format!("python config = {config}")]);
    command
}

/// The script's path in the folder.
fn script(folder: &TempDir) -> Result<String> {
    let path: PathBuf = folder.path().join("gdb.py");
    fs::write(&path, include_str!("gdb.py"))?;
    Ok(path.display().to_string())
}

impl fmt::Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes each", self.count, self.size)?;
        write_frames(f, &self.frames)?;
        write!(f, " ({})", self.end)
    }
}
