//! Processor time of other processes, and of what this thread does.

use std::time::Duration;

/// Processor time that a process has used, all its threads, as of the kernel's last tick
/// (some milliseconds ago); `None` if it is gone.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let mut clock = 0;
    // SAFETY: a valid pointer to a local.
    let found = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
    if found == 0 { read(clock) } else { None }
}

/// Processor time that this thread has used.
pub fn own_thread_time() -> Duration {
    // Everybody has that clock.
    read(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

/// What this thread does from a moment on, in its own processor time: on a machine that is busy
/// with others it takes no more.
#[derive(Debug, Clone, Copy)]
pub struct Work(Duration);

impl Work {
    /// It begins.
    pub fn begin() -> Self {
        Self(own_thread_time())
    }

    /// What it has taken until now.
    pub fn taken(self) -> Duration {
        own_thread_time().saturating_sub(self.0)
    }
}

fn read(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid pointer to a local.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Some(Duration::new(time.tv_sec.unsigned_abs(), nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_uses_time_and_one_that_is_gone_has_none() {
        let own = std::process::id();
        let before = cpu_time(own).unwrap();
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_millis(20) {}
        assert!(cpu_time(own).unwrap() > before);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = child.id();
        child.wait().unwrap();
        assert_eq!(cpu_time(id), None);
    }

    #[test]
    fn who_waits_does_no_work() {
        let (work, begin) = (Work::begin(), std::time::Instant::now());
        std::thread::sleep(Duration::from_millis(50));
        assert!(work.taken() < begin.elapsed() / 2, "{:?}", work.taken());
    }
}
