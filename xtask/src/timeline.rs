//! Where the time of a run went: its parts, which overlap, and its slowest tests.

use std::cmp::Reverse;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cpu;
use crate::libtest::timed;

/// How many of the slowest tests are shown.
const SLOWEST: usize = 10;
/// Columns of the drawing beside the parts.
const WIDTH: usize = 40;

/// A part of a run.
#[derive(Debug, Clone, PartialEq)]
struct Phase {
    name: String,
    /// Since the run began.
    start: Duration,
    took: Duration,
    /// Processor time of the programs that it ran.
    cpu: Duration,
}

/// A test that has ended.
#[derive(Debug, Clone, PartialEq)]
struct Test {
    /// Where it ran, its program, and its own name there.
    name: String,
    took: Duration,
}

/// What is noted while a run goes on, by all its threads.
#[derive(Debug)]
pub(crate) struct Timeline {
    start: Instant,
    phases: Mutex<Vec<Phase>>,
    tests: Mutex<Vec<Test>>,
}

impl Timeline {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            phases: Mutex::default(),
            tests: Mutex::default(),
        }
    }

    /// Does a part of the run, and notes how long it took, and how much processor time.
    pub(crate) fn phase<T>(&self, name: &str, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let (result, cpu) = cpu::measured(work);
        self.took(name, began, began.elapsed(), cpu);
        result
    }

    /// Notes a part of the run that is over.
    pub(crate) fn took(&self, name: &str, began: Instant, took: Duration, cpu: Duration) {
        let phase = Phase {
            name: name.to_owned(),
            start: began.saturating_duration_since(self.start),
            took,
            cpu,
        };
        self.phases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(phase);
    }

    /// Notes the tests whose times are in a program's output. Its name may have
    /// words before it: on which kernel it ran, for example.
    pub(crate) fn tests<'a>(&self, program: &str, output: impl IntoIterator<Item = &'a str>) {
        let timed = output
            .into_iter()
            .filter_map(timed)
            .map(|(name, took)| Test {
                name: format!("{program}::{name}"),
                took,
            });
        self.tests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(timed);
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut phases = self
            .phases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        phases.sort_by_key(|phase| phase.start);
        let total = phases
            .iter()
            .map(|phase| phase.start + phase.took)
            .max()
            .unwrap_or_default();
        writeln!(
            f,
            "{:<34} {:>6} {:>7} {:>7}",
            "PART", "START", "TOOK", "CPU"
        )?;
        for phase in &phases {
            let line = format!(
                "{:<34} {:>4.0} s {:>5.0} s {:>5.0} s  {}",
                phase.name,
                phase.start.as_secs_f64(),
                phase.took.as_secs_f64(),
                phase.cpu.as_secs_f64(),
                bar(phase, total)
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        let cpu: Duration = phases.iter().map(|phase| phase.cpu).sum();
        writeln!(
            f,
            "{:<34} {:>6} {:>5.0} s {:>5.0} s",
            "all",
            "",
            total.as_secs_f64(),
            cpu.as_secs_f64()
        )?;
        let mut tests = self
            .tests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        tests.sort_by_key(|test| Reverse(test.took));
        if !tests.is_empty() {
            writeln!(f, "{:<72} {:>7}", "SLOWEST TESTS", "TOOK")?;
        }
        for test in tests.iter().take(SLOWEST) {
            writeln!(f, "{:<72} {:>5.1} s", test.name, test.took.as_secs_f64())?;
        }
        Ok(())
    }
}

/// When a part went on, drawn.
fn bar(phase: &Phase, total: Duration) -> String {
    let column = |time: Duration| {
        let share = time.as_millis() * WIDTH as u128 / total.as_millis().max(1);
        usize::try_from(share).unwrap_or(WIDTH)
    };
    let start = column(phase.start).min(WIDTH - 1);
    let end = column(phase.start + phase.took).max(start + 1);
    format!("{}{}", " ".repeat(start), "=".repeat(end - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_in_the_order_in_which_they_began_and_tests_by_their_time() {
        let timeline = Timeline::new();
        let at = |seconds| timeline.start + Duration::from_secs(seconds);
        let took = |name: &str, start, took, cpu| {
            let seconds = Duration::from_secs;
            timeline.took(name, at(start), seconds(took), seconds(cpu));
        };
        took("end-to-end tests", 50, 30, 7);
        took("build", 0, 50, 91);
        took("5.10", 40, 60, 50);
        let lines = [
            "test quick ... ok <0.001s>",
            "test slow ... FAILED <9.040s>",
            "test unknown ... ok",
        ];
        timeline.tests("names", lines);
        timeline.tests("5.10 roads", ["test both ... ok <61.250s>"]);
        let row = |name: &str, took: &str| format!("{name:<72} {took:>7}\n");
        let parts = "\
PART                                START    TOOK     CPU
build                                 0 s    50 s    91 s  ====================
5.10                                 40 s    60 s    50 s                  ========================
end-to-end tests                     50 s    30 s     7 s                      ============
all                                         100 s   148 s
";
        assert_eq!(
            timeline.to_string(),
            parts.to_owned()
                + &row("SLOWEST TESTS", "TOOK")
                + &row("5.10 roads::both", "61.2 s")
                + &row("names::slow", "9.0 s")
                + &row("names::quick", "0.0 s")
        );
    }

    #[test]
    fn no_more_than_ten_tests_are_shown() {
        let timeline = Timeline::new();
        let lines: Vec<String> = (0..30)
            .map(|n| format!("test t{n} ... ok <{n}.000s>"))
            .collect();
        timeline.tests("p", lines.iter().map(String::as_str));
        let text = timeline.to_string();
        assert!(text.contains("p::t29") && text.contains("p::t20") && !text.contains("p::t19"));
    }
}
