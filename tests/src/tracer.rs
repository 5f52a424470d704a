//! The tracer as a child process.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::kernel::send_signal;
use crate::lines::Lines;
use crate::report::View;
use crate::{binary, wait_until};

/// A tracer at work. It is killed with this value.
#[derive(Debug)]
pub struct Tracer {
    child: Child,
    stdout: Option<Lines>,
    stderr: Option<Lines>,
    folder: TempDir,
}

/// A tracer that ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything on standard output.
    pub stdout: String,
    /// Everything on standard error.
    pub stderr: String,
    folder: TempDir,
}

impl Tracer {
    /// `unfreed record -p PID OPTIONS -o report.json`, once every probe is in
    /// place.
    ///
    /// # Errors
    /// The tracer ended instead; its messages are in the error.
    pub fn record(pid: u32, options: &[&str]) -> Result<Self> {
        Self::record_with(pid, options, |_| {})
    }

    /// The same, with a say in the tracer's environment.
    ///
    /// # Errors
    /// See [`Tracer::record`].
    pub fn record_with(
        pid: u32,
        options: &[&str],
        adapt: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let pid = pid.to_string();
        let arguments: Vec<&str> = ["record", "-p", &pid]
            .into_iter()
            .chain(options.iter().copied())
            .collect();
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(binary()?);
        command
            .args(&arguments)
            .arg("-o")
            .arg(folder.path().join("report.json"));
        command.stdin(Stdio::null());
        adapt(&mut command);
        let mut tracer = Self::spawn(command, folder)?;
        tracer.wait_tracing()?;
        Ok(tracer)
    }

    /// `unfreed run OPTIONS -o report.json -- COMMAND`, with nothing waited
    /// for.
    ///
    /// # Errors
    /// The tracer cannot be started.
    pub fn run<S: AsRef<OsStr>>(options: &[&str], command: &[S]) -> Result<Self> {
        Self::run_with(options, command, |_| {})
    }

    /// The same, with a say in the tracer's environment, working directory and
    /// pipes.
    ///
    /// # Errors
    /// The tracer cannot be started.
    pub fn run_with<S: AsRef<OsStr>>(
        options: &[&str],
        command: &[S],
        adapt: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut tracer = called_by_root()?;
        tracer
            .arg("run")
            .args(options)
            .arg("-o")
            .arg(folder.path().join("report.json"));
        tracer.arg("--").args(command).stdin(Stdio::null());
        adapt(&mut tracer);
        Self::spawn(tracer, folder)
    }

