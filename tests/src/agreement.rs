//! The tracer's stacks beside gdb's, frame by frame.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use anyhow::{Result, ensure};

use crate::gdb::{Backtrace, Position};
use crate::stack::Stack;

/// The tracer's limit. Of a deeper stack, so many frames have to be equal.
const MAX_FRAMES: usize = 127;
/// A probe and gdb's breakpoint, both near a function's first instruction, may
/// be so many bytes apart.
const DISPLACEMENT: u64 = 32;

/// What gdb says when the tables say that there is no caller.
const OUTERMOST: &str = "outermost";

/// Whether the tracer and gdb looked at one process, where addresses are equal,
/// or at two of a program, where files and offsets in them are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// One process that did the same twice, and gdb wrote down all of it.
    Same,
    /// One process that took the same paths twice, but not as often.
    Paths,
    /// Two processes that took the same paths, though not as often.
    Files,
}

/// How many of gdb's stacks the tracer has, and how.
#[derive(Debug, Default)]
pub struct Agreement {
    /// With all frames, or the innermost 127.
    pub whole: usize,
    /// With fewer, all of them right, and a reason; by reason.
    pub truncated: BTreeMap<String, Vec<String>>,
    /// Stacks that lie about their end, or about how much was allocated.
    pub wrong: Vec<String>,
    /// Stacks that gdb does not have: made up, or of another run.
    pub strange: Vec<String>,
    /// Stacks of which the tracer has nothing.
    pub absent: Vec<String>,
}

/// A place in the code that two sides can agree on.
type Key<'a> = (&'a str, u64);

impl Runs {
    fn key(self, position: &Position) -> Key<'_> {
        match self {
            Self::Same | Self::Paths => ("", position.address),
            Self::Files => (&position.path, position.offset),
        }
    }

    /// Return addresses alone: the innermost frame is the probed instruction.
    fn callers(self, frames: &[Position]) -> Vec<Key<'_>> {
        let limited = &frames[..frames.len().min(MAX_FRAMES)];
        limited
            .iter()
            .skip(1)
            .map(|frame| self.key(frame))
            .collect()
    }

    /// Whether the tracer's innermost frame is gdb's function.
    fn is_entry(self, found: &[Position], real: &[Position]) -> bool {
        let (Some(found), Some(real)) = (found.first(), real.first()) else {
            return false;
        };
        let (found, real) = (self.key(found), self.key(real));
        found.0 == real.0 && found.1.abs_diff(real.1) < DISPLACEMENT
    }
}

impl Agreement {
    /// Compares the tracer's stacks with gdb's.
    pub fn of(found: &[Stack], real: &[Backtrace], runs: Runs) -> Self {
        let mut agreement = Self::default();
        let by_callers: HashMap<_, _> = found
            .iter()
            .map(|stack| (runs.callers(&stack.frames), stack))
            .collect();
        let mut seen: HashMap<_, (u64, u64)> = HashMap::new();
        for trace in real {
            let sums = seen.entry(runs.callers(&trace.frames)).or_default();
            if *sums == (0, 0) {
                agreement.look_up(trace, &by_callers, runs);
            }
            sums.0 += trace.count;
            sums.1 += trace.count * trace.size;
        }
        agreement.look_for_others(found, &seen, runs);
        agreement
    }

    /// Finds one of gdb's stacks among the tracer's.
    fn look_up(&mut self, trace: &Backtrace, found: &HashMap<Vec<Key<'_>>, &Stack>, runs: Runs) {
        let callers = runs.callers(&trace.frames);
        let equal = |length: usize| {
            let stack = *found.get(&callers[..length])?;
            runs.is_entry(&stack.frames, &trace.frames).then_some(stack)
        };
        if let Some(stack) = equal(callers.len()) {
            match is_end(&stack.end, trace) {
                true => self.whole += 1,
                false => self
                    .wrong
                    .push(format!("its end is a lie: {stack}\nreally {trace}")),
            }
            return;
        }
        match (0..callers.len()).rev().find_map(equal) {
            Some(stack) if stack.end == "start" => {
                self.wrong
                    .push(format!("not the start: {stack}\nreally {trace}"));
            }
            // Python functions are many in the place of one frame.
            Some(stack) if stack.end == "too_deep" && stack.depth == MAX_FRAMES => {
                self.whole += 1;
            }
            Some(stack) => {
                let reason = self.truncated.entry(stack.end.clone()).or_default();
                reason.push(format!("{stack}\nreally {trace}"));
            }
            None => self.absent.push(trace.to_string()),
        }
    }

