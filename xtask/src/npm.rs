//! Packages from the npm registry, each pinned by a lock file: its hash is there, and its
//! address is not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tracer_ebpf_build::{tools, workspace};

use crate::shell::run;

/// What npm is told by.
const MANIFEST: &str = "package.json";
const LOCK: &str = "package-lock.json";
/// The packages, where npm puts them.
pub(crate) const MODULES: &str = "node_modules";
/// The lock file that they were installed by.
const INSTALLED: &str = "installed.json";

/// Licences that are permissive, and ask for no more than their notice; see `deny.toml`.
const ALLOWED: [&str; 6] = [
    "0BSD",
    "Apache-2.0",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT OR Apache-2.0",
];

/// A folder with a lock file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Project {
    /// Its folder in the workspace.
    folder: &'static str,
    /// Where its packages are installed, in `target/tools`.
    place: &'static str,
}

/// The page of `unfreed serve`.
pub(crate) const PAGE: Project = Project {
    folder: "tracer-user/page",
    place: "page-build",
};
/// What drives a browser in the tests of that page.
pub(crate) const DRIVER: Project = Project {
    folder: "tests/page",
    place: "page-driver",
};

/// Debian's packages without which none can be installed.
pub(crate) fn packages() -> &'static [&'static str] {
    match answers("node") && answers("npm") {
        true => &[],
        false => &["nodejs", "npm"],
    }
}

/// Node.js need not be the distribution's.
fn answers(program: &str) -> bool {
    let mut version = Command::new(program);
    let status = version
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    status.status().is_ok_and(|status| status.success())
}

impl Project {
    /// Its folder.
    pub(crate) fn source(self) -> PathBuf {
        workspace().join(self.folder)
    }

    /// Installs its packages, if they are not there yet as the lock file has them; returns
    /// the folder that has them.
    ///
    /// # Errors
    /// npm fails.
    pub(crate) fn install(self) -> Result<PathBuf> {
        let (source, place) = (self.source(), tools().join(self.place));
        let lock = read(&source.join(LOCK))?;
        if fs::read(place.join(INSTALLED)).ok().as_ref() == Some(&lock) {
            return Ok(place);
        }
        fs::create_dir_all(&place)?;
        for name in [MANIFEST, LOCK, ".npmrc"] {
            fs::write(place.join(name), read(&source.join(name))?)?;
        }
        run(Command::new("npm")
            .current_dir(&place)
            .args(["ci", "--loglevel=error", "--cache"])
            .arg(tools().join("npm-cache")))?;
        fs::write(place.join(INSTALLED), lock)?;
        Ok(place)
    }

    /// The packages that the lock file has but for those that only build.
    pub(crate) fn shipped(self) -> Result<Vec<Package>> {
        let packages = self.packages()?;
        Ok(packages.into_iter().filter(|it| !it.is_dev).collect())
    }

    fn packages(self) -> Result<Vec<Package>> {
        let path = self.source().join(LOCK);
        let lock: Value = serde_json::from_slice(&read(&path)?)?;
        let entries = lock["packages"].as_object();
        let entries = entries.with_context(|| format!("{} has no packages", path.display()))?;
        // The first is the project itself.
        let entries = entries.iter().filter(|(path, _)| !path.is_empty());
        entries
            .map(|(path, entry)| Package::of(path, entry))
            .collect()
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A package of a lock file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Where it is installed: `node_modules/NAME`.
    pub(crate) path: String,
    pub(crate) version: String,
    pub(crate) licence: String,
    is_dev: bool,
}

impl Package {
    /// From an entry of a lock file.
    ///
    /// # Errors
    /// It has no hash or no licence, or the address of a registry.
    fn of(path: &str, entry: &Value) -> Result<Self> {
        let text = |name: &str| {
            let text = entry[name].as_str();
            text.with_context(|| format!("{path} has no {name} in the lock file"))
        };
        text("integrity")?;
        if entry["resolved"].is_string() {
            bail!(
                "{path} has an address in the lock file: run npm install with the .npmrc beside it"
            );
        }
        Ok(Self {
            path: path.to_owned(),
            version: text("version")?.to_owned(),
            licence: text("license")?.to_owned(),
            is_dev: entry["dev"] == true,
        })
    }

    fn check(&self) -> Result<()> {
        ensure!(
            ALLOWED.contains(&self.licence.as_str()),
            "{} {} has the licence {}, which is none of those that are allowed: {}",
            self.path,
            self.version,
            self.licence,
            ALLOWED.join(", ")
        );
        Ok(())
    }

    /// The text of its licence, of where it is installed.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn notice(&self, place: &Path) -> Result<String> {
        let folder = place.join(&self.path);
        let names = ["LICENSE", "LICENSE.md", "LICENSE.txt", "license", "LICENCE"];
        let mut files = names.iter().map(|name| folder.join(name));
        let file = files.find(|file| file.is_file());
        let file = file.with_context(|| format!("{} has no text of its licence", self.path))?;
        let text = fs::read_to_string(file)?;
        let name = self.path.trim_start_matches("node_modules/");
        Ok(format!("{name} {}\n\n{}\n", self.version, text.trim()))
    }
}

/// Checks the licences of all packages by the lock files alone.
///
/// # Errors
/// One is not allowed, or a lock file says less than it should, or too much.
pub(crate) fn check() -> Result<()> {
    for project in [PAGE, DRIVER] {
        for package in project.packages()? {
            package
                .check()
                .with_context(|| format!("in {}", project.folder))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lock_files_are_within_the_policy() {
        check().unwrap();
        assert!(!PAGE.shipped().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_hash_an_address_or_another_licence_is_refused() {
        let good = json!({"version": "1.0.0", "integrity": "sha512-a", "license": "MIT"});
        let package = Package::of("node_modules/a", &good).unwrap();
        package.check().unwrap();
        for (name, value) in [("license", json!("GPL-3.0")), ("license", json!(null))] {
            let mut bad = good.clone();
            bad[name] = value;
            let package = Package::of("node_modules/a", &bad);
            assert!(package.and_then(|it| it.check()).is_err(), "{bad}");
        }
        for (name, value) in [
            ("integrity", json!(null)),
            ("resolved", json!("https://example.org/a.tgz")),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            assert!(Package::of("node_modules/a", &bad).is_err(), "{bad}");
        }
    }
}
