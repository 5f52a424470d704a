//! Whether a process can be traced, found before anything is attached.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, bail};

use crate::process::handle::ProcessHandle;
use crate::process::life::Life;
use crate::process::stat::Stat;
use crate::process::translator;

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
        if stat.is_kernel_thread() {
            bail!("process {pid} is a kernel thread; unfreed traces the memory of programs");
        }
        if stat.is_zombie() {
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
        stat.is_ok_and(|stat| stat.is_zombie() && stat.threads > 1) && self.is_alive()
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
    fn kernel_threads_are_refused() {
        let error = Target::find(2).unwrap_err().to_string();
        assert!(error.contains("kernel thread"), "{error}");
    }

    #[test]
    fn we_can_be_traced_and_are_alive() {
        assert!(Target::find(std::process::id()).unwrap().is_alive());
    }
}
