//! The test programs: what cargo builds them from, and how they are run.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::Value;
use tracer_ebpf_build::workspace;

use crate::build::Profile;
use crate::compiler::{Driver, artifacts};
use crate::shell::as_root_with;
use crate::{jdks, libtest, targets};

/// The package of the end-to-end tests.
pub(crate) const END_TO_END: &str = "unfreed-tests";

/// The end-to-end tests, ready to be run.
#[derive(Debug)]
pub(crate) struct EndToEnd {
    /// The test programs.
    pub(crate) programs: Vec<PathBuf>,
    /// Whether they can tell how long each test took.
    pub(crate) timed: bool,
}

/// The program with a package's unit tests.
#[derive(Debug, PartialEq)]
pub(crate) struct Unit {
    pub(crate) program: PathBuf,
    /// The package's folder, which cargo would run it in.
    folder: PathBuf,
}

/// Builds the binary, the programs that are traced, and the end-to-end tests, as
/// the user, and the unit tests of libraries, one of which goes with these. For
/// all packages at once, because for one alone cargo would build scripts anew,
/// without the debug information that they share with xtask. Tests are looked through by
/// clippy as they are built: to check all of them and all that they depend on once more
/// takes half as long as to build them.
///
/// # Errors
/// Fails when something cannot be built, or the compiler or clippy warns.
pub(crate) fn build() -> Result<(EndToEnd, Vec<Unit>)> {
    artifacts(Driver::Compiler, &["build", "--bins"])?;
    let messages = artifacts(Driver::Clippy, &["test", "--no-run", "--lib", "--test=*"])?;
    let (programs, units) = test_programs(&messages);
    targets::build_all()?;
    let timed = programs
        .first()
        .is_some_and(|program| libtest::tells_times(program));
    Ok((EndToEnd { programs, timed }, units))
}

/// Builds the unit tests of programs: of the tracer, which takes long. Clippy looks
/// through them, too.
///
/// # Errors
/// Fails when something cannot be built, or clippy warns.
pub(crate) fn build_units() -> Result<Vec<Unit>> {
    let messages = artifacts(Driver::Clippy, &["test", "--no-run", "--bins"])?;
    let (_, units) = test_programs(&messages);
    Ok(units)
}

impl EndToEnd {
    /// Builds them and all that they need.
    ///
    /// # Errors
    /// Fails when something cannot be built.
    pub(crate) fn build() -> Result<Self> {
        build().map(|(end_to_end, _)| end_to_end)
    }

    /// A command that runs one of their programs as root, in their environment
    /// and with more variables in it.
    ///
    /// # Errors
    /// See [`EndToEnd::variables`].
    pub(crate) fn command(program: &Path, more: &[(&str, &str)]) -> Result<Command> {
        let variables = Self::variables()?;
        let variables = variables
            .iter()
            .map(|(name, value)| (*name, value.as_os_str()));
        let more = more.iter().map(|(name, value)| (*name, OsStr::new(*value)));
        Ok(as_root_with(variables.chain(more), program))
    }

    /// The environment of the tests. The programs that they start follow the
    /// locale: it is the same here, on a machine where none is set, and in a VM.
    ///
    /// # Errors
    /// The workspace's path cannot be in a list of paths.
    pub(crate) fn variables() -> Result<[(&'static str, OsString); 4]> {
        Ok([
            ("LC_ALL", "C.UTF-8".into()),
            ("UNFREED_BIN", Profile::Dev.folder().join("unfreed").into()),
            ("UNFREED_TARGETS", targets::folder().into()),
            ("UNFREED_JDKS", jdks::homes()?),
        ])
    }
}

impl Unit {
    /// A command that runs it as cargo would.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

/// The programs with tests among cargo's messages: the end-to-end tests, and the unit
/// tests of all other packages.
fn test_programs(messages: &[Value]) -> (Vec<PathBuf>, Vec<Unit>) {
    let (mut end_to_end, mut units) = (Vec::new(), Vec::new());
    for message in messages {
        let (true, Some(program)) = (
            message["profile"]["test"] == true,
            message["executable"].as_str(),
        ) else {
            continue;
        };
        let package = message["package_id"].as_str().unwrap_or_default();
        if package.contains(&format!("#{END_TO_END}@")) {
            // Its own program is no test.
            if message["target"]["kind"][0] != "bin" {
                end_to_end.push(program.into());
            }
            continue;
        }
        let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
        units.push(Unit {
            program: program.into(),
            folder: manifest.parent().unwrap_or(workspace()).to_owned(),
        });
    }
    (end_to_end, units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_programs_are_run() {
        let messages = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/xtask#0.1.0","manifest_path":"/w/xtask/Cargo.toml","profile":{"test":true},"executable":"/t/debug/deps/xtask-2"}
{"reason":"compiler-artifact","package_id":"path+file:///w/tests#unfreed-tests@0.1.0","manifest_path":"/w/tests/Cargo.toml","target":{"kind":["test"]},"profile":{"test":true},"executable":"/t/debug/deps/record-1"}
{"reason":"compiler-artifact","package_id":"path+file:///w/tests#unfreed-tests@0.1.0","manifest_path":"/w/tests/Cargo.toml","target":{"kind":["bin"]},"profile":{"test":true},"executable":"/t/debug/deps/incidents-3"}
{"reason":"compiler-artifact","package_id":"path+file:///w/tests#unfreed-tests@0.1.0","profile":{"test":false},"executable":"/t/debug/incidents"}
{"reason":"compiler-artifact","package_id":"path+file:///w/tests#unfreed-tests@0.1.0","profile":{"test":true},"executable":null}
{"reason":"build-finished","success":true}"#;
        let messages: Vec<Value> = messages
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let (end_to_end, units) = test_programs(&messages);
        assert_eq!(end_to_end, [PathBuf::from("/t/debug/deps/record-1")]);
        let xtask = Unit {
            program: "/t/debug/deps/xtask-2".into(),
            folder: "/w/xtask".into(),
        };
        assert_eq!(units, [xtask]);
    }
}
