//! Whether anything is still heard of a VM.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// When something was last heard of a VM: a line of its script's, or anything on
/// its console, where its first process gives a sign of life every 5 s, whatever
/// the script does.
#[derive(Debug)]
pub(super) struct Hearing<'a> {
    /// The file that the console's output goes to.
    console: &'a Path,
    /// Its length when it was looked at last, bytes.
    length: u64,
    last: Instant,
}

impl<'a> Hearing<'a> {
    /// Begins to listen.
    pub(super) fn new(console: &'a Path) -> Self {
        Self {
            console,
            length: 0,
            last: Instant::now(),
        }
    }

    /// A line came.
    pub(super) fn line(&mut self) {
        self.last = Instant::now();
    }

    /// How long nothing was heard.
    pub(super) fn silence(&mut self) -> Duration {
        let length = fs::metadata(self.console).map_or(0, |file| file.len());
        if length != self.length {
            self.length = length;
            self.last = Instant::now();
        }
        self.last.elapsed()
    }
}
