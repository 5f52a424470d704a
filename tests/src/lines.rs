//! A child's output, line by line, with a deadline.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::deadline;

/// Lines that a thread reads from a pipe. All of them are kept.
#[derive(Debug)]
pub(crate) struct Lines {
    incoming: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    /// Starts to read `pipe`.
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, incoming) = channel();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while matches!(pipe.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line)
                    .trim_end_matches('\n')
                    .to_owned();
                if sender.send(text).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Self {
            incoming,
            seen: Vec::new(),
        }
    }

    /// Waits for the next line that satisfies `wanted`.
    ///
    /// Fails when the pipe closes first or at the deadline, with all lines so
    /// far in the message.
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = deadline();
        let end = Instant::now() + deadline;
        loop {
            match self
                .incoming
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "no {what} within {deadline:?}; so far:\n{}",
                        self.seen.join("\n")
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the output ended without {what}:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    /// Everything until the pipe closes, or until the deadline if something
    /// else keeps it open.
    pub(crate) fn all(mut self) -> String {
        let end = Instant::now() + deadline();
        while let Ok(line) = self
            .incoming
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            self.seen.push(line);
        }
        self.seen.join("\n")
    }
}
