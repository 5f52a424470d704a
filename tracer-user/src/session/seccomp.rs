//! Processes with a system call filter (seccomp).
//!
//! From kernel 6.11 on the trampoline of return probes makes a system call of
//! its own, `uretprobe`. Kernels before 6.14 show it to the process's filter
//! (unless the fix, "seccomp: passthrough uretprobe systemcall without
//! filtering", was brought to them), and a filter that does not know it kills.
//! What a kernel does is found out on a child of ours.

use std::arch::naked_asm;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::pipe::{PipeFlags, pipe_with};
use tracer_ebpf::call::Function;

use crate::engine::calibrate::file_offset;
use crate::kernel::memory::release;
use crate::kernel::object::Object;
use crate::kernel::program::{Moment, Place};
use crate::process::status::any_thread;

/// The first kernel whose return probes make a system call, and the first that
/// keeps it from filters.
const CALLS: (u32, u32) = (6, 11);
const FIXED: (u32, u32) = (6, 14);

/// The child makes a handful of system calls.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether this kernel may be one whose return probes kill, by its release.
///
/// # Errors
/// Fails if the release is not of the usual form.
pub fn may_kill() -> Result<bool> {
    Ok((CALLS..FIXED).contains(&release()?))
}

/// Whether any thread of a process has a filter.
pub fn has_filter(pid: u32) -> bool {
    any_thread(pid, |status| mode(status).is_some_and(|mode| mode != 0))
}

/// The mode in a thread's `status`: 0 none, 1 strict, 2 a filter.
fn mode(status: &str) -> Option<u32> {
    let line = |line: &str| line.strip_prefix("Seccomp:")?.trim().parse().ok();
    status.lines().find_map(line)
}

/// Whether a return probe kills a process with a filter here.
///
/// # Errors
/// Fails if it cannot be tried.
pub fn return_probe_kills(object: &mut Object) -> Result<bool> {
    if release()? < CALLS {
        return Ok(false);
    }
    let offset = file_offset(tried as *const () as u64)?;
    // Any program does: the child has no call in flight.
    let place = [Place::new(Some(Function::Malloc), offset)];
    object.load_programs(Moment::Return, &place)?;
    dies_in(tried, |pid| {
        let executable = Path::new("/proc/self/exe");
        object.attach(Moment::Return, &place, executable, Some(pid))
    })
}

/// A function with a return probe.
#[unsafe(naked)]
extern "C" fn tried() {
    naked_asm!("push rbp", "pop rbp", "ret")
}

/// Whether a child of ours dies of its filter when it calls a function, once
/// `prepare` has had its process id.
fn dies_in<T>(function: extern "C" fn(), prepare: impl FnOnce(u32) -> Result<T>) -> Result<bool> {
    let (wait, go) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    let filter = filter();
    // SAFETY: the child only makes system calls, and ends.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => child(&wait, &go, &filter, function),
        -1 => return Err(io::Error::last_os_error()).context("cannot make a child"),
        _ => {}
    }
    drop(wait);
    let prepared = prepare(pid.cast_unsigned());
    // If it was not prepared, the child sees the pipe close, and ends.
    let told = match &prepared {
        Ok(_) => rustix::io::write(&go, &[1]).map(drop),
        Err(_) => Ok(()),
    };
    drop(go);
    let status = wait_for(pid);
    prepared?;
    told.context("cannot tell the child")?;
    let status = status?;
    if libc::WIFSIGNALED(status) {
        return Ok(true);
    }
    if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        bail!("the child could not set up a filter");
    }
    Ok(false)
}

/// Steps of the filter.
const STEPS: u16 = 4;

/// What the child does: it waits, sets up the filter, calls the function, ends.
fn child(
    wait: &OwnedFd,
    go: &OwnedFd,
    filter: &[libc::sock_filter; STEPS as usize],
    function: extern "C" fn(),
) -> ! {
    let mut byte = 0u8;
    let program = libc::sock_fprog {
        len: STEPS,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: system calls on our own copies of descriptors and on locals. A
    // signal handler of ours that might run does not return to the tracer.
    unsafe {
        libc::close(go.as_raw_fd());
        if libc::read(wait.as_raw_fd(), (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(1);
        }
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            libc::_exit(1);
        }
        let mode = libc::SECCOMP_MODE_FILTER;
        if libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) != 0 {
            libc::_exit(1);
        }
        function();
        libc::_exit(0)
    }
}

/// A filter that kills at all but the end.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the codes have 16 bits, and the number is 231"
)]
fn filter() -> [libc::sock_filter; STEPS as usize] {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, skip_if_not, k| libc::sock_filter {
        code,
        jt: 0,
        jf: skip_if_not,
        k,
    };
    [
        // The number is first in `seccomp_data`.
        step(LOAD, 0, 0),
        step(IS, 1, libc::SYS_exit_group as u32),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ]
}

/// Waits for the child's end.
fn wait_for(pid: i32) -> Result<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut status = 0;
        let late = Instant::now() > deadline;
        if late {
            // SAFETY: our own child, which was not waited for yet.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let flags = if late { 0 } else { libc::WNOHANG };
        // SAFETY: a valid pointer to a local.
        match unsafe { libc::waitpid(pid, &raw mut status, flags) } {
            0 => std::thread::sleep(Duration::from_millis(1)),
            found if found == pid && late => bail!("the child did not end"),
            found if found == pid => return Ok(status),
            _ => return Err(io::Error::last_os_error()).context("cannot wait for the child"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[unsafe(naked)]
    extern "C" fn asks_for_its_number() {
        // getpid
        naked_asm!("mov eax, 39", "syscall", "ret")
    }

    /// As the trampoline's system call does where it is shown to filters.
    #[test]
    fn a_child_that_makes_another_system_call_dies() {
        assert!(dies_in(asks_for_its_number, |_| Ok(())).unwrap());
        assert!(!dies_in(tried, |_| Ok(())).unwrap());
        assert!(dies_in(tried, |_| bail!("no probe") as Result<()>).is_err());
    }

    #[test]
    fn modes_are_read_and_we_have_no_filter() {
        assert_eq!(
            mode("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"),
            Some(2)
        );
        assert_eq!(mode("Seccomp_filters:\t1\n"), None);
        assert!(!has_filter(std::process::id()));
    }
}
