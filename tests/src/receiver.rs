//! Whom a service pushes to: a program of other people's code (`receiver.py`).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lines::Lines;
use crate::workspace;

/// A receiver at work. It is killed with this value.
#[derive(Debug)]
pub struct Receiver {
    child: Child,
    stdin: ChildStdin,
    lines: Lines,
    /// Where it listens: `rpc`, `http`, `https`.
    ports: Value,
    /// Its certificate.
    pub certificate: PathBuf,
}

impl Receiver {
    /// Starts it, with its files in a folder; at a port for HTTP, or any.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(folder: &Path, port: u16) -> Result<Self> {
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        if !certificate.exists() {
            make_certificate(&certificate, &key)?;
        }
        let script = folder.join("receiver.py");
        fs::write(&script, include_str!("receiver.py"))?;
        let mut child = Command::new("/usr/bin/python3")
            .arg(&script)
            .args([&certificate, &key])
            .arg(port.to_string())
            .env("PYTHONPATH", packages()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("no standard input")?;
        let mut lines = Lines::of(child.stdout.take().context("no standard output")?);
        let ports = lines.wait_for("its ports", |line| line.contains("rpc"))?;
        Ok(Self {
            child,
            stdin,
            lines,
            ports: serde_json::from_str(&ports)?,
            certificate,
        })
    }

    /// A port of it: `rpc`, `http` or `https`.
    pub fn port(&self, of: &str) -> u64 {
        self.ports[of].as_u64().unwrap_or_default()
    }

    /// Behaves so from now on: `ok`, `slow`, `lie`, `reject` or `busy`.
    ///
    /// # Errors
    /// It has ended.
    pub fn behave(&mut self, mode: &str) -> Result<()> {
        writeln!(self.stdin, "{mode}")?;
        self.wait(|it| it["mode"] == mode).map(|_| ())
    }

    /// The next of what it received that is what is waited for.
    ///
    /// # Errors
    /// It does not come.
    pub fn wait(&mut self, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_default();
        let line = self
            .lines
            .wait_for("what is waited for", |line| is_it(&parse(line)))?;
        Ok(parse(&line))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _reaped_before = self.child.wait();
    }
}

/// Python's packages that `cargo xtask setup test` fetched, each in a folder of its own.
fn packages() -> Result<String> {
    let folder = workspace().join("target/python");
    let entries = fs::read_dir(&folder)
        .with_context(|| format!("no {}: run `cargo xtask setup test`", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let paths = paths.filter(|path| path.is_dir());
    let paths: Vec<_> = paths.map(|path| path.display().to_string()).collect();
    Ok(paths.join(":"))
}

/// Makes a certificate for this host, with its key: nobody but its file vouches for it.
///
/// # Errors
/// It cannot be made.
pub fn make_certificate(certificate: &Path, key: &Path) -> Result<()> {
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args(["-subj", "/CN=receiver"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        // No authority of its own: it is the end of a chain, too.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .stderr(Stdio::null())
        .status()?;
    ensure!(made.success(), "openssl: {made}");
    Ok(())
}
