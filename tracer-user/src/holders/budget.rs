//! What one look may cost.

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
}

impl Budget {
    /// For the thread that calls it.
    pub fn new(time: Duration) -> Self {
        Self {
            end: used().saturating_add(time),
            until_look: 0,
            is_over: false,
        }
    }

    /// Whether it is used up. The clock is read now and then.
    pub fn is_over(&mut self) -> bool {
        match self.until_look {
            0 => {
                self.until_look = BETWEEN;
                self.is_over = self.is_over || used() >= self.end;
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
        let mut budget = Budget::new(Duration::from_millis(5));
        assert!(!budget.is_over());
        while !budget.is_over() {}
        assert!(Budget::new(Duration::ZERO).is_over());
        assert!(!Budget::new(Duration::MAX).is_over());
    }
}
