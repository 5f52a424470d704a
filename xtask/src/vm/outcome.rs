//! What the tests in a VM came to, from the lines that they printed.

use std::collections::BTreeMap;

use super::suite::{AGAIN, BEGIN, Suite};
use crate::libtest::untimed;
use crate::tally::Tally;
use crate::timeline::Timeline;

/// Begins what is said of a failed test that said nothing itself.
pub(super) const NO_RESULT: &str = "no result";
/// Lines that are kept of what a failed test printed.
const TAIL: usize = 25;

/// What a run of the tests came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    /// Failed tests, with what they printed.
    pub(super) failed: Vec<(String, String)>,
    /// Tests that failed at first and passed when they were run again, with what they
    /// printed at first.
    pub(super) repeated: Vec<(String, String)>,
    /// Tests that did not run, and why.
    pub(super) skipped: Vec<(String, String)>,
    /// What the kernel itself complained about.
    pub(super) warnings: Vec<String>,
}

/// The lines of a VM, as they come.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    program: String,
    lines: BTreeMap<String, Vec<String>>,
    /// What programs printed that were run again.
    first: BTreeMap<String, Vec<String>>,
    warnings: Vec<String>,
}

/// Begins a line with a complaint of the kernel's.
pub(super) const WARNING: &str = "unfreed-vm-kernel: ";

impl Transcript {
    /// Takes one line.
    pub(super) fn add(&mut self, line: &str) {
        if let Some(program) = line.strip_prefix(BEGIN) {
            program.clone_into(&mut self.program);
        } else if let Some(program) = line.strip_prefix(AGAIN) {
            let first = self.lines.remove(program).unwrap_or_default();
            self.first.insert(program.to_owned(), first);
        } else if let Some(warning) = line.strip_prefix(WARNING) {
            self.warnings.push(warning.to_owned());
        } else {
            self.lines
                .entry(self.program.clone())
                .or_default()
                .push(line.to_owned());
        }
    }

    /// Notes how long each test took on a kernel.
    pub(super) fn note_times(&self, kernel: &str, timeline: &Timeline) {
        for (program, lines) in &self.lines {
            let name = format!("{kernel} {program}");
            timeline.tests(&name, lines.iter().map(String::as_str));
        }
    }

    /// Compares what should have run with what is said about it. A chosen test
    /// of which nothing is said failed.
    pub(super) fn outcome(&self, suite: &Suite) -> Outcome {
        let mut outcome = Outcome {
            warnings: self.warnings.clone(),
            ..Outcome::default()
        };
        for program in &suite.programs {
            let of = |lines: &'_ BTreeMap<String, Vec<String>>| {
                lines.get(&program.name).cloned().unwrap_or_default()
            };
            let (lines, first) = (&*of(&self.lines), &*of(&self.first));
            for test in &program.chosen {
                let name = format!("{}::{test}", program.name);
                let (counts, failure) = match verdict(lines, test) {
                    Verdict::Passed => {
                        if verdict(first, test) == Verdict::Failed {
                            let said = tail(&output(first, test));
                            outcome.repeated.push((name.clone(), said));
                        }
                        ((1, 0, 0), None)
                    }
                    Verdict::Ignored(reason) => {
                        outcome.skipped.push((name.clone(), reason));
                        ((0, 0, 1), None)
                    }
                    Verdict::Failed => ((0, 1, 0), Some(tail(&output(lines, test)))),
                    Verdict::Missing => {
                        let said = format!("{NO_RESULT}; its program said:\n{}", tail(lines));
                        ((0, 1, 0), Some(said))
                    }
                };
                let (passed, failed, skipped) = counts;
                outcome.tally += Tally {
                    passed,
                    failed,
                    skipped,
                };
                outcome.failed.extend(failure.map(|said| (name, said)));
            }
            outcome.skipped.extend(
                program
                    .excluded
                    .iter()
                    .map(|(test, reason)| (format!("{}::{test}", program.name), reason.clone())),
            );
        }
        outcome
    }
}

/// What libtest says about one test.
#[derive(Debug, PartialEq)]
enum Verdict {
    Passed,
    Failed,
    Ignored(String),
    Missing,
}

/// The verdict in a line such as `test NAME ... ok`. Where tests run one at a time
/// the name comes first: what a program of the test prints itself stands before the
/// verdict then, which has a line of its own.
fn verdict(lines: &[String], test: &str) -> Verdict {
    let said = |line: &'_ String| -> Option<String> {
        let said = untimed(line).strip_prefix("test ")?.strip_prefix(test)?;
        let said = said.strip_prefix(" - should panic").unwrap_or(said);
        said.strip_prefix(" ... ").map(str::to_owned)
    };
    let mut lines = lines.iter().skip_while(|line| said(line).is_none());
    let Some(first) = lines.next().and_then(said) else {
        return Verdict::Missing;
    };
    let own = lines.take_while(|line| !line.starts_with("test "));
    let without_time = |line: &'_ String| line.split(" <").next().map(str::to_owned);
    let later = own.filter_map(|line| verdict_in(&without_time(line)?));
    let mut verdicts = verdict_in(&first).into_iter().chain(later);
    verdicts.next().unwrap_or(Verdict::Missing)
}

