//! Target programs: a process that does what it is told and knows the truth.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::lines::Lines;
use crate::model::MemoryKind;
use crate::{target_path, wait_until};

/// What a command really allocated, as the target tells it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Truth {
    /// One entry for each function.
    pub sites: Vec<TruthEntry>,
    /// Frees of blocks that were allocated before the tracer came.
    pub untraced_frees: u64,
    /// Events that no tracer can see.
    pub losses: u64,
    /// Whether code outside of `sites` allocated too.
    pub others: bool,
}

/// What one function allocated.
#[derive(Debug, Clone, Deserialize)]
pub struct TruthEntry {
    /// The function; empty for all blocks of `size` bytes.
    pub function: String,
    /// Their size if there is no function.
    pub size: u64,
    /// The kind of memory.
    pub kind: MemoryKind,
    /// How much of this is a promise.
    pub checked: Checked,
    /// Blocks allocated.
    pub allocated_count: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Blocks freed.
    pub freed_count: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
}

/// Which numbers of a [`TruthEntry`] must agree with the report, most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checked {
    /// All.
    All,
    /// Live bytes and count.
    Live,
    /// Live bytes.
    LiveBytes,
}

impl Truth {
    /// Adds what another command did.
    pub fn add(&mut self, other: Self) {
        self.sites.extend(other.sites);
        self.untraced_frees += other.untraced_frees;
        self.losses += other.losses;
        self.others |= other.others;
    }
}

/// A running target. It ends with this value.
#[derive(Debug)]
pub struct Target {
    /// Its process id.
    pub pid: u32,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
}

impl Target {
    /// Starts a target program and waits until it is ready.
    ///
    /// # Errors
    /// It was not built, or it ended.
    pub fn start(name: &str) -> Result<Self> {
        Self::start_at(&target_path(name)?)
    }

    /// The same for an executable anywhere.
    ///
    /// # Errors
    /// See [`Target::start`].
    pub fn start_at(path: &Path) -> Result<Self> {
        Self::start_with(&mut Command::new(path))
    }

    /// The same for a command that ends up as a target. The process id is the
    /// one that the target prints.
    ///
    /// # Errors
    /// See [`Target::start`].
    pub fn start_with(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let stdin = child.stdin.take();
        let stdout = Lines::of(child.stdout.take().context("no standard output")?);
        let mut target = Self {
            pid: child.id(),
            child,
            stdin,
            stdout,
        };
        target.pid = target.wait_ready()?;
        Ok(target)
    }

    /// The process id of the child that was started, which differs from
    /// [`Target::pid`] when something stands in between.
    pub fn child_pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for `PID ready`.
    ///
    /// # Errors
    /// The target ended or printed something else.
    pub fn wait_ready(&mut self) -> Result<u32> {
        let line = self
            .stdout
            .wait_for("`PID ready`", |line| line.ends_with(" ready"))?;
        let pid = line.split(' ').next().unwrap_or_default();
        pid.parse()
            .with_context(|| format!("no process id in {line:?}"))
    }

    /// Runs a command and returns what it did.
    ///
    /// # Errors
    /// There is no such command, or the target ended.
    pub fn command(&mut self, name: &str) -> Result<Truth> {
        let truth = self.ask(name, "done ")?;
        serde_json::from_str(&truth).with_context(|| format!("truth of {name}: {truth}"))
    }

    /// Runs a command that says something besides: the rest of its line that
    /// begins with `prefix`, and what it did.
    ///
    /// # Errors
    /// See [`Target::command`].
    pub fn command_saying(&mut self, name: &str, prefix: &str) -> Result<(String, Truth)> {
        let said = self.ask(name, prefix)?;
        let done = self
            .stdout
            .wait_for(&format!("end of {name}"), |line| line.starts_with("done "))?;
        let truth = done.strip_prefix("done ").unwrap_or_default();
        let truth = serde_json::from_str(truth).with_context(|| format!("truth of {name}"))?;
        Ok((said, truth))
    }

    /// Sends a line, waits for one that begins with `prefix`, and returns the
    /// rest of it.
    ///
    /// # Errors
    /// There is no such command, or the target ended.
    pub fn ask(&mut self, line: &str, prefix: &str) -> Result<String> {
        self.tell(line)?;
        let answer = self
            .stdout
            .wait_for(&format!("result of {line}"), |answer| {
                answer.starts_with(prefix) || answer.starts_with("no command")
            })?;
        match answer.strip_prefix(prefix) {
            Some(rest) => Ok(rest.to_owned()),
            None => bail!("the target says: {answer}"),
        }
    }

    /// Waits for a line that begins with `prefix`, and returns the rest of it.
    ///
    /// # Errors
    /// The target ended, or said no such thing in time.
    pub fn hear(&mut self, prefix: &str) -> Result<String> {
        let is_it = |line: &str| line.starts_with(prefix);
        let line = self.stdout.wait_for(&format!("a line {prefix:?}"), is_it)?;
        Ok(line.get(prefix.len()..).unwrap_or_default().to_owned())
    }

    /// Sends a line without waiting for an answer.
    ///
    /// # Errors
    /// The target ended.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        // In one piece: what a target allocates to read it does not vary.
        stdin
            .write_all(format!("{line}\n").as_bytes())
            .with_context(|| format!("telling the target {line:?}"))
    }

    /// Closes standard input and waits for the target's end.
    ///
    /// # Errors
    /// It does not end.
    pub fn finish(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        self.wait()
    }

    /// Waits for the target's end.
    ///
    /// # Errors
    /// It does not end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        wait_until("the target's end", || Ok(self.child.try_wait()?))
    }

    /// Ends the target with SIGKILL and waits until its process id is free.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.wait().map(drop)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stdin = None;
        let _ended_before = self.child.kill();
        let _reaped_before = self.child.wait();
        // A JVM that is killed leaves its socket, which would be in the way of
        // another user's JVM that gets the same number.
        let _none = fs::remove_file(format!("/tmp/.java_pid{}", self.child.id()));
    }
}
