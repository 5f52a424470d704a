//! What is asked of the kernel by ptrace(2) and wait(2).

use std::io;

use libc::c_int;

/// A thread that somebody has to see to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The thread.
    pub thread: i32,
    /// As `wait` tells it.
    pub raw: c_int,
}

/// What waiting brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// A thread stopped or ended.
    Status(Status),
    /// Nothing happened yet.
    Nothing,
    /// A signal came to ourselves.
    Interrupted,
    /// There is no thread to wait for any more.
    Nobody,
}

/// What a stop or an end is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The thread ended. If it is a process's first, the process did.
    End,
    /// It called `exec`.
    Exec,
    /// It made a thread, or a process that is told of by another signal than
    /// `SIGCHLD`.
    Clone,
    /// It made a process.
    Fork,
    /// It is about to end; its memory is there still.
    Exiting,
    /// It is new, or its stop by a signal is over.
    Begin,
    /// A signal has stopped its process.
    Stopped,
    /// It entered or left a system call.
    Call,
    /// It is about to get a signal.
    Signal(c_int),
}

/// What a stop after a system call looks like (`PTRACE_O_TRACESYSGOOD`).
const CALL_STOP: c_int = libc::SIGTRAP | 0x80;

impl Status {
    /// What it is about.
    pub fn reason(self) -> Reason {
        if !libc::WIFSTOPPED(self.raw) {
            return Reason::End;
        }
        let signal = libc::WSTOPSIG(self.raw);
        match self.raw >> 16 {
            libc::PTRACE_EVENT_EXEC => Reason::Exec,
            libc::PTRACE_EVENT_CLONE => Reason::Clone,
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => Reason::Fork,
            libc::PTRACE_EVENT_EXIT => Reason::Exiting,
            libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Reason::Begin,
            libc::PTRACE_EVENT_STOP => Reason::Stopped,
            0 if signal == CALL_STOP => Reason::Call,
            0 => Reason::Signal(signal),
            _ => Reason::Begin,
        }
    }
}

/// Waits for any thread that this thread traces.
pub fn wait(blocks: bool) -> Waited {
    let mut raw = 0;
    let flags = libc::__WALL | libc::__WNOTHREAD | if blocks { 0 } else { libc::WNOHANG };
    // SAFETY: a valid pointer to a local.
    let thread = unsafe { libc::waitpid(-1, &raw mut raw, flags) };
    waited(thread, raw)
}

/// The same for one thread, whose end is left for others to wait for.
pub fn wait_to_stop(thread: i32, blocks: bool) -> Waited {
    // SAFETY: an all-zero siginfo is valid, and the call fills it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let how = if blocks { 0 } else { libc::WNOHANG };
    let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT | libc::__WALL | how;
    let id = thread.cast_unsigned();
    // SAFETY: a valid pointer to a local.
    if unsafe { libc::waitid(libc::P_PID, id, &raw mut info, flags) } != 0 {
        return waited(-1, 0);
    }
    // SAFETY: the call filled it.
    if unsafe { info.si_pid() } == 0 {
        return Waited::Nothing;
    }
    if info.si_code != libc::CLD_TRAPPED && info.si_code != libc::CLD_STOPPED {
        return Waited::Nobody;
    }
    let mut raw = 0;
    let flags = libc::__WALL | libc::WNOHANG | libc::WUNTRACED;
    // SAFETY: a valid pointer to a local; the thread is stopped.
    let thread = unsafe { libc::waitpid(thread, &raw mut raw, flags) };
    waited(thread, raw)
}

fn waited(thread: i32, raw: c_int) -> Waited {
    match thread {
        0 => Waited::Nothing,
        -1 if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => Waited::Interrupted,
        -1 => Waited::Nobody,
        thread => Waited::Status(Status { thread, raw }),
    }
}

/// Begins to trace a process, without stopping it.
///
/// # Errors
/// Fails if that is not allowed.
pub fn seize(process: i32, options: c_int) -> io::Result<()> {
    request(
        libc::PTRACE_SEIZE,
        process,
        0,
        u64::from(options.cast_unsigned()),
    )
}

/// Lets a stopped thread go on until `how` says, with a signal or (0) without.
/// One that was killed meanwhile needs nothing.
pub fn go_on(how: libc::c_uint, thread: i32, signal: c_int) {
    let _gone = request(how, thread, 0, u64::from(signal.cast_unsigned()));
}

/// The thread that an event is about.
pub fn message(thread: i32) -> Option<i32> {
    let mut message: libc::c_ulong = 0;
    let address = (&raw mut message) as u64;
    request(libc::PTRACE_GETEVENTMSG, thread, 0, address).ok()?;
    i32::try_from(message).ok()
}

/// Where the signal comes from that a thread is about to get (`si_code`).
pub fn signal_code(thread: i32) -> Option<c_int> {
    // SAFETY: an all-zero siginfo is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let address = (&raw mut info) as u64;
    request(libc::PTRACE_GETSIGINFO, thread, 0, address).ok()?;
    Some(info.si_code)
}

/// A thread's registers.
pub fn registers(thread: i32) -> Option<libc::user_regs_struct> {
    // SAFETY: all-zero registers are valid.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let address = (&raw mut registers) as u64;
    request(libc::PTRACE_GETREGS, thread, 0, address).ok()?;
    Some(registers)
}

fn request(request: libc::c_uint, thread: i32, address: u64, data: u64) -> io::Result<()> {
    // SAFETY: of the requests of this module only those write through `data`
    // that are given a local of the right size.
    let result = unsafe { libc::ptrace(request, thread, address, data) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_it_is_about() {
        let stop = |signal: c_int, event: c_int| (event << 16) | (signal << 8) | 0x7f;
        for (raw, reason) in [
            (7 << 8, Reason::End),
            (libc::SIGKILL, Reason::End),
            (stop(libc::SIGTRAP, libc::PTRACE_EVENT_EXEC), Reason::Exec),
            (stop(libc::SIGTRAP, libc::PTRACE_EVENT_VFORK), Reason::Fork),
            (stop(libc::SIGTRAP, libc::PTRACE_EVENT_STOP), Reason::Begin),
            (
                stop(libc::SIGTSTP, libc::PTRACE_EVENT_STOP),
                Reason::Stopped,
            ),
            (stop(CALL_STOP, 0), Reason::Call),
            (stop(libc::SIGTRAP, 0), Reason::Signal(libc::SIGTRAP)),
            (stop(libc::SIGSTOP, 0), Reason::Signal(libc::SIGSTOP)),
        ] {
            assert_eq!(Status { thread: 1, raw }.reason(), reason, "{raw:#x}");
        }
    }
}
