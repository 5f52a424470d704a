//! Whether a process can be traced, found before anything is attached.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, bail};

use crate::process::handle::ProcessHandle;
use crate::process::life::Life;
use crate::process::translator;

/// A kernel thread's flag in `/proc/PID/stat` (`PF_KTHREAD`).
const PF_KTHREAD: u64 = 0x0020_0000;

/// A living process that can be traced.
#[derive(Debug, Clone)]
pub struct Target {
    /// The process id in our namespace.
    pub pid: u32,
    /// Whether nobody has asked for it but as a descendant of another.
    pub descends: bool,
    /// Until its end is seen; never that of another which gets the same pid later.
    life: Option<Life>,
}

impl Target {
    /// Looks at a process.
    ///
    /// # Errors
    /// Says why it cannot be traced, and what to do.
    pub fn find(pid: u32) -> Result<Self> {
        let nobody = || format!("there is no process {pid}; `pgrep -a NAME` finds one by name");
        let stat = Stat::read(pid).with_context(nobody)?;
        if stat.flags & PF_KTHREAD != 0 {
            bail!("process {pid} is a kernel thread; unfreed traces the memory of programs");
        }
        if stat.state == 'Z' || stat.state == 'X' {
            bail!("process {pid} has exited already (it is a zombie until its parent asks for it)");
        }
        let leader = thread_group(pid)?;
        if leader != pid {
            bail!("{pid} is a thread of process {leader}; give that pid: -p {leader}");
        }
        let life = Life::of(pid).with_context(nobody)?;
        if elf_class(pid)? == 1 {
            bail!("process {pid} is a 32-bit program; unfreed traces 64-bit x86-64 programs");
        }
        if let Some(translator) = translator::of_process(&ProcessHandle::open(pid)?)? {
            bail!(
                "process {pid} runs under {translator}, which would take the kernel's breakpoints for the program's own code, and the program would die of SIGTRAP; trace it without {translator}"
            );
        }
        Ok(Self {
            pid,
            descends: false,
            life: Some(life),
        })
    }

    /// The same, found as a descendant.
    pub fn found_as_descendant(self) -> Self {
        Self {
            descends: true,
            ..self
        }
    }

    /// When a process started, if it has not ended: with the pid that tells it
    /// from any other. Clock ticks since the machine's start.
    pub(super) fn start_of_living(pid: u32) -> Option<u64> {
        let stat = Stat::read(pid).ok()?;
        stat.is_living().then_some(stat.started)
    }

    /// Whether it has not ended. It may outlive its main thread, which is a zombie until the
    /// last of the others ends.
    pub fn is_alive(&self) -> bool {
        self.life.as_ref().is_some_and(|life| !life.has_ended())
    }

    /// Its end was seen, or nobody asks for it any more.
    pub fn end(&mut self) {
        self.life = None;
    }

    /// Whether that was noted.
    pub fn has_ended(&self) -> bool {
        self.life.is_none()
    }

    /// Whether its main thread has ended before others.
    pub fn has_outlived_its_main_thread(&self) -> bool {
        let stat = Stat::read(self.pid);
        stat.is_ok_and(|stat| matches!(stat.state, 'Z' | 'X') && stat.threads > 1)
            && self.is_alive()
    }
}

/// The fields of `/proc/PID/stat` that we use (`man 5 proc_pid_stat`).
pub struct Stat {
    /// What the kernel calls it.
    pub name: String,
    state: char,
    /// The process that made it, or has taken it over.
    pub parent: u32,
    flags: u64,
    threads: u64,
    /// When it started, clock ticks since the machine's start.
    pub started: u64,
}

impl Stat {
    /// Whether any of its threads has yet to end.
    fn is_living(&self) -> bool {
        !matches!(self.state, 'Z' | 'X') || self.threads > 1
    }

    /// Whether it is one of the kernel's threads.
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
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

fn thread_group(pid: u32) -> Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|value| value.trim().parse().ok())
        .context("/proc/PID/status has no Tgid")
}

/// Byte 4 of the executable: 1 for 32-bit programs, 2 for 64-bit ones.
fn elf_class(pid: u32) -> Result<u8> {
    let mut header = [0u8; 5];
    File::open(format!("/proc/{pid}/exe"))
        .and_then(|mut file| file.read_exact(&mut header))
        .with_context(|| {
            format!("cannot read the executable of process {pid} (needs root, or CAP_SYS_PTRACE)")
        })?;
    Ok(header[4])
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
    fn kernel_threads_are_refused() {
        let error = Target::find(2).unwrap_err().to_string();
        assert!(error.contains("kernel thread"), "{error}");
    }

    #[test]
    fn we_can_be_traced_and_are_alive() {
        assert!(Target::find(std::process::id()).unwrap().is_alive());
    }
}
