//! What one look may cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::heaps::MAX_CHUNKS as MAX_BLOCKS;

/// Pieces of work between two looks at the clock.
const BETWEEN: u32 = 64;

/// Processor time that a look has in any case: for some millions of small blocks.
const LEAST: Duration = Duration::from_secs(2);

/// What a search may take of processor time: it has two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// For each GiB that is searched.
    pub per_gib: Duration,
    /// And no more than this, however much there is.
    pub at_most: Duration,
    /// Blocks from before the run whose bounds are kept of a process: some 90 bytes each.
    pub blocks: usize,
}

impl Allowance {
    /// So much for each GiB, without an end.
    pub const fn per_gib(per_gib: Duration) -> Self {
        Self {
            per_gib,
            at_most: Duration::MAX,
            blocks: MAX_BLOCKS,
        }
    }

    /// That of each of so many processes.
    #[must_use]
    pub fn among(self, processes: usize) -> Self {
        let processes = u32::try_from(processes).unwrap_or(u32::MAX).max(1);
        Self {
            at_most: self.at_most / processes,
            ..self
        }
    }

    /// That of one look at so many bytes.
    pub fn of_look(self, bytes: u64) -> Duration {
        let part = bytes as f64 / f64::from(1 << 30) / 2.0;
        let time = self.per_gib.mul_f64(part.min(1e6));
        time.max(LEAST).min(self.at_most / 2)
    }
}

/// Processor time that a thread may use.
#[derive(Debug)]
pub struct Budget {
    begin: Duration,
    end: Duration,
    until_look: u32,
    is_over: bool,
    is_off: Arc<AtomicBool>,
}

impl Budget {
    /// For the thread that calls it, from now on. It is over, too, when `is_off` says so.
    pub fn new(time: Duration, is_off: Arc<AtomicBool>) -> Self {
        let begin = used();
        Self {
            begin,
            end: begin.saturating_add(time),
            until_look: 0,
            is_over: false,
            is_off,
        }
    }

    /// It is another one from its beginning on: what was used since counts, for half of it at most.
    pub fn set(&mut self, time: Duration) {
        let half = used().saturating_add(time / 2);
        self.end = self.begin.saturating_add(time).max(half);
        self.until_look = 0;
    }

    /// Whether it is used up. The clock is read now and then.
    pub fn is_over(&mut self) -> bool {
        match self.until_look {
            0 => {
                self.until_look = BETWEEN;
                self.is_over |= used() >= self.end || self.is_off.load(Ordering::Relaxed);
            }
            _ => self.until_look -= 1,
        }
        self.is_over
    }
}

/// Processor time of this thread.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(time.tv_sec.unsigned_abs(), nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_used_up_by_work() {
        let budget = |time| Budget::new(time, Arc::default());
        let mut short = budget(Duration::from_millis(5));
        assert!(!short.is_over());
        while !short.is_over() {}
        assert!(budget(Duration::ZERO).is_over());
        assert!(!budget(Duration::MAX).is_over());
    }

    #[test]
    fn what_was_used_before_it_was_set_counts() {
        let mut budget = Budget::new(Duration::MAX, Arc::default());
        let begin = used();
        while used() < begin + Duration::from_millis(5) {
            assert!(!budget.is_over());
        }
        budget.set(Duration::from_millis(4));
        assert!(budget.end < begin + Duration::from_secs(1));
        assert!(
            budget.end >= begin + Duration::from_millis(7),
            "half is left"
        );
        budget.set(Duration::ZERO);
        assert!(budget.is_over());
    }

    #[test]
    fn a_look_has_half_of_what_a_search_may_take() {
        let free = Allowance::per_gib(Duration::from_secs(20));
        assert_eq!(free.of_look(0), LEAST);
        assert_eq!(free.of_look(1 << 30), Duration::from_secs(10));
        let bounded = Allowance {
            at_most: Duration::from_secs(6),
            ..free
        };
        assert_eq!(bounded.of_look(1 << 40), Duration::from_secs(3));
        assert_eq!(bounded.among(6).of_look(0), Duration::from_millis(500));
        assert_eq!(bounded.among(0), bounded);
    }

    #[test]
    fn it_is_over_when_it_is_called_off() {
        let is_off = Arc::new(AtomicBool::new(false));
        let mut budget = Budget::new(Duration::MAX, Arc::clone(&is_off));
        assert!(!budget.is_over());
        is_off.store(true, Ordering::Relaxed);
        assert!((0..=BETWEEN).any(|_| budget.is_over()));
    }
}