    /// Looks for stacks that gdb has not seen, or not as often.
    fn look_for_others(
        &mut self,
        found: &[Stack],
        seen: &HashMap<Vec<Key<'_>>, (u64, u64)>,
        runs: Runs,
    ) {
        for stack in found {
            let callers = runs.callers(&stack.frames);
            match seen.get(&callers) {
                Some(_) if runs != Runs::Same => {}
                Some(&sums) if sums == (stack.count, stack.bytes) => {}
                // The stacks that end here as one, and in gdb do not.
                _ if seen
                    .keys()
                    .any(|real| real.len() > callers.len() && real.starts_with(&callers)) => {}
                Some(sums) => self.wrong.push(format!("really {sums:?}: {stack}")),
                None => self.strange.push(stack.to_string()),
            }
        }
    }

    /// How many stacks gdb has.
    pub fn total(&self) -> usize {
        self.whole + self.truncated() + self.absent.len()
    }

    fn truncated(&self) -> usize {
        self.truncated.values().map(Vec::len).sum()
    }

    /// Adds another comparison.
    pub fn add(&mut self, other: Self) {
        self.whole += other.whole;
        self.wrong.extend(other.wrong);
        self.strange.extend(other.strange);
        self.absent.extend(other.absent);
        for (reason, stacks) in other.truncated {
            self.truncated.entry(reason).or_default().extend(stacks);
        }
    }

    /// Checks that no stack has a frame that is not real, that all that were
    /// cut short say why, and that gdb saw at least `least` stacks.
    ///
    /// # Errors
    /// Something of this is not so.
    pub fn is_honest(&self, least: usize) -> Result<()> {
        let errors = [&self.wrong, &self.strange, &self.absent];
        ensure!(errors.iter().all(|stacks| stacks.is_empty()), "{self}");
        ensure!(
            self.total() >= least,
            "fewer than {least} stacks prove little: {self}"
        );
        Ok(())
    }

    /// The same, and that of 1,000 stacks 995 are whole.
    ///
    /// # Errors
    /// Something of this is not so.
    pub fn is_whole(&self, least: usize) -> Result<()> {
        self.is_honest(least)?;
        ensure!(self.whole * 1000 >= self.total() * 995, "{self}");
        Ok(())
    }

    /// The same for a program that does not repeat itself exactly: of 100
    /// stacks, so many may be in one run alone. All that are in both count.
    ///
    /// # Errors
    /// See [`Agreement::is_whole`].
    pub fn is_nearly_whole(mut self, least: usize, alone: usize) -> Result<()> {
        let single = self.strange.len() + self.absent.len();
        ensure!(single * 100 <= self.total() * alone, "{self}");
        self.strange.clear();
        self.absent.clear();
        self.is_whole(least)
    }
}

/// Whether a stack with all frames ends for the right reason: at the limit, at
/// the start if gdb knows that it is the start, or else for any other.
fn is_end(end: &str, trace: &Backtrace) -> bool {
    match trace.frames.len() > MAX_FRAMES {
        true => end == "too_deep",
        false if trace.end == OUTERMOST => end == "start",
        false => end != "too_deep",
    }
}

