//! Children that may hang: what they print, and their ends, are awaited for a
//! bounded time.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The lines that a child prints.
pub(super) struct Lines(Receiver<String>);

impl Lines {
    /// Reads these streams of a child from now on, so that it never waits
    /// for a reader.
    pub(super) fn of(streams: Vec<Box<dyn Read + Send>>) -> Self {
        let (sender, receiver) = channel();
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                // Not all that tracers print is text.
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    // Once nobody listens, it is read all the same.
                    let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        Self(receiver)
    }

    /// The next line; `None` once the child has closed its outputs.
    ///
    /// # Errors
    /// Fails if there is none for `patience`.
    pub(super) fn next(&self, patience: Duration) -> Result<Option<String>> {
        match self.0.recv_timeout(patience) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("nothing was printed for {patience:?}"),
        }
    }

    /// The rest of the next line that begins so; others, whoever printed them, are skipped.
    ///
    /// # Errors
    /// Fails if there is nothing for `patience`, or no such line to the end.
    pub(super) fn after(&self, key: &str, patience: Duration) -> Result<String> {
        while let Some(line) = self.next(patience)? {
            if let Some(rest) = line.strip_prefix(key) {
                return Ok(rest.to_owned());
            }
        }
        bail!("it ended before it said {key:?}")
    }

    /// What was printed until now and not read yet.
    pub(super) fn so_far(&self) -> impl Iterator<Item = String> {
        self.0.try_iter()
    }
}

/// Waits until a child has ended, and ends it when it takes longer.
pub(super) fn end(child: &mut Child, patience: Duration) {
    let begin = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if begin.elapsed() > patience {
            // It may have ended at this moment.
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::process::Command;

    #[test]
    fn lines_end_with_their_stream() {
        let lines = Lines::of(vec![Box::new(Cursor::new(b"hello\npid 7\nb\xff"))]);
        let patience = Duration::from_secs(60);
        assert_eq!(lines.after("pid ", patience).unwrap(), "7");
        assert!(lines.next(patience).unwrap().is_some());
        assert_eq!(lines.next(patience).unwrap(), None);
        assert!(lines.after("pid ", patience).is_err());
    }

    #[test]
    fn a_child_that_stays_is_ended() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        end(&mut child, Duration::ZERO);
        assert!(child.try_wait().unwrap().is_some());
    }
}
