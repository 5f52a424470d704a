//! Tracers in the background.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::process::{Lines, end};
use crate::shell;

/// How long a tracer may take to begin, and to end after its target.
const PATIENCE: Duration = Duration::from_secs(30);

/// When a tracer ends by itself, whatever becomes of us; seconds.
pub(super) const LIFETIME: u32 = 120;

/// A tracer whose probes are in place, or nearly so.
pub(super) struct Tracer {
    child: Child,
    lines: Lines,
}

impl Tracer {
    /// Starts `unfreed record` for a process and waits until all its probes
    /// are in place.
    ///
    /// # Errors
    /// Fails if it ends before, with what it said.
    pub(super) fn unfreed<A: AsRef<OsStr>>(
        unfreed: &Path,
        pid: &str,
        seconds: u32,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        let mut command = shell::as_root(unfreed);
        command
            .args(["record", "-p", pid, "--duration", &format!("{seconds}s")])
            .args(arguments);
        Self::start(command, "tracing ")
    }

    /// Starts a bpftrace program, which gets an end, and waits until it
    /// begins to attach.
    ///
    /// # Errors
    /// Fails if it ends before, with what it said.
    pub(super) fn bpftrace(pid: &str, program: &str) -> Result<Self> {
        let mut command = shell::as_root("bpftrace");
        let program = format!("{program} interval:s:{LIFETIME} {{ exit() }}");
        // Unsafe: Debian's cannot check that a probe beyond a function's first
        // byte is on an instruction; ours are.
        command.args(["--unsafe", "-p", pid, "-e", &program]);
        Self::start(command, "Attaching")
    }

    /// Starts a tracer and waits for a line that begins with `ready`.
    fn start(mut command: Command, ready: &str) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| shell::cannot_run(&command))?;
        let output = child.stdout.take().context("the tracer has no output")?;
        let errors = child.stderr.take().context("the tracer has no output")?;
        let tracer = Self {
            child,
            lines: Lines::of(vec![Box::new(output), Box::new(errors)]),
        };
        let mut said = String::new();
        while let Some(line) = tracer.lines.next(PATIENCE)? {
            if line.starts_with(ready) {
                return Ok(tracer);
            }
            said.push_str(&line);
            said.push('\n');
        }
        bail!(
            "{:?} ended before it was ready:\n{said}",
            command.get_program()
        );
    }

    /// Its process, or the one that raised it.
    pub(super) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Has it end as on Ctrl-C.
    ///
    /// # Errors
    /// Fails if it cannot be told.
    pub(super) fn stop(&self) -> Result<()> {
        let pid = self.child.id().to_string();
        shell::run(shell::as_root("kill").args(["-INT", &pid]))
    }

    /// Waits until it has ended, as all do when their target has, and returns
    /// what it said since it was ready.
    ///
    /// # Errors
    /// Fails if it does not end.
    pub(super) fn rest(self) -> Result<String> {
        let mut said = String::new();
        while let Some(line) = self.lines.next(PATIENCE)? {
            said.push_str(&line);
            said.push('\n');
        }
        Ok(said)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may have ended at this moment.
            let _ = self.stop();
        }
        end(&mut self.child, PATIENCE);
    }
}
