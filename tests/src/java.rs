//! JVMs: which there are, and target programs for them.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::source;

/// The oldest version that target programs run on.
const RELEASE: &str = "11";

/// A Java installation.
#[derive(Debug, Clone)]
pub struct Jdk {
    /// Its folder, with `bin/java` in it.
    pub home: PathBuf,
}

impl Jdk {
    /// All that there are: those in `/usr/lib/jvm`, and the folders in
    /// `UNFREED_JDKS`, separated by colons.
    ///
    /// # Errors
    /// There is none, or one of `UNFREED_JDKS` is none.
    pub fn all() -> Result<Vec<Self>> {
        let mut homes = Vec::new();
        for entry in fs::read_dir("/usr/lib/jvm").into_iter().flatten() {
            let home = entry?.path().canonicalize()?;
            if home.join("bin/java").exists() {
                homes.push(home);
            }
        }
        let more = env::var_os("UNFREED_JDKS").unwrap_or_default();
        for home in env::split_paths(&more).filter(|path| !path.as_os_str().is_empty()) {
            let home = home.canonicalize()?;
            ensure!(home.join("bin/java").exists(), "no JDK: {}", home.display());
            homes.push(home);
        }
        homes.sort();
        homes.dedup();
        ensure!(!homes.is_empty(), "no JDK in /usr/lib/jvm or UNFREED_JDKS");
        Ok(homes.into_iter().map(|home| Self { home }).collect())
    }

    /// One of them that can compile.
    ///
    /// # Errors
    /// There is none.
    pub fn full() -> Result<Self> {
        let can_compile = |jdk: &Self| jdk.home.join("bin/javac").exists();
        Self::all()?
            .into_iter()
            .find(can_compile)
            .context("no JDK with javac")
    }

    /// The command that runs a class.
    pub fn command(&self, options: &[&str], program: &Program) -> Command {
        let mut command = Command::new(self.home.join("bin/java"));
        command.args(options).args(program.arguments());
        command
    }

    /// What `jcmd` prints of a diagnostic command.
    ///
    /// # Errors
    /// It fails.
    pub fn jcmd(&self, pid: u32, command: &str) -> Result<String> {
        let mut jcmd = Command::new(self.home.join("bin/jcmd"));
        let output = jcmd
            .arg(pid.to_string())
            .args(command.split(' '))
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "jcmd {command}: {text}");
        Ok(text)
    }
}

/// A compiled Java program in a folder of its own, which anybody may read.
#[derive(Debug)]
pub struct Program {
    folder: TempDir,
    class: String,
}

impl Program {
    /// Compiles `tests/targets/java/CLASS.java`.
    ///
    /// # Errors
    /// It does not compile.
    pub fn compile(class: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let output = Command::new(Jdk::full()?.home.join("bin/javac"))
            .args(["--release", RELEASE, "-d"])
            .arg(folder.path())
            .arg(source("java").join(format!("{class}.java")))
            .stdin(Stdio::null())
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{errors}");
        Ok(Self {
            folder,
            class: class.to_owned(),
        })
    }

    /// The folder of the classes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a JVM is told to run it.
    pub fn arguments(&self) -> Vec<String> {
        let folder = self.folder.path().display().to_string();
        vec!["-cp".to_owned(), folder, self.class.clone()]
    }
}
