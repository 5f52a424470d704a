//! Java programs that answer line by line.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

use crate::java::{Jdk, Program};
use crate::lines::Lines;
use crate::wait_until;

/// A program in a JVM. It ends with this value.
#[derive(Debug)]
pub struct JavaTarget {
    /// Its process id.
    pub pid: u32,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    _program: Program,
}

impl JavaTarget {
    /// Compiles a source of `tests/targets/java` and starts its main class,
    /// which says `ready`.
    ///
    /// # Errors
    /// There is no compiler, or the program ended.
    pub fn start(jdk: &Jdk, name: &str, options: &[&str]) -> Result<Self> {
        Self::start_with(jdk, name, options, |_| {})
    }

    /// The same with a say in the command.
    ///
    /// # Errors
    /// See [`JavaTarget::start`].
    pub fn start_with(
        jdk: &Jdk,
        name: &str,
        options: &[&str],
        adapt: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let program = Program::compile(name)?;
        let mut command = jdk.command(options, &program);
        adapt(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", jdk.home.display()))?;
        let stdin = child.stdin.take();
        let stdout = Lines::of(child.stdout.take().context("no standard output")?);
        let mut target = Self {
            pid: child.id(),
            child,
            stdin,
            stdout,
            _program: program,
        };
        target.stdout.wait_for("`ready`", |line| line == "ready")?;
        Ok(target)
    }

    /// Says a line and returns the next one that begins with `answer` and a
    /// space, without that.
    ///
    /// # Errors
    /// The program ended.
    pub fn ask(&mut self, line: &str, answer: &str) -> Result<String> {
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("telling the target {line:?}"))?;
        let begin = format!("{answer} ");
        let line = self
            .stdout
            .wait_for(&format!("`{begin}…` after {line}"), |line| {
                line.starts_with(&begin)
            })?;
        Ok(line[begin.len()..].to_owned())
    }

    /// Closes standard input and waits for the target's end.
    ///
    /// # Errors
    /// It does not end.
    pub fn finish(&mut self) -> Result<()> {
        self.stdin = None;
        wait_until("the JVM's end", || Ok(self.child.try_wait()?)).map(drop)
    }
}

impl Drop for JavaTarget {
    fn drop(&mut self) {
        self.stdin = None;
        let _ended_before = self.child.kill();
        let _reaped_before = self.child.wait();
    }
}
