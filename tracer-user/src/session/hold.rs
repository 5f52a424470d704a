//! Holding a program of ours while it starts.
//!
//! Between `exec` and its first own instruction a program maps its libraries
//! within a millisecond, and runs their constructors. So that no stack ends
//! in code that nobody has told the kernel side of, the program waits after
//! each such mapping until that is done. This is ptrace(2), from `exec` to the
//! program's entry point, which a debug register finds: no signal reaches the
//! program and nothing is written to its memory.

use std::io;
use std::mem::offset_of;
use std::time::{Duration, Instant};

use anyhow::Result;

/// A program that does not reach its entry point by then goes on alone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a stop after a system call looks like (`PTRACE_O_TRACESYSGOOD`).
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;

/// `AT_ENTRY` and `AT_BASE` of the auxiliary vector.
const AT_BASE: u64 = 7;
const AT_ENTRY: u64 = 9;

/// A process that we trace by ptrace. It goes on alone when this is dropped.
pub struct Held {
    pid: i32,
    is_in_call: bool,
    /// The signal that it is to get when it goes on, or 0.
    signal: i32,
}

/// Why a held process stopped.
enum Stop {
    /// It called `exec`.
    Exec,
    /// It mapped executable memory.
    Code,
    /// It is about to get a signal.
    Signal(i32),
    /// Nothing of interest.
    Other,
    /// It ended.
    End,
}

impl Held {
    /// Takes hold of a child that waits to call `exec`; `None` where that is
    /// not allowed. It goes on as before.
    pub fn take(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let options = libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACESYSGOOD;
        let held = Self {
            pid,
            is_in_call: false,
            signal: 0,
        };
        held.request(libc::PTRACE_SEIZE, 0, u64::from(options.cast_unsigned()))
            .ok()?;
        Some(held)
    }

    /// Follows the child, which was told to call `exec`, to its entry point.
    /// `look` is called whenever it has new code, while it waits.
    ///
    /// # Errors
    /// Fails only if `look` does.
    pub fn follow(mut self, mut look: impl FnMut() -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut entry = None;
        while Instant::now() < deadline {
            let signal = match self.wait(deadline) {
                Stop::End => return Ok(()),
                Stop::Exec => {
                    look()?;
                    entry = self.watch_entry();
                    if entry.is_none() {
                        return Ok(());
                    }
                    0
                }
                Stop::Code => {
                    look()?;
                    0
                }
                Stop::Signal(libc::SIGTRAP) if entry.is_some() && self.ip() == entry => {
                    look()?;
                    return Ok(());
                }
                Stop::Signal(signal) => signal,
                Stop::Other => 0,
            };
            let how = if entry.is_some() {
                libc::PTRACE_SYSCALL
            } else {
                libc::PTRACE_CONT
            };
            if self
                .request(how, 0, u64::from(signal.cast_unsigned()))
                .is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for the next stop.
    fn wait(&mut self, deadline: Instant) -> Stop {
        while Instant::now() < deadline {
            let Some(status) = self.peek() else {
                std::thread::sleep(Duration::from_micros(20));
                continue;
            };
            return self.reason(status);
        }
        Stop::End
    }

    /// The status of a stop, or of the end, which is left to be waited for.
    fn peek(&self) -> Option<i32> {
        // SAFETY: an all-zero siginfo is valid, and the call fills it.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        // SAFETY: a valid pointer to a local.
        let result =
            unsafe { libc::waitid(libc::P_PID, self.pid.cast_unsigned(), &raw mut info, flags) };
        if result != 0 {
            return Some(-1);
        }
        // SAFETY: the call filled it.
        if unsafe { info.si_pid() } == 0 {
            return None;
        }
        if info.si_code != libc::CLD_TRAPPED && info.si_code != libc::CLD_STOPPED {
            return Some(-1);
        }
        let mut status = 0;
        // SAFETY: a valid pointer to a local; the child is stopped.
        unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL | libc::WNOHANG) };
        Some(status)
    }

    fn reason(&mut self, status: i32) -> Stop {
        if status == -1 || !libc::WIFSTOPPED(status) {
            return Stop::End;
        }
        let event = status >> 16;
        match libc::WSTOPSIG(status) {
            SYSCALL_STOP => {
                self.is_in_call = !self.is_in_call;
                if !self.is_in_call && self.mapped_code() {
                    Stop::Code
                } else {
                    Stop::Other
                }
            }
            libc::SIGTRAP if event == libc::PTRACE_EVENT_EXEC => {
                // Its return from exec is the next stop of a system call.
                self.is_in_call = true;
                Stop::Exec
            }
            _ if event != 0 => Stop::Other,
            signal => Stop::Signal(signal),
        }
    }

