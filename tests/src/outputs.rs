//! Files that the tracer writes, and the run that most tests of them look at.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{Finished, Tracer, target_path};

/// Paths in a folder that ends with this value.
#[derive(Debug)]
pub struct Outputs(TempDir);

impl Outputs {
    /// An empty folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The same as text, for a command line.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

/// The command line of the target `leak` with some commands.
///
/// # Errors
/// It was not built.
pub fn leak_command(commands: &[&str]) -> Result<Vec<String>> {
    let program = target_path("leak")?.display().to_string();
    Ok(std::iter::once(program)
        .chain(commands.iter().map(|&command| command.into()))
        .collect())
}

/// Runs `leak leak_blocks cache_blocks` under the tracer. It leaves 7 blocks
/// of 1009 bytes and 16 of 509.
///
/// # Errors
/// It cannot be started, or it does not end.
pub fn run_leak(options: &[&str]) -> Result<Finished> {
    Tracer::run(options, &leak_command(&["leak_blocks", "cache_blocks"])?)?.wait()
}

/// The content of a gzip file.
///
/// # Errors
/// It is none.
pub fn gunzip(path: &Path) -> Result<Vec<u8>> {
    unpacked(File::open(path)?)
}

/// What gzip made smaller.
///
/// # Errors
/// It is none of gzip's.
pub fn unpacked(packed: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Stacks and values of a folded file.
///
/// # Errors
/// A line has no value.
pub fn folded(path: &Path) -> Result<Vec<(String, u64)>> {
    fs::read_to_string(path)?
        .lines()
        .map(|line| {
            let (stack, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            Ok((stack.to_owned(), value.parse()?))
        })
        .collect()
}

/// Whether a text is a well-formed SVG document.
pub fn is_drawing(text: &str) -> bool {
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    roxmltree::Document::parse_with_options(text, options)
        .is_ok_and(|document| document.root_element().tag_name().name() == "svg")
}
