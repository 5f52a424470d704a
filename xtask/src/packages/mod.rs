//! Packages of other suites than the host's: found, downloaded and checked by
//! apt under a configuration of its own, unpacked into a folder, never installed.

mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

pub(crate) use self::sources::Suites;
use crate::apt;
use crate::shell::{capture, run, say};

/// The keyring of Debian's archive. It has the keys of all releases that we
/// take packages from, whichever of them the host runs.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How long an index is used before apt looks for newer packages.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// An own apt in a folder, and what it unpacked.
#[derive(Debug)]
pub(crate) struct Packages {
    folder: PathBuf,
}

impl Packages {
    /// Opens the folder and brings its index up to date, at most once a day.
    ///
    /// # Errors
    /// There is no index and none can be fetched.
    pub(crate) fn open(folder: PathBuf, suites: Suites) -> Result<Self> {
        let sources = sources(suites)?;
        let packages = Self::new(folder, &sources)?;
        packages.update(&sources)?;
        Ok(packages)
    }

    /// Sets an apt with these sources up in the folder.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn new(folder: PathBuf, sources: &str) -> Result<Self> {
        for inner in [
            "lists/partial",
            "cache/archives/partial",
            "state",
            "unpacked",
        ] {
            fs::create_dir_all(folder.join(inner))?;
        }
        let packages = Self { folder };
        packages.configure(sources)?;
        Ok(packages)
    }

    fn configure(&self, sources: &str) -> Result<()> {
        let folder = self.folder.display();
        fs::write(self.folder.join("sources.list"), sources)?;
        fs::write(self.folder.join("state/status"), "")?;
        fs::write(
            self.folder.join("apt.conf"),
            format!(
                "Dir::State \"{folder}/state\";\n\
                 Dir::State::lists \"{folder}/lists\";\n\
                 Dir::State::status \"{folder}/state/status\";\n\
                 Dir::Cache \"{folder}/cache\";\n\
                 Dir::Etc::sourcelist \"{folder}/sources.list\";\n\
                 Dir::Etc::sourceparts \"-\";\n\
                 APT::Sandbox::User \"\";\n\
                 Acquire::Languages \"none\";\n\
                 Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
            ),
        )?;
        Ok(())
    }

    fn update(&self, sources: &str) -> Result<()> {
        let stamp = self.folder.join("updated");
        let is_fresh = fs::read_to_string(&stamp).is_ok_and(|of| of == sources)
            && age(&stamp).is_some_and(|age| age < FRESH);
        if is_fresh {
            return Ok(());
        }
        let updated = apt::run(
            self.command("apt-get")
                .args(["-qq", "--error-on=any", "update"]),
        );
        match updated {
            Ok(()) => Ok(fs::write(stamp, sources)?),
            Err(error) if stamp.exists() && !error.is::<apt::Held>() => {
                say("the package index is not fresh; going on with the one that is there");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A command of apt's, under our configuration.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let (name, value) = apt::LANGUAGE;
        command
            .env(name, value)
            .env("APT_CONFIG", self.folder.join("apt.conf"));
        command
    }

    /// The names of all packages that a regular expression matches.
    ///
    /// # Errors
    /// apt does not understand it.
    pub(crate) fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let found = capture(
            self.command("apt-cache")
                .args(["search", "--names-only", pattern]),
        )?;
        let names = found.lines().filter_map(|line| line.split(' ').next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Unpacks packages, `NAME` or `NAME/SUITE`, unless they are there already,
    /// and returns their folders.
    ///
    /// # Errors
    /// One cannot be fetched.
    pub(crate) fn unpack(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let found = capture(
            self.command("apt-get")
                .args(["download", "--print-uris"])
                .args(packages),
        )?;
        packages
            .iter()
            .map(|package| {
                let file = file_of(package, &found)
                    .with_context(|| format!("apt does not know {package}"))?;
                self.unpack_one(package, file)
            })
            .collect()
    }

    fn unpack_one(&self, package: &str, file: &str) -> Result<PathBuf> {
        let folder = self.folder.join("unpacked").join(file);
        if folder.exists() {
            return Ok(folder);
        }
        let partial = self.folder.join("cache/archives/partial");
        run(self
            .command("apt-get")
            .args(["-qq", "download", package])
            .current_dir(&partial))?;
        let unpacking = partial.join("unpacking");
        if unpacking.exists() {
            fs::remove_dir_all(&unpacking)?;
        }
        run(Command::new("dpkg")
            .arg("--extract")
            .arg(partial.join(file))
            .arg(&unpacking))?;
        fs::remove_file(partial.join(file))?;
        // Only what is whole has the name that is looked for.
        fs::rename(unpacking, &folder)?;
        Ok(folder)
    }
}

/// Suites, on the mirrors of the host.
fn sources(suites: Suites) -> Result<String> {
    let targets = capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        sources::FORMAT,
        "Created-By: Packages",
    ]))?;
    let keys = if Path::new(KEYS).exists() {
        format!("[signed-by={KEYS}] ")
    } else {
        String::new()
    };
    sources::list(&targets, &keys, suites)
}

/// The file of a package in what `apt-get download --print-uris` prints:
/// `'URI' NAME_VERSION_ARCHITECTURE.deb SIZE HASH`, a line each.
fn file_of<'a>(package: &str, uris: &'a str) -> Option<&'a str> {
    let (name, _) = package.split_once('/').unwrap_or((package, ""));
    uris.lines()
        .filter_map(|line| line.split(' ').nth(1))
        .find(|file| {
            file.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('_'))
        })
}

/// Time since a file was written.
fn age(file: &Path) -> Option<Duration> {
    let written = fs::metadata(file).ok()?.modified().ok()?;
    SystemTime::now().duration_since(written).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_whole_name() {
        let uris = "'http://m/a-b_2_amd64.deb' a-b_2_amd64.deb 7 SHA256:1\n\
                    'http://m/a_1%3a1_all.deb' a_1%3a1_all.deb 7 SHA256:1\n";
        assert_eq!(file_of("a", uris), Some("a_1%3a1_all.deb"));
        assert_eq!(file_of("a-b/some-suite", uris), Some("a-b_2_amd64.deb"));
        assert_eq!(file_of("b", uris), None);
    }
}
