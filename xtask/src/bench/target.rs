//! The traced programs: they say `pid N` and `ready`, and end when their
//! input does.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::process::{Lines, end};
use crate::shell;

/// How long a target may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// No pair with probes is faster than this, and none without is as slow; ns.
const LEAST_TRACED: f64 = 300.0;

/// A running target.
pub(super) struct Target {
    child: Child,
    lines: Lines,
    pid: String,
}

impl Target {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// Fails if it does not start or says something else.
    pub(super) fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| shell::cannot_run(&command))?;
        let output = child.stdout.take().context("the target has no output")?;
        let mut target = Self {
            child,
            lines: Lines::of(vec![Box::new(output)]),
            pid: String::new(),
        };
        target.pid = target.lines.after("pid ", PATIENCE)?;
        target.line()?;
        Ok(target)
    }

    /// Starts a program whose addresses, and so the pages that its stack
    /// crosses, are the same each time.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub(super) fn start_fixed(program: &Path) -> Result<Self> {
        let mut command = Command::new("setarch");
        command.arg("--addr-no-randomize").arg(program).env_clear();
        Self::start(command)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> &str {
        &self.pid
    }

    /// The process that was started, which may be a tracer.
    pub(super) fn root(&self) -> String {
        self.child.id().to_string()
    }

    /// Nanoseconds of a pair of malloc and free, over this many, from so many
    /// calls further down.
    ///
    /// # Errors
    /// Fails if it does not answer.
    pub(super) fn time(&mut self, pairs: u64, depth: usize) -> Result<f64> {
        let input = self.child.stdin.as_mut();
        let input = input.context("the target has no input")?;
        writeln!(input, "{pairs} {depth}").and_then(|()| input.flush())?;
        Ok(self.line()?.trim().parse()?)
    }

    /// Waits until pairs are as slow as probes make them: bpftrace says that
    /// it attaches, but not when it has.
    ///
    /// # Errors
    /// Fails if they never are.
    pub(super) fn wait_for_probes(&mut self) -> Result<()> {
        let begin = Instant::now();
        while self.time(100, 0)? < LEAST_TRACED {
            if begin.elapsed() > PATIENCE {
                bail!("the tracer's probes do not fire");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Entry, return and free are placed one by one.
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    }

    /// Closes its input; the rest of the line that begins so, and which it says before it ends.
    ///
    /// # Errors
    /// Fails if it says something else, or does not end as it should.
    pub(super) fn end_saying(mut self, key: &str) -> Result<String> {
        drop(self.child.stdin.take());
        let said = self.lines.after(key, PATIENCE)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("process {} ended with {status}", self.pid);
        }
        Ok(said)
    }

    fn line(&self) -> Result<String> {
        self.lines.next(PATIENCE)?.context("the target ended")
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        end(&mut self.child, PATIENCE);
    }
}
