//! Java 8, from Debian's sid: the only suite that has it. Its programs need a
//! newer C library than hosts have, so that is unpacked too, into the runtime's
//! own folder, and `bin/java` is told to use it. Nothing of sid is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{folder, remove, version};
use crate::packages::{Packages, Suites};
use crate::shell::{run, say};

/// The runtime, and the libraries that it is linked with.
const PACKAGES: [&str; 5] = [
    "openjdk-8-jre-headless",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "zlib1g",
];
/// Where the runtime is in its package.
const RUNTIME: &str = "usr/lib/jvm/java-8-openjdk-amd64/jre";
/// Where its package has the files that links in the runtime lead to.
const SETTINGS: &str = "etc/java-8-openjdk";
/// Where libraries are in their packages.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Where we put them in the runtime's home.
const SYSTEM: &str = "system";
/// The library that loads the others: `bin/java`'s interpreter.
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Where the runtime is.
pub(crate) fn home() -> PathBuf {
    folder().join("8")
}

/// Packages without which it cannot be made to run.
pub(super) fn packages() -> Vec<&'static str> {
    match is_there() {
        true => vec![],
        false => vec!["patchelf"],
    }
}

/// Fetches it if it is not there: the version that sid has now.
///
/// # Errors
/// It cannot be fetched, or does not run.
pub(super) fn ensure() -> Result<()> {
    if is_there() {
        return Ok(());
    }
    say("Java 8: fetching Debian's openjdk-8 into target/jdks, once");
    let scratch = folder().join("8.part");
    remove(&scratch)?;
    let packages = Packages::open(scratch.clone(), Suites::SID)?;
    let unpacked = packages.unpack(&PACKAGES)?;
    let (runtime, libraries) = unpacked.split_first().context("packages are missing")?;
    put_in_place(runtime, libraries)?;
    remove(&scratch)
}

/// What is written beside the home once it is whole. `bin/java` has the home's
/// path in it.
fn stamp() -> (PathBuf, String) {
    let text = format!("{} in {}", PACKAGES.join(" "), home().display());
    (folder().join("8.stamp"), text)
}

fn is_there() -> bool {
    let (file, text) = stamp();
    fs::read_to_string(file).is_ok_and(|stamp| stamp == text) && home().join("bin/java").is_file()
}

fn put_in_place(package: &Path, libraries: &[PathBuf]) -> Result<()> {
    let home = home();
    remove(&home)?;
    fs::rename(package.join(RUNTIME), &home)
        .with_context(|| format!("cannot make {}", home.display()))?;
    bring_settings(&home, &package.join(SETTINGS))?;
    let system = home.join(SYSTEM);
    fs::create_dir(&system).with_context(|| format!("cannot make {}", system.display()))?;
    for package in libraries {
        move_libraries(&package.join(LIBRARIES), &system)?;
    }
    link(&home, &system)?;
    // Other runtimes have such a file.
    let release = format!(
        "JAVA_VERSION=\"{}\"\nIMPLEMENTOR=\"Debian\"\n",
        version(&home)?
    );
    fs::write(home.join("release"), release).context("cannot write the release of Java 8")?;
    let (file, text) = stamp();
    fs::write(file, text).context("cannot write a stamp in target/jdks")
}

/// Puts the package's files where links lead to the host's.
fn bring_settings(folder: &Path, settings: &Path) -> Result<()> {
    for path in entries(folder)? {
        if path.is_symlink() {
            let target = fs::read_link(&path)?;
            if let Ok(inner) = target.strip_prefix(Path::new("/").join(SETTINGS)) {
                fs::remove_file(&path)?;
                fs::copy(settings.join(inner), &path)
                    .with_context(|| format!("cannot bring {}", target.display()))?;
            }
        } else if path.is_dir() {
            bring_settings(&path, settings)?;
        }
    }
    Ok(())
}

fn move_libraries(from: &Path, to: &Path) -> Result<()> {
    for path in entries(from)? {
        let name = path.file_name().unwrap_or_default();
        if name.to_string_lossy().contains(".so") {
            fs::rename(&path, to.join(name))
                .with_context(|| format!("cannot move {}", path.display()))?;
        }
    }
    Ok(())
}

/// Has `bin/java` be loaded with the libraries in `system`. `DT_RPATH`, unlike
/// `DT_RUNPATH`, is for the libraries' libraries too.
fn link(home: &Path, system: &Path) -> Result<()> {
    let own = "$ORIGIN/../lib/amd64/jli:$ORIGIN/../lib/amd64";
    run(Command::new("patchelf")
        .arg("--set-interpreter")
        .arg(system.join(LOADER))
        .args(["--force-rpath", "--set-rpath"])
        .arg(format!("{own}:{}", system.display()))
        .arg(home.join("bin/java")))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot_read = || format!("cannot read {}", folder.display());
    fs::read_dir(folder)
        .with_context(cannot_read)?
        .map(|entry| Ok(entry.with_context(cannot_read)?.path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_hosts_settings_become_files() {
        let folder = tempfile::tempdir().unwrap();
        let (home, settings) = (folder.path().join("home"), folder.path().join("etc"));
        for folder in [home.join("lib/a"), settings.join("security")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(settings.join("security/policy"), "all").unwrap();
        let linked = home.join("lib/a/policy");
        let other = home.join("lib/certs");
        let link = |to: &str, path: &Path| std::os::unix::fs::symlink(to, path).unwrap();
        link("/etc/java-8-openjdk/security/policy", &linked);
        link("/etc/ssl/certs", &other);
        bring_settings(&home, &settings).unwrap();
        assert!(!linked.is_symlink() && other.is_symlink());
        assert_eq!(fs::read_to_string(linked).unwrap(), "all");

        link("/etc/java-8-openjdk/none", &home.join("none"));
        assert!(bring_settings(&home, &settings).is_err());
    }
}