    /// `unfreed ARGUMENTS -o report.json`, with nothing waited for.
    ///
    /// # Errors
    /// The tracer cannot be started.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut tracer = called_by_root()?;
        tracer
            .args(arguments)
            .arg("-o")
            .arg(folder.path().join("report.json"));
        tracer.stdin(Stdio::null());
        Self::spawn(tracer, folder)
    }

    fn spawn(mut command: Command, folder: TempDir) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let stdout = child.stdout.take().map(Lines::of);
        let stderr = child.stderr.take().map(Lines::of);
        Ok(Self {
            child,
            stdout,
            stderr,
            folder,
        })
    }

    /// Waits for the line that says that every probe is in place.
    ///
    /// # Errors
    /// The tracer ended instead; its messages are in the error.
    pub fn wait_tracing(&mut self) -> Result<()> {
        let stderr = self.stderr.as_mut().context("standard error is closed")?;
        stderr
            .wait_for("the line `tracing …`", |line| {
                line.starts_with("tracing ")
            })
            .map(drop)
    }

    /// Waits for a line on standard error that has this in it.
    ///
    /// # Errors
    /// The tracer ended instead; its messages are in the error.
    pub fn wait_saying(&mut self, part: &str) -> Result<String> {
        let stderr = self.stderr.as_mut().context("standard error is closed")?;
        stderr.wait_for(&format!("a line with {part:?}"), |line| line.contains(part))
    }

    /// Waits for a line on standard output that ends with `end`, and returns it.
    ///
    /// # Errors
    /// The tracer ended instead.
    pub fn wait_printed(&mut self, end: &str) -> Result<String> {
        let stdout = self.stdout.as_mut().context("standard output is closed")?;
        stdout.wait_for(end, |line| line.ends_with(end))
    }

    /// The tracer's own process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The report of the last `--interval`; `None` before the first.
    ///
    /// # Errors
    /// It is none.
    pub fn report_so_far(&self) -> Result<Option<View>> {
        let Ok(text) = fs::read_to_string(self.folder.path().join("report.json")) else {
            return Ok(None);
        };
        Ok(Some(View::new(serde_json::from_str(&text)?)))
    }

    /// The folder of `report.json`, which ends with this value.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The tracer is gone.
    pub fn signal(&self, number: i32) -> Result<()> {
        send_signal(self.child.id(), number)
    }

    /// Ends the trace as Ctrl-C does, and waits for the report.
    ///
    /// # Errors
    /// The tracer does not end.
    pub fn stop(self) -> Result<Finished> {
        self.signal(libc::SIGINT)?;
        self.wait()
    }

    /// Waits until the tracer ends by itself.
    ///
    /// # Errors
    /// It does not.
    pub fn wait(mut self) -> Result<Finished> {
        let status = wait_until("the tracer's end", || Ok(self.child.try_wait()?))?;
        let stdout = self.stdout.take().map(Lines::all).unwrap_or_default();
        let stderr = self.stderr.take().map(Lines::all).unwrap_or_default();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir()?);
        Ok(Finished {
            status,
            stdout,
            stderr,
            folder,
        })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _reaped_before = self.child.wait();
    }
}

impl Finished {
    /// The report. The tracer must have succeeded.
    ///
    /// # Errors
    /// It failed, or it wrote none.
    pub fn report(&self) -> Result<View> {
        ensure!(
            self.status.success(),
            "the tracer ended with {}:\n{}",
            self.status,
            self.stderr
        );
        self.report_of_any_end()
    }

    /// The report, however the tracer ended.
    ///
    /// # Errors
    /// There is none, or it does not parse.
    pub fn report_of_any_end(&self) -> Result<View> {
        let path = self.json();
        let text = fs::read_to_string(&path)
            .with_context(|| format!("no report; the tracer said:\n{}", self.stderr))?;
        Ok(View::new(
            serde_json::from_str(&text).with_context(|| format!("in {text}"))?,
        ))
    }

    /// Path of the report, which ends with this value.
    pub fn json(&self) -> PathBuf {
        self.folder.path().join("report.json")
    }

    /// Checks that the tracer failed and that it said each of `parts`.
    ///
    /// # Errors
    /// It succeeded, or a part is missing.
    pub fn fails_saying(&self, parts: &[&str]) -> Result<()> {
        ensure!(
            !self.status.success(),
            "the tracer succeeded:\n{}{}",
            self.stdout,
            self.stderr
        );
        for part in parts {
            ensure!(
                self.stderr.contains(part),
                "no {part:?} in what it said:\n{}",
                self.stderr
            );
        }
        ensure!(
            !self.stderr.contains("panicked"),
            "a panic is no message:\n{}",
            self.stderr
        );
        Ok(())
    }
}

/// Who says in the environment on whose behalf we are root.
const CALLERS: [&str; 5] = [
    "SUDO_UID",
    "SUDO_GID",
    "SUDO_USER",
    "DOAS_USER",
    "PKEXEC_UID",
];

/// The tracer, called by root: that sudo started the tests is no matter.
fn called_by_root() -> Result<Command> {
    let mut command = Command::new(binary()?);
    CALLERS.into_iter().for_each(|name| {
        command.env_remove(name);
    });
    Ok(command)
}

/// Runs `unfreed ARGUMENTS` to its end, without an output of its own.
///
/// # Errors
/// It cannot be started or does not end.
pub fn unfreed<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Finished> {
    let mut command = called_by_root()?;
    command.args(arguments).stdin(Stdio::null());
    Tracer::spawn(command, tempfile::tempdir()?)?.wait()
}
