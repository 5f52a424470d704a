//! Whether something grows, so that it is worth to look closer.

use std::collections::VecDeque;

/// For how long a rise is one, seconds: what is in memory now is compared with the half
/// minute before the last.
const RECENT: f64 = 30.0;
/// What is told apart from noise, bytes: the kernel's quick account is summed up from parts
/// of each processor.
const NOISE: u64 = 1 << 20;
/// The same as a part of what is in memory: one in so many.
const NOISE_OF: u64 = 1000;
/// Targets that use so many times the processor time of any second lately are busier ...
const BUSIER: f64 = 2.0;
/// ... if it is more by this, seconds a second.
const MORE: f64 = 0.02;
/// That is the most of so many seconds, not their mean, since others may take the processors
/// away; and of fewer it is not known.
const LATELY: usize = 20;
const FEWEST: usize = 3;
/// For how long they are busier, seconds.
const BUSY: f64 = 10.0;

/// How much of a budget is spent on a closer look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attention {
    /// Nothing grows: a quarter. Bursts see in four minutes what they would see in one, so a
    /// leak that begins below the noise is found all the same.
    Base,
    /// Something does.
    Full,
}

impl Attention {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Full => "full",
        }
    }

    /// The part of the budget.
    pub const fn share(self) -> f64 {
        match self {
            Self::Base => 0.25,
            Self::Full => 1.0,
        }
    }
}

/// Watches what targets have in memory, and how busy they are.
#[derive(Debug, Clone, Default)]
pub struct Rise {
    /// When, seconds, and bytes in memory.
    resident: VecDeque<(f64, u64)>,
    /// Processor time that targets used in a second, lately.
    used: VecDeque<f64>,
    /// Until when they count as busier.
    busy_until: f64,
}

impl Rise {
    /// Enters what there is at a time: bytes in memory, and the processor time in each
    /// second since the time before, if that is known.
    pub fn enter(&mut self, time: f64, resident: u64, used: Option<f64>) {
        let oldest = time - 2.0 * RECENT;
        while self.resident.front().is_some_and(|(at, _)| *at < oldest) {
            self.resident.pop_front();
        }
        self.resident.push_back((time, resident));
        let Some(used) = used else {
            return;
        };
        let most = self.used.iter().copied().fold(0.0, f64::max);
        let is_known = self.used.len() >= FEWEST;
        if is_known && used > BUSIER * most && used > most + MORE {
            self.busy_until = time + BUSY;
        }
        if self.used.len() == LATELY {
            self.used.pop_front();
        }
        self.used.push_back(used);
    }

    /// How closely to look at a time.
    pub fn attention(&self, time: f64) -> Attention {
        match self.grows(time) || time < self.busy_until {
            true => Attention::Full,
            false => Attention::Base,
        }
    }

    /// Whether more was in memory lately than at any time in the half minute before: what
    /// goes up and down grows once.
    fn grows(&self, time: f64) -> bool {
        let is_recent = |at: f64| at >= time - RECENT;
        let Some((first, at_first)) = self.resident.front() else {
            return false;
        };
        let samples = self.resident.iter();
        let before = samples.clone().filter(|(at, _)| !is_recent(*at));
        let before = before.map(|(_, bytes)| *bytes).max();
        // A run that has just begun is compared with its beginning.
        let before = before.unwrap_or(*at_first);
        let recent = samples.filter(|(at, _)| is_recent(*at) && at > first);
        let recent = recent.map(|(_, bytes)| *bytes).max().unwrap_or(0);
        recent > before.saturating_add(NOISE.max(before / NOISE_OF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = (1 << 20) as f64;

    /// The attention at each second of a run.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small numbers, above zero"
    )]
    fn run(seconds: u32, resident: impl Fn(f64) -> f64, used: impl Fn(f64) -> f64) -> Vec<bool> {
        let mut rise = Rise::default();
        let mut full = Vec::new();
        for second in 0..seconds {
            let time = f64::from(second);
            let bytes = (resident(time) * MIB) as u64;
            rise.enter(time, bytes, (second > 0).then(|| used(time)));
            full.push(rise.attention(time) == Attention::Full);
        }
        full
    }

    #[test]
    fn nothing_that_grows_is_looked_at_from_time_to_time() {
        let full = run(300, |_| 500.0, |_| 0.1);
        assert!(full.iter().all(|full| !full));
        // A large load that does not grow, with the noise of the account.
        let full = run(300, |time| 500.0 + (time * 7.0).sin() * 0.2, |_| 3.9);
        assert!(full.iter().all(|full| !full));
    }

    #[test]
    fn growth_is_noticed_within_two_seconds() {
        let full = run(100, |time| 500.0 + (time - 60.0).max(0.0) * 2.0, |_| 0.1);
        assert!(full[..=60].iter().all(|full| !full));
        assert!(full[62..].iter().all(|full| *full));
        // A slow one within half a minute, and again and again.
        let full = run(600, |time| 500.0 + time * 0.1, |_| 0.1);
        assert!(full[30..].iter().all(|full| *full), "{full:?}");
    }

    #[test]
    fn what_goes_up_and_down_grows_once() {
        let full = run(300, |time| 300.0 + (time % 12.0) * 20.0, |_| 0.5);
        assert!(full[5] && full[70..].iter().all(|full| !full), "{full:?}");
        // What was given back does not hide what grows from there.
        let given_back = |time: f64| match time < 100.0 {
            true => 500.0,
            false => 100.0 + (time - 100.0) * 0.5,
        };
        let full = run(300, given_back, |_| 0.1);
        assert!(full[165..].iter().all(|full| *full), "{full:?}");
    }

    #[test]
    fn a_step_is_over_after_a_while() {
        let step = |time: f64| if time < 50.0 { 100.0 } else { 200.0 };
        let full = run(200, step, |_| 0.1);
        assert!(full[50] && full[75], "{full:?}");
        assert!(full[90..].iter().all(|full| !full), "{full:?}");
    }

    #[test]
    fn targets_that_are_busier_are_looked_at_for_a_while() {
        let full = run(100, |_| 100.0, |time| if time < 50.0 { 0.05 } else { 0.5 });
        assert!(full[..50].iter().all(|full| !full));
        assert!(full[50] && full[55]);
        assert!(full[80..].iter().all(|full| !full), "{full:?}");
        // From hardly anything to little it is no more work.
        let full = run(
            100,
            |_| 100.0,
            |time| if time < 50.0 { 0.001 } else { 0.01 },
        );
        assert!(full.iter().all(|full| !full));
    }
}
