//! What one look may cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Pieces of work between two looks at the clock.
const BETWEEN: u32 = 64;

/// Processor time that a thread may use from now on.
#[derive(Debug)]
pub struct Budget {
    end: Duration,
    until_look: u32,
    is_over: bool,
    is_off: Arc<AtomicBool>,
}

impl Budget {
    /// For the thread that calls it. It is over, too, when `is_off` says so.
    pub fn new(time: Duration, is_off: Arc<AtomicBool>) -> Self {
        Self {
            end: used().saturating_add(time),
            until_look: 0,
            is_over: false,
            is_off,
        }
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
    fn it_is_over_when_it_is_called_off() {
        let is_off = Arc::new(AtomicBool::new(false));
        let mut budget = Budget::new(Duration::MAX, Arc::clone(&is_off));
        assert!(!budget.is_over());
        is_off.store(true, Ordering::Relaxed);
        assert!((0..=BETWEEN).any(|_| budget.is_over()));
    }
}