    /// Whether the system call that just returned mapped executable memory.
    fn mapped_code(&self) -> bool {
        let Some(registers) = self.registers() else {
            return false;
        };
        let is = |number: libc::c_long| registers.orig_rax.cast_signed() == number;
        let is_executable = registers.rdx & libc::PROT_EXEC as u64 != 0;
        (is(libc::SYS_mmap) || is(libc::SYS_mprotect)) && is_executable
    }

    fn ip(&self) -> Option<u64> {
        Some(self.registers()?.rip)
    }

    fn registers(&self) -> Option<libc::user_regs_struct> {
        // SAFETY: all-zero registers are valid.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let address = (&raw mut registers) as u64;
        self.request(libc::PTRACE_GETREGS, 0, address).ok()?;
        Some(registers)
    }

    /// Has the child stop at its entry point, which is returned; `None` if it
    /// is there already (no loader runs before it) or cannot be watched.
    fn watch_entry(&self) -> Option<u64> {
        let vector = std::fs::read(format!("/proc/{}/auxv", self.pid)).ok()?;
        if auxiliary(&vector, AT_BASE)? == 0 {
            return None;
        }
        let entry = auxiliary(&vector, AT_ENTRY)?;
        self.set_debug_register(0, entry).ok()?;
        // Register 0, locally, when an instruction is executed.
        self.set_debug_register(7, 1).ok()?;
        Some(entry)
    }

    fn set_debug_register(&self, number: usize, value: u64) -> io::Result<()> {
        let offset = offset_of!(libc::user, u_debugreg) + number * size_of::<u64>();
        self.request(libc::PTRACE_POKEUSER, offset as u64, value)
    }

    /// Detaches, and hands on the signal that a stop was about.
    fn let_go(&self) -> io::Result<()> {
        // A program that has not called `exec` yet has no breakpoint.
        let _ = self.set_debug_register(7, 0);
        let signal = u64::from(self.signal.cast_unsigned());
        self.request(libc::PTRACE_DETACH, 0, signal)
    }

    fn request(&self, request: libc::c_uint, address: u64, data: u64) -> io::Result<()> {
        // SAFETY: requests of this module write to `data` only as GETREGS,
        // which is given a local of the right size.
        let result = unsafe { libc::ptrace(request, self.pid, address, data) };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Only who is stopped can be let go. Who is gone needs nothing.
        if self.let_go().is_err() && self.request(libc::PTRACE_INTERRUPT, 0, 0).is_ok() {
            let signal = match self.wait(Instant::now() + PATIENCE) {
                Stop::Signal(signal) => signal,
                _ => 0,
            };
            self.signal = signal;
            let _ = self.let_go();
        }
    }
}

/// An entry of an auxiliary vector: pairs of words, a kind and a value.
fn auxiliary(vector: &[u8], kind: u64) -> Option<u64> {
    let (words, _) = vector.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_ne_bytes(*word));
    while let (Some(found), Some(value)) = (words.next(), words.next()) {
        if found == kind {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privilege::program::Rights;
    use crate::session::launch::Waiting;

    fn followed(command: &[&str]) -> (usize, Option<i32>) {
        let command: Vec<_> = command.iter().map(Into::into).collect();
        let waiting = Waiting::fork(&command, Rights::own()).unwrap();
        let held = Held::take(waiting.pid).unwrap();
        let mut child = waiting.start().unwrap();
        let mut looks = 0;
        held.follow(|| {
            looks += 1;
            Ok(())
        })
        .unwrap();
        (looks, child.wait().unwrap().code())
    }

    #[test]
    fn a_program_is_followed_to_its_entry_and_goes_on() {
        let (looks, code) = followed(&["/bin/sh", "-c", "exit 7"]);
        assert!(looks >= 3, "exec, libc and the entry: {looks}");
        assert_eq!(code, Some(7));
    }

    #[test]
    fn a_program_that_is_killed_meanwhile_is_left_to_its_parent() {
        let waiting = Waiting::fork(&["/bin/cat".into()], Rights::own()).unwrap();
        let held = Held::take(waiting.pid).unwrap();
        let mut child = waiting.start().unwrap();
        child.kill().unwrap();
        held.follow(|| Ok(())).unwrap();
        assert_eq!(child.wait().unwrap().code(), None);
    }

    #[test]
    fn a_program_that_is_let_go_while_it_runs_goes_on() {
        let waiting = Waiting::fork(&["/bin/sleep".into(), "0.2".into()], Rights::own()).unwrap();
        let mut held = Held::take(waiting.pid).unwrap();
        let mut child = waiting.start().unwrap();
        assert!(matches!(held.wait(Instant::now() + PATIENCE), Stop::Exec));
        held.request(libc::PTRACE_CONT, 0, 0).unwrap();
        drop(held);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }

    #[test]
    fn the_auxiliary_vector_is_pairs_of_words() {
        let words = [6u64, 4096, 9, 0x1234, 0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(auxiliary(&bytes, 9), Some(0x1234));
        assert_eq!(auxiliary(&bytes, 7), None);
    }
}
