//! Java runtimes, and Java programs on them.
//!
//! `UNFREED_JDKS` lists the homes of the runtimes that `cargo xtask setup test`
//! fetched (default: those in `target/jdks`); Debian's JDK comes first, always.
//! That of Java 8 is Debian's too.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::program::Program;
use crate::target::Target;
use crate::{targets, workspace};

/// Where Debian's package is: the one with a compiler and `jcmd`.
const DEBIAN: &str = "/usr/lib/jvm/java-17-openjdk-amd64";

/// Major versions that must be at hand besides Debian's.
const MAJORS: [u32; 5] = [8, 11, 17, 21, 25];

/// A Java runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jdk {
    /// Such as `Temurin 21`.
    pub name: String,
    /// Such as 21.
    pub major: u32,
    /// What `JAVA_HOME` would be.
    pub home: PathBuf,
}

fn homes() -> Vec<PathBuf> {
    match env::var_os("UNFREED_JDKS") {
        Some(list) => env::split_paths(&list).collect(),
        None => MAJORS
            .iter()
            .map(|major| workspace().join("target/jdks").join(major.to_string()))
            .collect(),
    }
}

impl Jdk {
    /// All runtimes, Debian's first, then by version.
    ///
    /// # Errors
    /// One of those that must be at hand is not.
    pub fn all() -> Result<Vec<Self>> {
        let mut found = homes()
            .iter()
            .map(|home| Self::at(home))
            .collect::<Result<Vec<_>>>()?;
        for major in MAJORS {
            ensure!(
                found.iter().any(|jdk| jdk.major == major),
                "no Java {major} among {found:?}; run `cargo xtask setup test`"
            );
        }
        found.sort_by_key(|jdk| jdk.major);
        found.insert(0, Self::full()?);
        Ok(found)
    }

    /// One of each version, for what does not depend on who compiled it and how:
    /// Debian's 17 stands for both of that version.
    ///
    /// # Errors
    /// See [`Jdk::all`].
    pub fn versions() -> Result<Vec<Self>> {
        let mut versions = Self::all()?;
        let full = versions.remove(0);
        versions.retain(|jdk| jdk.major != full.major);
        versions.insert(0, full);
        Ok(versions)
    }

    /// Three of them, for what hardly depends on the version: Debian's 17, the
    /// oldest, which has no symbols, and the newest.
    ///
    /// # Errors
    /// See [`Jdk::all`].
    pub fn some() -> Result<Vec<Self>> {
        let mut all = Self::all()?;
        let newest = all.pop();
        all.truncate(2);
        all.extend(newest);
        Ok(all)
    }

    /// The newest.
    ///
    /// # Errors
    /// See [`Jdk::all`].
    pub fn newest() -> Result<Self> {
        Self::all()?.pop().context("no JDK")
    }

    /// Debian's, whose tools (`jcmd`, `jstack`) tell the truth about the others.
    ///
    /// # Errors
    /// It is not installed.
    pub fn full() -> Result<Self> {
        Self::at(Path::new(DEBIAN))
    }

    fn at(home: &Path) -> Result<Self> {
        let path = home.join("release");
        let release = fs::read_to_string(&path)
            .with_context(|| format!("{}; run `cargo xtask setup test`", path.display()))?;
        let major = major(&release).with_context(|| format!("no version in {release:?}"))?;
        let vendor = match release.contains("IMPLEMENTOR=\"Debian\"") {
            true => "Debian",
            false => "Temurin",
        };
        Ok(Self {
            name: format!("{vendor} {major}"),
            major,
            home: home.to_owned(),
        })
    }

    /// A program of the runtime, such as `java`.
    pub fn tool(&self, name: &str) -> Command {
        Command::new(self.home.join("bin").join(name))
    }

    /// Starts a compiled target by the name of its class, and waits until it is
    /// ready. The options are the virtual machine's.
    ///
    /// # Errors
    /// The targets were not built, or the program ended.
    pub fn start(&self, options: &[&str], class: &str, arguments: &[&str]) -> Result<Target> {
        Target::start_with(&mut self.java(options, class, arguments)?)
    }

    /// The command that [`Jdk::start`] runs.
    ///
    /// # Errors
    /// The targets were not built.
    pub fn java(&self, options: &[&str], class: &str, arguments: &[&str]) -> Result<Command> {
        let mut java = self.class_at(&self.class_path()?, options, class);
        java.args(arguments);
        Ok(java)
    }

    /// The same for a program in a folder of its own.
    pub fn command(&self, options: &[&str], program: &Program) -> Command {
        self.class_at(program.folder(), options, program.class())
    }