/// The figures, then a few of what is wrong.
impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        write!(
            f,
            "{} of {} stacks whole and equal to gdb's; {} wrong; {} strange; {} absent; truncated:",
            self.whole,
            self.total(),
            self.wrong.len(),
            self.strange.len(),
            self.absent.len()
        )?;
        if self.truncated.is_empty() {
            write!(f, " none")?;
        }
        for (reason, stacks) in &self.truncated {
            write!(f, " {} {reason}", stacks.len())?;
        }
        for stack in self.wrong.iter().take(SHOWN) {
            write!(f, "\nwrong: {stack}")?;
        }
        for stack in self.strange.iter().take(SHOWN) {
            write!(f, "\nstrange: {stack}")?;
        }
        for stack in self.absent.iter().take(SHOWN) {
            write!(f, "\nabsent: {stack}")?;
        }
        for (reason, stacks) in &self.truncated {
            for stack in stacks.iter().take(1) {
                write!(f, "\n{reason}: {stack}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(addresses: &[u64]) -> Vec<Position> {
        addresses
            .iter()
            .map(|&address| Position {
                address,
                path: "program".into(),
                offset: address & 0xfff,
            })
            .collect()
    }

    fn stack(addresses: &[u64], end: &str) -> Stack {
        Stack {
            frames: frames(addresses),
            depth: addresses.len(),
            end: end.into(),
            count: 2,
            bytes: 14,
        }
    }

    fn trace(addresses: &[u64]) -> Backtrace {
        Backtrace {
            function: "malloc".into(),
            size: 7,
            count: 2,
            frames: frames(addresses),
            end: OUTERMOST.into(),
        }
    }

    /// Whole, truncated, wrong or strange, absent.
    fn figures(found: Stack, real: &[u64], runs: Runs) -> [usize; 4] {
        let agreement = Agreement::of(&[found], &[trace(real)], runs);
        [
            agreement.whole,
            agreement.truncated(),
            agreement.wrong.len() + agreement.strange.len(),
            agreement.absent.len(),
        ]
    }

    #[test]
    fn every_frame_counts() {
        let real = [0x1000, 0x2001, 0x2002, 0x2003];
        let whole = stack(&[0x1004, 0x2001, 0x2002, 0x2003], "start");
        assert_eq!(figures(whole, &real, Runs::Same), [1, 0, 0, 0]);
        let unaware = stack(&[0x1004, 0x2001, 0x2002, 0x2003], "no_row");
        assert_eq!(figures(unaware, &real, Runs::Same), [0, 0, 1, 0]);
        let short = stack(&[0x1004, 0x2001, 0x2002], "no_row");
        assert_eq!(figures(short, &real, Runs::Same), [0, 1, 0, 0]);
        let lie = stack(&[0x1004, 0x2001, 0x2002], "start");
        assert_eq!(figures(lie, &real, Runs::Same), [0, 0, 1, 0]);
        let made_up = stack(&[0x1004, 0x2001, 0x2005, 0x2003], "start");
        assert_eq!(figures(made_up, &real, Runs::Same), [0, 0, 1, 1]);
        let longer = stack(&[0x1004, 0x2001, 0x2002, 0x2003, 0x2004], "start");
        assert_eq!(figures(longer, &real, Runs::Same), [0, 0, 1, 1]);
        let other_function = stack(&[0x1040, 0x2001, 0x2002, 0x2003], "start");
        assert_eq!(figures(other_function, &real, Runs::Same), [0, 0, 0, 1]);
    }

    #[test]
    fn allocations_count_too() {
        let mut found = stack(&[0x1000, 0x2001], "start");
        found.bytes += 1;
        assert_eq!(figures(found, &[0x1000, 0x2001], Runs::Same), [1, 0, 1, 0]);
    }

    #[test]
    fn other_runs_have_other_addresses() {
        let found = || stack(&[0x1000, 0x2001], "start");
        let real = [0x7000, 0x9001];
        assert_eq!(figures(found(), &real, Runs::Files), [1, 0, 0, 0]);
        assert_eq!(figures(found(), &real, Runs::Same), [0, 0, 1, 1]);
    }

    #[test]
    fn a_deep_stack_is_equal_up_to_the_limit() {
        let real: Vec<u64> = (0..200).map(|index| 0x1000 + index).collect();
        let found = |end| stack(&real[..127], end);
        assert_eq!(figures(found("too_deep"), &real, Runs::Same), [1, 0, 0, 0]);
        assert_eq!(figures(found("start"), &real, Runs::Same), [0, 0, 1, 0]);
    }
}
