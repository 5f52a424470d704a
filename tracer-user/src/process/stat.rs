//! What the kernel says of a process in one line.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;

use super::clock::boot_ns;

/// A kernel thread's flag in `/proc/PID/stat` (`PF_KTHREAD`).
const PF_KTHREAD: u64 = 0x0020_0000;
/// Nanoseconds of one.
const SECOND: u64 = 1_000_000_000;

/// The fields of `/proc/PID/stat` that we use (`man 5 proc_pid_stat`).
pub struct Stat {
    /// What the kernel calls it.
    pub name: String,
    state: char,
    /// The process that made it, or has taken it over.
    pub parent: u32,
    flags: u64,
    /// How many threads it has.
    pub threads: u64,
    /// When it started, clock ticks since the machine's start.
    pub started: u64,
}

impl Stat {
    /// Whether its main thread has ended.
    pub const fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Whether any of its threads has yet to end.
    pub const fn is_living(&self) -> bool {
        !self.is_zombie() || self.threads > 1
    }

    /// Whether it is one of the kernel's threads.
    pub const fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// For how long it has run.
    pub fn age(&self) -> Duration {
        let tick = SECOND / clock_ticks_per_second();
        let started = self.started.saturating_mul(tick);
        Duration::from_nanos(boot_ns().saturating_sub(started))
    }

    /// Reads them.
    ///
    /// # Errors
    /// Fails if there is no such process.
    pub fn read(pid: u32) -> Result<Self> {
        let text = std::fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&String::from_utf8_lossy(&text)).context("/proc/PID/stat has an unknown form")
    }

    fn parse(text: &str) -> Option<Self> {
        // The name stands in parentheses and may contain anything.
        let (name, fields) = text.rsplit_once(')')?;
        let (_, name) = name.split_once('(')?;
        let mut fields = fields.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let flags = fields.nth(4)?.parse().ok()?;
        let threads = fields.nth(10)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        Some(Self {
            name: name.to_owned(),
            state,
            parent,
            flags,
            threads,
            started,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_parentheses_and_spaces() {
        let text = "12 (a) b (c) S 1 12 12 0 -1 2097152 1 2 3 4 5 6 7 8 20 0 1 0 777 9";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat.name, "a) b (c");
        assert_eq!(
            (stat.state, stat.flags, stat.threads, stat.started),
            ('S', PF_KTHREAD, 1, 777)
        );
    }

    #[test]
    fn a_process_is_as_old_as_the_time_since_it_began() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let age = Stat::read(child.id()).unwrap().age();
        child.kill().unwrap();
        child.wait().unwrap();
        // The kernel counts in ticks of 10 ms.
        assert!(age > Duration::from_millis(180), "{age:?}");
        assert!(age < Duration::from_secs(60), "{age:?}");
    }
}
