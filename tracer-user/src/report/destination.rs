//! Where an output goes, and how it gets there whole.
//!
//! The tracer runs as root and may write where others can, who may change
//! what is there at any time. So the folder is opened once, when the output is
//! checked, and names are looked up in it alone. A regular file is never opened
//! for writing: its replacement is written beside it under a fresh name and
//! renamed over it, which follows no link. A pipe or a device is written to by
//! the descriptor by which it was looked at, so that it is the one that was
//! checked.

mod place;
mod replace;

use std::fmt;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};

use self::place::Place;

/// Names of standard output besides `-`.
const STDOUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];

/// Where an output goes.
#[derive(Debug)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file.
    File(FileDestination),
}

/// A path, and what it stood for when it was looked at first.
#[derive(Debug)]
pub struct FileDestination {
    path: PathBuf,
    place: OnceLock<Place>,
}

impl Destination {
    /// The destination that a path names.
    pub fn new(path: &Path) -> Self {
        if STDOUT.iter().any(|name| path == Path::new(name)) {
            return Self::Stdout;
        }
        Self::File(FileDestination {
            path: path.to_path_buf(),
            place: OnceLock::new(),
        })
    }

    /// Whether both name one file, as far as their folders exist.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => location(&one.path) == location(&other.path),
            (Self::Stdout, Self::Stdout) => true,
            _ => false,
        }
    }

    /// Proves that the destination can be written, without changing it. What
    /// it is now is what it stays.
    ///
    /// # Errors
    /// Names the destination and why it cannot be written.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::File(file) => self.named(file.place().and_then(Place::prove)),
        }
    }

    /// Writes what `render` writes. Standard output closed by its reader is
    /// not an error. A failure leaves a regular file as it was.
    ///
    /// # Errors
    /// Names the destination and why it cannot be written.
    pub fn write(&self, render: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        self.named(match self {
            Self::Stdout => write_stdout(render),
            Self::File(file) => file.place().and_then(|place| place.write(render)),
        })
    }

    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| format!("cannot write {self}"))
    }
}

impl FileDestination {
    fn place(&self) -> Result<&Place> {
        if let Some(place) = self.place.get() {
            return Ok(place);
        }
        let place = Place::find(&self.path)?;
        Ok(self.place.get_or_init(|| place))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => write!(f, "standard output"),
            Self::File(file) => write!(f, "{}", file.path.display()),
        }
    }
}

/// The path with its folder resolved, if that exists.
fn location(path: &Path) -> PathBuf {
    match (fs::canonicalize(place::folder(path)), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_path_buf(),
    }
}

fn write_into(file: impl Write, render: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut writer = BufWriter::new(file);
    let result = render(&mut writer).and_then(|()| Ok(writer.flush()?));
    // What is left in the buffer of a failed writer must not be tried again.
    let _ = writer.into_parts();
    result
}

fn write_stdout(render: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    match write_into(io::stdout().lock(), render) {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests;
