//! Builds the Java programs in `tests/targets/java`, and that of the labelled behaviours
//! in `tests/targets/verdicts`, twice, all classes in one run of the compiler each: for
//! Java 8 into `target/targets/java8`, and for all later releases, whose compiler makes
//! other code of lambdas' captures, nested classes and strings, into `target/targets/java`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};
use tracer_ebpf_build::workspace;

use crate::jdks::{DEBIAN, java8};
use crate::shell::run;
use crate::targets;

/// The oldest of the later releases that we trace.
const RELEASE: &str = "11";

/// Jars of Java agents: the name, the class that is started, and the classes in
/// it. Each is on the boot class path of the process that it is in.
const AGENTS: [(&str, &str, &[&str]); 2] = [
    (
        "boot-agent.jar",
        "incidents.agent.Agent",
        &[
            "Agent",
            "Agent$Transformer",
            "Interceptor",
            "StackTraceFormatter",
        ],
    ),
    (
        "boot-agent-healthy.jar",
        "incidents.agent.Agent",
        &[
            "Agent",
            "Agent$Transformer",
            "Interception",
            "Interceptor",
            "StackTraceFormatter",
        ],
    ),
];

/// Where built classes are, but those for Java 8: a class path.
pub(crate) fn folder() -> PathBuf {
    targets::folder().join("java")
}

/// Compiles all when one source has changed, or one has come or gone.
///
/// # Errors
/// A source cannot be read or does not compile.
pub(crate) fn build() -> Result<()> {
    let targets = workspace().join("tests/targets");
    let mut sources = sources(&targets.join("java"))?;
    sources.push(targets.join("verdicts/Verdicts.java"));
    let listing = listing(&sources)?;
    let later = ["--release", RELEASE].map(OsString::from);
    build_for("java", &later, &sources, &listing)?;
    // Against its own library: `--release 8` hides sun.misc.Unsafe. Without the
    // warning that Java 8 is old.
    let classes = java8::home().join("lib/rt.jar");
    let arguments = ["-Xlint:-options", "-source", "8", "-target", "8"].map(OsString::from);
    let eight = [&arguments[..], &["-bootclasspath".into(), classes.into()]].concat();
    build_for("java8", &eight, &sources, &listing)
}

fn build_for(name: &str, arguments: &[OsString], sources: &[PathBuf], listing: &str) -> Result<()> {
    let output = targets::folder().join(name);
    let stamp = targets::folder().join(".stamps").join(name);
    if output.is_dir() && fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == listing) {
        return Ok(());
    }
    // Classes of sources that are gone must not stay.
    let _not_there = fs::remove_dir_all(&output);
    run(compiler()
        .current_dir(workspace())
        .args(["-g", "-Xlint:all"])
        .args(arguments)
        .arg("-d")
        .arg(&output)
        .args(sources))
    .context("cannot build the Java targets")?;
    for (name, main, classes) in AGENTS {
        jar(&output, name, main, classes)?;
    }
    let stamps = stamp.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(stamps).with_context(|| format!("cannot make {}", stamps.display()))?;
    fs::write(&stamp, listing).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Debian's compiler. It takes sources to be in the locale's encoding unless it
/// is told, and where none is set that is ASCII.
fn compiler() -> Command {
    let mut command = Command::new(Path::new(DEBIAN).join("bin/javac"));
    command.args(["-encoding", "UTF-8"]);
    command
}

/// Makes the jar of an agent out of compiled classes, which are in the package
/// of the class that is started.
fn jar(output: &Path, name: &str, main: &str, classes: &[&str]) -> Result<()> {
    let manifest = output.join(format!("{name}.manifest"));
    let text =
        format!("Premain-Class: {main}\nCan-Retransform-Classes: true\nBoot-Class-Path: {name}\n");
    fs::write(&manifest, text).with_context(|| format!("cannot write {}", manifest.display()))?;
    let package = Path::new(&main.replace('.', "/")).with_file_name("");
    let classes = classes
        .iter()
        .map(|class| package.join(format!("{class}.class")));
    run(Command::new(Path::new(DEBIAN).join("bin/jar"))
        .current_dir(output)
        .args(["--create", "--file", name, "--manifest"])
        .arg(&manifest)
        .args(classes))
    .with_context(|| format!("cannot make {name}"))
}

/// All Java files in a folder and in those below, sorted.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot_read = || format!("cannot read {}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot_read)? {
        let path = entry.with_context(cannot_read)?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|end| end == "java") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Sources with the times of their last change: what a build depends on.
fn listing(sources: &[PathBuf]) -> Result<String> {
    let mut listing = String::new();
    for source in sources {
        let changed = fs::metadata(source)
            .and_then(|metadata| metadata.modified())
            .with_context(|| format!("cannot read {}", source.display()))?;
        let since = changed
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        listing += &format!("{} {}\n", source.display(), since.as_nanos());
    }
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_the_same_without_a_locale() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("Umlaut.java");
        fs::write(&source, "class Umlaut { String ü = \"…\"; }\n").unwrap();
        let output = compiler()
            .env_clear()
            .args(["-Xlint:all", "-Werror", "-d"])
            .arg(folder.path())
            .arg(&source)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}