    /// Where the Java targets are that were compiled for it.
    ///
    /// # Errors
    /// They were not built.
    pub fn class_path(&self) -> Result<PathBuf> {
        class_path(if self.major < 11 { "java8" } else { "java" })
    }

    /// Whether libjvm.so has neither local symbols nor probes, as that of Java 8:
    /// then the report says what it cannot tell.
    pub fn is_stripped(&self) -> bool {
        self.major == 8
    }

    /// Those that have symbols and probes.
    ///
    /// # Errors
    /// See [`Jdk::all`].
    pub fn with_symbols() -> Result<Vec<Self>> {
        let all = Self::all()?.into_iter();
        Ok(all.filter(|jdk| !jdk.is_stripped()).collect())
    }

    /// Those of [`Jdk::versions`] that have.
    ///
    /// # Errors
    /// See [`Jdk::all`].
    pub fn versions_with_symbols() -> Result<Vec<Self>> {
        let versions = Self::versions()?.into_iter();
        Ok(versions.filter(|jdk| !jdk.is_stripped()).collect())
    }

    /// Those of [`Jdk::some`] that have.
    ///
    /// # Errors
    /// See [`Jdk::all`].
    pub fn some_with_symbols() -> Result<Vec<Self>> {
        let some = Self::some()?.into_iter();
        Ok(some.filter(|jdk| !jdk.is_stripped()).collect())
    }

    /// The one that has not.
    ///
    /// # Errors
    /// See [`Jdk::all`].
    pub fn stripped() -> Result<Self> {
        let mut all = Self::all()?.into_iter();
        all.find(Self::is_stripped).context("none is stripped")
    }

    fn class_at(&self, folder: &Path, options: &[&str], class: &str) -> Command {
        let mut java = self.tool("java");
        java.args(options).arg("-cp").arg(folder).arg(class);
        java
    }

    /// What `jcmd` prints of a diagnostic command. Debian's can ask them all.
    ///
    /// # Errors
    /// It fails, or there is none.
    pub fn jcmd(&self, pid: u32, command: &str) -> Result<String> {
        let mut jcmd = self.tool("jcmd");
        let output = jcmd
            .arg(pid.to_string())
            .args(command.split(' '))
            .output()
            .with_context(|| format!("no jcmd in {}", self.name))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "jcmd {command}: {text}");
        Ok(text)
    }
}

/// Where the Java targets are that run on every runtime.
///
/// # Errors
/// They were not built.
pub(crate) fn oldest_class_path() -> Result<PathBuf> {
    class_path("java8")
}

fn class_path(folder: &str) -> Result<PathBuf> {
    let path = targets().join(folder);
    ensure!(
        path.is_dir(),
        "{} was not built; run `cargo xtask targets`",
        path.display()
    );
    Ok(path)
}

/// The major version in a runtime's `release` file.
fn major(release: &str) -> Option<u32> {
    let version = release
        .lines()
        .find_map(|line| line.strip_prefix("JAVA_VERSION="))?;
    let version = version.trim_matches('"');
    // Before 9, the version of 8 was 1.8.
    let version = version.strip_prefix("1.").unwrap_or(version);
    version.split(['.', '_', '-', '+']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_one_or_more_parts() {
        let of = |version: &str| major(&format!("IMAGE=\"x\"\nJAVA_VERSION=\"{version}\"\n"));
        assert_eq!(of("17.0.9"), Some(17));
        assert_eq!(of("25"), Some(25));
        assert_eq!(of("1.8.0_392"), Some(8));
        assert_eq!(of("x"), None);
        assert_eq!(major("IMAGE=\"x\"\n"), None);
    }

    #[test]
    fn some_are_of_the_oldest_versions_and_the_newest() {
        let majors: Vec<_> = Jdk::some().unwrap().iter().map(|jdk| jdk.major).collect();
        assert_eq!(majors, [17, 8, 25]);
    }

    #[test]
    fn each_version_is_there_once() {
        let majors: Vec<_> = Jdk::versions()
            .unwrap()
            .iter()
            .map(|jdk| jdk.major)
            .collect();
        assert_eq!(majors, [17, 8, 11, 21, 25]);
        assert_eq!(Jdk::versions().unwrap().first(), Jdk::full().ok().as_ref());
    }

    #[test]
    fn all_that_must_be_at_hand_is() {
        let jdks = Jdk::all().unwrap();
        assert_eq!(jdks.len(), 1 + MAJORS.len());
        for jdk in jdks {
            let output = jdk.tool("java").arg("-version").output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let version = match jdk.major {
                8 => "\"1.8.".to_owned(),
                major => format!("\"{major}."),
            };
            assert!(said.contains(&version), "{said}");
        }
    }
}
