//! The page of `unfreed serve`: bundled from its sources and packages of npm, for
//! `tracer-user/build.rs` to embed.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tracer_ebpf_build::page;

use crate::npm::{MODULES, PAGE};
use crate::shell::{run, say};

/// Which sources it was built from.
const STAMP: &str = "stamp";

/// What the browser loads first.
const HTML: &str = "index.html";

/// Builds it, unless it is as its sources are. Whether its types are right is checked, too.
///
/// # Errors
/// It does not build.
pub(crate) fn ensure() -> Result<()> {
    let sources = sources(&PAGE.source())?;
    let stamp = stamp(&sources)?;
    if fs::read_to_string(page().join(STAMP)).is_ok_and(|built| built == stamp) {
        return Ok(());
    }
    say("the page of `unfreed serve`: building it in target/tools, once");
    let place = PAGE.install()?;
    mirror(&sources, &place)?;
    let program = |name: &str| {
        let mut command = Command::new(place.join(MODULES).join(".bin").join(name));
        command.current_dir(&place);
        command
    };
    run(&mut program("tsc"))?;
    let built = place.join("built");
    run(program("esbuild")
        .args(["src/page.ts", "--bundle", "--minify", "--format=esm"])
        .args([
            "--target=es2022",
            "--legal-comments=none",
            "--log-level=warning",
        ])
        .arg(format!("--outdir={}", built.display())))?;
    fs::copy(place.join(HTML), built.join(HTML))?;
    fs::write(built.join("licences.txt"), licences(&place)?)?;
    replace(&built, &stamp)
}

/// The notices of what is in the bundle.
fn licences(place: &Path) -> Result<String> {
    let packages = PAGE.shipped()?;
    let notices = packages.iter().map(|package| package.notice(place));
    let notices: Vec<String> = notices.collect::<Result<_>>()?;
    Ok(notices.join(&format!("\n{}\n\n", "-".repeat(72))))
}

/// Puts what was built where it is embedded from; the stamp comes last.
fn replace(built: &Path, stamp: &str) -> Result<()> {
    let folder = page();
    fs::create_dir_all(&folder)?;
    for file in fs::read_dir(built)? {
        let file = file?;
        fs::copy(file.path(), folder.join(file.file_name()))?;
    }
    fs::write(folder.join(STAMP), stamp)?;
    Ok(())
}

/// All files that it is built from, each by its path and its path in the folder.
fn sources(folder: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for part in ["", "src"] {
        let within = folder.join(part);
        let entries = fs::read_dir(&within);
        for entry in entries.with_context(|| format!("cannot read {}", within.display()))? {
            let path = entry?.path();
            if path.is_file() {
                let name = path.strip_prefix(folder)?.to_owned();
                found.push((path, name));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn stamp(sources: &[(PathBuf, PathBuf)]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for (path, name) in sources {
        (name, fs::read(path)?).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Copies sources to where their packages are; what is not a source any more goes.
fn mirror(sources: &[(PathBuf, PathBuf)], place: &Path) -> Result<()> {
    for folder in ["src", "built"] {
        let folder = place.join(folder);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
    }
    for (path, name) in sources {
        fs::copy(path, place.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_changes_changes_the_stamp() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        let file = folder.path().join("src/page.ts");
        let mut seen = Vec::new();
        for text in ["one", "two", "one"] {
            fs::write(&file, text).unwrap();
            seen.push(stamp(&sources(folder.path()).unwrap()).unwrap());
        }
        assert!(seen[0] == seen[2] && seen[0] != seen[1], "{seen:?}");
    }
}
