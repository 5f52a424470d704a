//! Whether anything is still heard of a VM.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// When something was last heard of a VM: a line of its script's, or anything on
/// its console, where its kernel tells how it starts, and its first process then
/// gives a sign of life every 5 s, whatever the script does.
#[derive(Debug)]
pub(super) struct Hearing<'a> {
    /// The emulator's process.
    pid: u32,
    /// The file that the console's output goes to.
    console: &'a Path,
    /// Its length when it was looked at last, bytes.
    length: u64,
    last: Instant,
    /// How long each thread of the emulator had waited for a core by then.
    waited: Waits,
}

/// Threads, and how long each has waited for a core since it began, nanoseconds.
type Waits = BTreeMap<u32, u64>;

impl<'a> Hearing<'a> {
    /// Begins to listen.
    pub(super) fn new(pid: u32, console: &'a Path) -> Self {
        Self {
            pid,
            console,
            length: 0,
            last: Instant::now(),
            waited: waits(pid),
        }
    }

    /// A line came.
    pub(super) fn line(&mut self) {
        self.last = Instant::now();
        self.waited = waits(self.pid);
    }

    /// How long nothing was heard, without the time in which a VM could say
    /// nothing because the host's other work had the cores.
    pub(super) fn silence(&mut self) -> Duration {
        let length = fs::metadata(self.console).map_or(0, |file| file.len());
        if length != self.length {
            self.length = length;
            self.line();
        }
        let waited = longest_wait(&self.waited, &waits(self.pid));
        self.last.elapsed().saturating_sub(waited)
    }
}

/// How long the thread that waited longest did so, between two looks.
fn longest_wait(before: &Waits, now: &Waits) -> Duration {
    let longest = now.iter().map(|(thread, waited)| {
        let before = before.get(thread).copied().unwrap_or_default();
        waited.saturating_sub(before)
    });
    Duration::from_nanos(longest.max().unwrap_or_default())
}

/// Asks the kernel. Where it does not tell, nothing has waited.
fn waits(pid: u32) -> Waits {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Waits::new();
    };
    threads
        .flatten()
        .filter_map(|thread| {
            let id = thread.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((id, wait_in(&text)?))
        })
        .collect()
}

/// The second number in a `schedstat`: time on a core, time spent waiting for
/// one (both nanoseconds), and how often it got one.
fn wait_in(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_without_a_core_is_no_silence() {
        let before = Waits::from([(1, 5_000_000_000), (2, 0)]);
        let now = Waits::from([(1, 9_000_000_000), (2, 7_000_000_000), (3, 1)]);
        assert_eq!(longest_wait(&before, &now), Duration::from_secs(7));
        assert_eq!(longest_wait(&now, &before), Duration::ZERO);
        assert_eq!(longest_wait(&before, &Waits::new()), Duration::ZERO);
    }

    #[test]
    fn the_kernel_tells_how_long_threads_waited() {
        assert_eq!(wait_in("81 4711 3\n"), Some(4711));
        assert_eq!(wait_in(""), None);
        let own = waits(std::process::id());
        assert!(!own.is_empty());
        assert!(waits(u32::MAX).is_empty());
    }

    /// Two programs that want the same core: each waits while the other has it.
    #[test]
    fn a_program_that_gets_no_core_waits() {
        let mut busy: Vec<_> = (0..2)
            .map(|_| {
                std::process::Command::new("taskset")
                    .args(["-c", "0", "sh", "-c", "while :; do :; done"])
                    .spawn()
                    .unwrap()
            })
            .collect();
        let pid = busy[0].id();
        let before = waits(pid);
        let end = Instant::now() + Duration::from_secs(60);
        while longest_wait(&before, &waits(pid)) < Duration::from_millis(100) {
            assert!(Instant::now() < end, "nothing waited");
            std::thread::sleep(Duration::from_millis(10));
        }
        for program in &mut busy {
            program.kill().unwrap();
            program.wait().unwrap();
        }
    }
}