/// The verdict that a text is.
fn verdict_in(said: &str) -> Option<Verdict> {
    match said {
        "ok" => Some(Verdict::Passed),
        "FAILED" => Some(Verdict::Failed),
        _ if said.starts_with("ignored") => Some(Verdict::Ignored(
            said.strip_prefix("ignored, ")
                .unwrap_or("ignored by its attribute")
                .to_owned(),
        )),
        _ => None,
    }
}

/// What a failed test printed, which libtest shows between headlines.
fn output(lines: &[String], test: &str) -> Vec<String> {
    let headline = format!("---- {test} stdout ----");
    lines
        .iter()
        .skip_while(|line| **line != headline)
        .skip(1)
        .take_while(|line| !line.starts_with("---- ") && *line != "failures:")
        .filter(|line| !line.is_empty())
        .cloned()
        .collect()
}

/// The last lines.
fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::suite::Program;
    use super::*;

    fn suite(chosen: &[&str]) -> Suite {
        let chosen: Vec<String> = chosen.iter().map(ToString::to_string).collect();
        Suite {
            programs: vec![Program {
                name: "semantics".to_owned(),
                path: PathBuf::from("/t/semantics-1"),
                tests: chosen.clone(),
                chosen,
                excluded: vec![("slow".to_owned(), "too slow".to_owned())],
            }],
        }
    }

    const LINES: &str = "unfreed-vm-tests: semantics

running 4 tests
test good ... ok <1.250s>
test bad ... FAILED <0.002s>
test plain ... ok
test later ... ignored, not on Sundays

failures:

---- bad stdout ----
thread 'bad' panicked at tests/a.rs:1:
one is not two

failures:
    bad

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out
unfreed-vm-kernel: WARNING: CPU: 1
";

    #[test]
    fn a_test_that_passes_the_second_time_is_named() {
        let mut transcript = Transcript::default();
        for line in format!(
            "{BEGIN}semantics\ntest good ... ok\ntest bad ... FAILED\n---- bad stdout ----\nonce\nfailures:\n{AGAIN}semantics\ntest good ... ok\ntest bad ... ok"
        )
        .lines()
        {
            transcript.add(line);
        }
        let outcome = transcript.outcome(&suite(&["good", "bad"]));
        assert_eq!((outcome.tally.passed, outcome.tally.failed), (2, 0));
        let named = [("semantics::bad".to_owned(), "once".to_owned())];
        assert_eq!(outcome.repeated, named);
    }

    #[test]
    fn every_chosen_test_has_an_end() {
        let mut transcript = Transcript::default();
        LINES.lines().for_each(|line| transcript.add(line));
        let outcome = transcript.outcome(&suite(&["good", "bad", "plain", "later", "lost"]));
        assert_eq!(outcome.tally.to_string(), "2 passed, 2 failed, 1 skipped");
        assert_eq!(
            outcome.failed[0],
            (
                "semantics::bad".to_owned(),
                "thread 'bad' panicked at tests/a.rs:1:\none is not two".to_owned()
            )
        );
        assert_eq!(outcome.failed[1].0, "semantics::lost");
        assert!(outcome.failed[1].1.starts_with(NO_RESULT));
        let reasons: Vec<&str> = outcome
            .skipped
            .iter()
            .map(|(_, why)| why.as_str())
            .collect();
        assert_eq!(reasons, ["not on Sundays", "too slow"]);
        assert_eq!(outcome.warnings, ["WARNING: CPU: 1"]);
        let timeline = Timeline::new();
        transcript.note_times("5.10", &timeline);
        let times = timeline.to_string();
        assert!(times.contains("5.10 semantics::good"), "{times}");
        assert!(!times.contains("semantics::plain"), "{times}");
    }

    #[test]
    fn a_vm_that_says_nothing_passes_nothing() {
        let outcome = Transcript::default().outcome(&suite(&["good"]));
        assert_eq!(outcome.tally.to_string(), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn names_are_whole() {
        let lines = ["test good_and_more ... ok".to_owned()];
        assert_eq!(verdict(&lines, "good"), Verdict::Missing);
        assert_eq!(verdict(&lines, "good_and_more"), Verdict::Passed);
    }

    #[test]
    fn a_verdict_may_come_after_what_a_program_says() {
        let lines = [
            "test one ... WARNING: a method",
            "",
            "ok <86.337s>",
            "test two ... FAILED",
        ];
        let lines = lines.map(str::to_owned);
        assert_eq!(verdict(&lines, "one"), Verdict::Passed);
        assert_eq!(verdict(&lines, "two"), Verdict::Failed);
        let lines = ["test one ... WARNING", "test two ... ok"].map(str::to_owned);
        assert_eq!(verdict(&lines, "one"), Verdict::Missing);
    }
}
