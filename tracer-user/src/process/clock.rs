//! The clock of every time in user space.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Now on `CLOCK_MONOTONIC`, nanoseconds: the clock of `bpf_ktime_get_ns` and
/// of every [`CodeEvent`](super::watch::CodeEvent).
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The processor time of the current thread, nanoseconds: others that run meanwhile do
/// not count.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000) + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Processor time that a process has used, all its threads; `None` if it is gone.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let mut clock = 0;
    // SAFETY: a valid pointer to a local.
    let found = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid pointer to a local.
    if found != 0 || unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Some(Duration::new(time.tv_sec.unsigned_abs(), nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back() {
        let first = monotonic_ns();
        assert!(first > 0);
        assert!(monotonic_ns() >= first);
        let first = thread_cpu_ns();
        assert!(first > 0 && thread_cpu_ns() >= first);
    }
}
