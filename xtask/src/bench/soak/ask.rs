//! One question to `serve`, over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// An answer comes within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The JSON that is answered for a path.
///
/// # Errors
/// Fails if there is no answer, or another one.
pub(super) fn ask(address: &str, token: &str, path: &str) -> Result<Value> {
    let mut stream = TcpStream::connect(address).context("serve does not listen any more")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.contains(" 200 "), "{path}: {head}: {body}");
    serde_json::from_str(body).with_context(|| format!("{path} is answered by no JSON"))
}
