//! Builds in which a warning is an error, by the compiler or by clippy in its place.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::{capture_all, cargo, say};

/// What compiles the workspace's own packages. Cargo keeps what each built apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// The compiler.
    Compiler,
    /// Clippy, which compiles as well: `clippy-driver` takes the compiler's arguments.
    Clippy,
}

/// Has cargo build something of the whole workspace, shows what the compiler says, and
/// returns cargo's messages
/// (<https://doc.rust-lang.org/cargo/reference/external-tools.html#json-messages>).
///
/// # Errors
/// Fails when something cannot be built, or with a warning.
pub(crate) fn artifacts(driver: Driver, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = cargo();
    command
        .args(arguments)
        .args(["--workspace", "--message-format=json"]);
    if driver == Driver::Clippy {
        command.env("RUSTC_WORKSPACE_WRAPPER", clippy());
    }
    let (output, status) = capture_all(&mut command)?;
    let messages = parse(&output)?;
    let diagnostics = || messages.iter().filter_map(diagnostic);
    for (_, text) in diagnostics() {
        say(text);
    }
    if !status.success() {
        bail!("cargo failed: {status}");
    }
    if diagnostics().any(|(level, _)| level == "warning") {
        bail!("warnings are errors here");
    }
    Ok(messages)
}

/// Cargo's messages, one a line.
fn parse(output: &str) -> Result<Vec<Value>> {
    let messages = output.lines().map(serde_json::from_str);
    messages
        .collect::<Result<_, _>>()
        .context("cannot parse cargo's messages")
}

/// What the compiler says in a message of cargo's: its level, and the text to show.
fn diagnostic(message: &Value) -> Option<(&str, &str)> {
    let said = &message["message"];
    (message["reason"] == "compiler-message")
        .then_some((said["level"].as_str()?, said["rendered"].as_str()?))
}

/// Clippy's compiler: the one beside the cargo that runs us.
fn clippy() -> OsString {
    const NAME: &str = "clippy-driver";
    let beside = std::env::var_os("CARGO").map(|cargo| PathBuf::from(cargo).with_file_name(NAME));
    beside
        .filter(|path| path.exists())
        .map_or_else(|| NAME.into(), OsString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_compiler_says_is_told_from_what_it_made() {
        let output = r#"{"reason":"compiler-message","message":{"level":"warning","rendered":"unused"}}
{"reason":"compiler-artifact","message":null}
{"reason":"build-finished","success":true}"#;
        let messages = parse(output).unwrap();
        let said: Vec<_> = messages.iter().filter_map(diagnostic).collect();
        assert_eq!(said, [("warning", "unused")]);
        assert!(parse("warning: unused").is_err());
    }
}
