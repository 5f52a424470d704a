//! Reading a saved report or profile.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::model::Report;
use super::{json, pprof};
use crate::privilege::capability::{READ, with};

/// Bytes that are read at most.
const MAX_SIZE: u64 = 1 << 30;
/// The name of standard input.
pub const STDIN: &str = "-";

/// What a file can hold.
#[derive(Debug)]
pub enum Input {
    /// A report of ours.
    Report(Box<Report>),
    /// A pprof profile of any tool.
    Profile(pprof::Profile),
}

/// Reads a report or a profile; the content tells which. `-` is standard
/// input.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn read(path: &Path) -> Result<Input> {
    let content = load(path)?;
    parse(&content).with_context(|| format!("cannot read {}", name(path)))
}

/// Reads a report; a profile is an error.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn read_report(path: &Path) -> Result<Report> {
    match read(path)? {
        Input::Report(report) => Ok(*report),
        Input::Profile(_) => bail!(
            "{} is a pprof profile, which lacks what a report needs; give the .json of the same run, or open it with `go tool pprof`",
            name(path)
        ),
    }
}

/// What a path is called.
pub fn name(path: &Path) -> String {
    if path == Path::new(STDIN) {
        "standard input".into()
    } else {
        path.display().to_string()
    }
}

fn parse(content: &[u8]) -> Result<Input> {
    ensure!(!content.is_empty(), "it is empty");
    match content.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{' | b'[') => Ok(Input::Report(Box::new(json::read(content)?))),
        _ => pprof::read(content)
            .map(Input::Profile)
            .context("neither a JSON report nor a pprof profile"),
    }
}

fn load(path: &Path) -> Result<Vec<u8>> {
    let failed = || format!("cannot read {}", name(path));
    let source: Box<dyn Read> = if path == Path::new(STDIN) {
        Box::new(io::stdin().lock())
    } else {
        Box::new(with(READ, || File::open(path)).with_context(failed)?)
    };
    let mut content = Vec::new();
    source
        .take(MAX_SIZE + 1)
        .read_to_end(&mut content)
        .with_context(failed)?;
    ensure!(
        content.len() as u64 <= MAX_SIZE,
        "{} has more than {} MiB, the most that is read",
        name(path),
        MAX_SIZE >> 20
    );
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_content_tells_the_format() {
        let mut json = b"\n ".to_vec();
        json::write(&sample::report(), &mut json).unwrap();
        assert!(matches!(parse(&json), Ok(Input::Report(_))));
        let mut profile = Vec::new();
        pprof::write(&sample::report(), &mut profile).unwrap();
        assert!(matches!(parse(&profile), Ok(Input::Profile(_))));
        let error = format!("{:#}", parse(b"hello").unwrap_err());
        assert!(
            error.contains("neither a JSON report nor a pprof profile"),
            "{error}"
        );
        assert!(parse(b"").is_err());
    }

    #[test]
    fn the_file_is_named() {
        let error = format!("{:#}", read(Path::new("/nonexistent/a.json")).unwrap_err());
        assert_eq!(
            error,
            "cannot read /nonexistent/a.json: No such file or directory (os error 2)"
        );
    }
}
