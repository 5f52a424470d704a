//! Running commands: each is echoed as one line before it runs.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cpu;

/// Prints a line about what goes on, on standard error.
pub(crate) fn say(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// Runs a command to its end.
///
/// # Errors
/// Fails when it cannot start or does not end well.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    echo(command);
    let start = Instant::now();
    let status = command
        .spawn()
        .and_then(|mut child| cpu::wait(&mut child))
        .with_context(|| cannot_run(command))?;
    if !status.success() {
        bail!("{} failed: {status}", program(command));
    }
    took(start.elapsed());
    Ok(())
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// Fails when it cannot start, does not end well, or writes no UTF-8.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let (output, status) = capture_all(command)?;
    if !status.success() {
        bail!("{} failed: {status}", program(command));
    }
    Ok(output)
}

/// Runs a command to its end, whatever that is, and returns its standard output.
///
/// # Errors
/// Fails when it cannot start or writes no UTF-8.
pub(crate) fn capture_all(command: &mut Command) -> Result<(String, ExitStatus)> {
    echo(command);
    let start = Instant::now();
    let (output, status) = captured(command).with_context(|| cannot_run(command))?;
    took(start.elapsed());
    let output = String::from_utf8(output)
        .with_context(|| format!("{} wrote something else than text", program(command)))?;
    Ok((output, status))
}

fn captured(command: &mut Command) -> io::Result<(Vec<u8>, ExitStatus)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let mut output = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut output)?;
    }
    Ok((output, cpu::wait(&mut child)?))
}

/// Prints a command the way one would type it.
pub(crate) fn echo(command: &Command) {
    say(format_args!("$ {}", line(command)));
}

/// Prints how long a step took, when it was long enough to wonder.
fn took(elapsed: Duration) {
    if elapsed >= Duration::from_secs(1) {
        say(format_args!("  took {:.1} s", elapsed.as_secs_f64()));
    }
}

/// A command that runs `program` as root: raised by sudo, unless we are root.
/// sudo may ask for a password only on a terminal.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    if !io::stdin().is_terminal() {
        command.arg("--non-interactive");
    }
    command.arg(program);
    command
}

/// The same with variables set, which sudo would not hand on by itself.
pub(crate) fn as_root_with<'a>(
    variables: impl IntoIterator<Item = (&'a str, &'a OsStr)>,
    program: impl AsRef<OsStr>,
) -> Command {
    let mut command = as_root("env");
    for (name, value) in variables {
        let mut variable = std::ffi::OsString::from(name);
        variable.push("=");
        variable.push(value);
        command.arg(variable);
    }
    command.arg(program);
    command
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    tracer_ebpf_build::keep_toolchains(&mut command);
    // What `cargo xtask` has from cargo. Build scripts of others ask for it to be as it was, and
    // much is built anew when it is not, as after a plain `cargo build`.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_package) {
            command.env_remove(name);
        }
    }
    command.current_dir(tracer_ebpf_build::workspace());
    command
}

/// Whether a variable is what cargo says of a package to its build script and its program.
fn is_of_package(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// The message for a command that does not start.
pub(crate) fn cannot_run(command: &Command) -> String {
    format!("cannot run {}; is it installed?", program(command))
}

fn program(command: &Command) -> String {
    let path = Path::new(command.get_program());
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// A command the way one would type it.
pub(crate) fn line(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(name, value)| {
        Some(format!(
            "{}={}",
            name.to_string_lossy(),
            quote(&value?.to_string_lossy())
        ))
    });
    let words = std::iter::once(program(command))
        .chain(command.get_args().map(|arg| quote(&arg.to_string_lossy())));
    set.chain(words).collect::<Vec<_>>().join(" ")
}

/// Quotes a word for the shell when it needs it. Control characters, such as
/// the separators of encoded compiler flags, are shown as spaces.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let shown: String = word
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("'{}'", shown.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        let mut command = Command::new("/usr/bin/g++");
        command
            .args(["-O1", "it's", "", "a b", "-o", "x.o"])
            .env("LANG", "C");
        assert_eq!(line(&command), r"LANG=C g++ -O1 'it'\''s' '' 'a b' -o x.o");
        let mut command = Command::new("cargo");
        command.env("FLAGS", "-a\x1f-b").env_remove("HOME");
        assert_eq!(line(&command), "FLAGS='-a -b' cargo");
    }
}
