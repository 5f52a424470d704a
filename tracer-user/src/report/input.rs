//! Reading a saved report or profile.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{json, pprof};
use crate::model::Report;
use crate::privilege::capability::{READ, with};

/// Bytes that are read at most.
const MAX_SIZE: u64 = 1 << 30;
/// Bytes that tell the format: only spaces may come before.
const HEAD: usize = 4096;
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
    let mut file = open(path).with_context(|| format!("cannot read {}", name(path)))?;
    parse(&mut file).with_context(|| format!("cannot read {}", name(path)))
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

fn parse(file: &mut (impl Read + Seek)) -> Result<Input> {
    let mut head = [0; HEAD];
    let count = fill(file, &mut head)?;
    file.rewind()?;
    ensure!(count > 0, "it is empty");
    match head[..count]
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
    {
        Some(b'{' | b'[') => Ok(Input::Report(Box::new(json::read(file)?))),
        _ => pprof::read(file)
            .map(Input::Profile)
            .context("neither a JSON report nor a pprof profile"),
    }
}

/// Fills a buffer, unless there is less to read.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let count @ 1.. = file.read(&mut buffer[filled..])? {
        filled += count;
    }
    Ok(filled)
}

/// Opens a file that can be read twice. What comes through a pipe is kept in a
/// file without a name meanwhile.
fn open(path: &Path) -> Result<File> {
    let mut source: Box<dyn Read> = if path == Path::new(STDIN) {
        Box::new(io::stdin().lock())
    } else {
        let file = with(READ, || File::open(path))?;
        let about = file.metadata()?;
        if about.is_file() {
            ensure!(about.len() <= MAX_SIZE, too_large());
            return Ok(file);
        }
        Box::new(file)
    };
    let mut copy = tempfile::tempfile().context("no place for what comes through a pipe")?;
    let size = io::copy(&mut source.by_ref().take(MAX_SIZE + 1), &mut copy)?;
    ensure!(size <= MAX_SIZE, too_large());
    copy.rewind()?;
    Ok(copy)
}

fn too_large() -> String {
    format!(
        "it has more than {} MiB, the most that is read",
        MAX_SIZE >> 20
    )
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::report::sample;

    #[test]
    fn the_content_tells_the_format() {
        let mut json = b"\n ".to_vec();
        json::write(&sample::report(), &mut json).unwrap();
        assert!(matches!(
            parse(&mut Cursor::new(json)),
            Ok(Input::Report(_))
        ));
        let mut profile = Vec::new();
        pprof::write(&sample::report(), &mut profile).unwrap();
        assert!(matches!(
            parse(&mut Cursor::new(profile)),
            Ok(Input::Profile(_))
        ));
        let error = format!("{:#}", parse(&mut Cursor::new(b"hello")).unwrap_err());
        assert!(
            error.contains("neither a JSON report nor a pprof profile"),
            "{error}"
        );
        assert!(parse(&mut Cursor::new(b"")).is_err());
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
