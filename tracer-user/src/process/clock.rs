//! The clock of every time in user space.

use rustix::time::{ClockId, clock_gettime};

/// Now on `CLOCK_MONOTONIC`, nanoseconds: the clock of `bpf_ktime_get_ns` and
/// of every [`CodeEvent`](super::watch::CodeEvent).
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The time since the machine's start, nanoseconds, also while it slept: the clock of a
/// process's start in `/proc/PID/stat`.
pub fn boot_ns() -> u64 {
    nanoseconds(ClockId::Boottime)
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
