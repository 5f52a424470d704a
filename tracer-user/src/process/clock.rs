//! The clock of every time in user space.

use rustix::time::{ClockId, clock_gettime};

/// Now on `CLOCK_MONOTONIC`, nanoseconds: the clock of `bpf_ktime_get_ns` and
/// of every [`CodeEvent`](super::watch::CodeEvent).
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
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
    }
}
