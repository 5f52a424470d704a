//! What is said on standard error while the screen is shown: it goes to the screen's last
//! line, and to standard error itself when the screen is gone.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{dup2_stderr, stderr};

use super::feed::Feed;
use crate::privilege::capability::Phase;

/// Messages that are kept, the last ones, and bytes of each.
const KEPT: usize = 100;
const LONGEST: u64 = 4096;

/// Standard error, held back.
pub struct Messages {
    /// Standard error as it was.
    real: OwnedFd,
    reader: Option<JoinHandle<Kept>>,
}

/// What was said.
#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    /// Messages before these.
    forgotten: u64,
}

impl Messages {
    /// Holds back what is said from now on.
    ///
    /// # Errors
    /// There are no descriptors or threads left.
    pub fn hold_back(feed: Arc<Feed>) -> Result<Self> {
        let real = fcntl_dupfd_cloexec(stderr(), 3)?;
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let reader = std::thread::Builder::new()
            .name("messages".to_owned())
            .spawn(move || {
                // It opens nothing: a refusal does no harm.
                let _refused = Phase::Parsing.enter();
                read(File::from(ours), &feed)
            })
            .context("cannot start the thread that reads messages")?;
        // From here on whatever fails gives it back.
        let held = Self {
            real,
            reader: Some(reader),
        };
        dup2_stderr(&theirs)?;
        Ok(held)
    }
}

impl Drop for Messages {
    /// Gives standard error back, and says there what was held back.
    fn drop(&mut self) {
        // Whether it fails or not, there is nobody to tell. The pipe ends with it.
        let is_back = dup2_stderr(&self.real).is_ok();
        let reader = self.reader.take().filter(|_| is_back);
        let Some(Ok(kept)) = reader.map(JoinHandle::join) else {
            return;
        };
        if kept.forgotten > 0 {
            eprintln!("unfreed: {} earlier messages are left out", kept.forgotten);
        }
        for line in kept.lines {
            eprintln!("{line}");
        }
    }
}

/// Reads until nobody has the other end any more: who writes never waits for long.
fn read(pipe: File, feed: &Feed) -> Kept {
    let mut pipe = BufReader::new(pipe);
    let mut kept = Kept::default();
    loop {
        let mut line = Vec::new();
        // A line that is longer is two.
        match pipe.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return kept,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            continue;
        }
        feed.say(line.trim_start_matches("unfreed: ").to_owned());
        if kept.lines.len() == KEPT {
            kept.lines.pop_front();
            kept.forgotten += 1;
        }
        kept.lines.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn messages_are_kept_within_bounds() {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let feed = Arc::new(Feed::default());
        let told = Arc::clone(&feed);
        let reader = std::thread::spawn(move || read(File::from(ours), &told));
        let mut theirs = File::from(theirs);
        for number in 0..KEPT + 7 {
            writeln!(theirs, "unfreed: message {number}").unwrap();
        }
        writeln!(theirs, "{}", "x".repeat(5000)).unwrap();
        drop(theirs);
        let kept = reader.join().unwrap();
        assert_eq!((kept.lines.len(), kept.forgotten), (KEPT, 9));
        assert_eq!(kept.lines[0], "unfreed: message 9");
        assert_eq!(feed.take().said.unwrap(), "x".repeat(5000 - 4096));
    }
}
