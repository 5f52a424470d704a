//! Java virtual machines, and programs for them that answer line by line.

use std::env;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::lines::Lines;
use crate::{source, wait_until};

/// The JVMs to test with: the one that `java` starts, and those in the folders
/// of `UNFREED_JDKS`, with colons between them.
pub fn virtual_machines() -> Vec<PathBuf> {
    let further = env::var_os("UNFREED_JDKS").unwrap_or_default();
    std::iter::once(PathBuf::from("/usr/bin/java"))
        .chain(env::split_paths(&further).map(|home| home.join("bin/java")))
        .filter(|path| path.exists())
        .collect()
}

/// A program in a JVM. It ends with this value.
#[derive(Debug)]
pub struct JavaTarget {
    /// Its process id.
    pub pid: u32,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    _classes: TempDir,
}

impl JavaTarget {
    /// Compiles a source of `tests/targets/java` and starts its main class,
    /// which says `ready`.
    ///
    /// # Errors
    /// There is no compiler, or the program ended.
    pub fn start(java: &Path, name: &str, options: &[&str]) -> Result<Self> {
        Self::start_with(java, name, options, |_| {})
    }

    /// The same with a say in the command.
    ///
    /// # Errors
    /// See [`JavaTarget::start`].
    pub fn start_with(
        java: &Path,
        name: &str,
        options: &[&str],
        adapt: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let classes = compile_java(name)?;
        let mut command = Command::new(java);
        command
            .args(options)
            .arg("-cp")
            .arg(classes.path())
            .arg(name);
        adapt(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", java.display()))?;
        let stdin = child.stdin.take();
        let stdout = Lines::of(child.stdout.take().context("no standard output")?);
        let mut target = Self {
            pid: child.id(),
            child,
            stdin,
            stdout,
            _classes: classes,
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

/// Compiles a source of `tests/targets/java` for Java 11 and later.
///
/// # Errors
/// There is no compiler, or it refuses the source.
pub fn compile_java(name: &str) -> Result<TempDir> {
    let classes = tempfile::tempdir()?;
    let path = source(&format!("java/{name}.java"));
    let output = Command::new("javac")
        .args(["--release", "11", "-d"])
        .args([classes.path().as_os_str(), OsStr::new(path.as_os_str())])
        .output()
        .context("starting javac")?;
    ensure!(
        output.status.success(),
        "javac {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(classes)
}
