//! The table that a run on several kernels ends with.

use std::fmt;
use std::time::Duration;

use super::outcome::{NO_RESULT, Outcome};
use crate::tally::Tally;

/// What one kernel came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// The kernel's release, or its series when it did not boot.
    pub(super) release: String,
    /// Seconds until the host's files were there, by the VM's clock.
    pub(super) boot: Option<f64>,
    pub(super) outcome: Outcome,
    /// Why the VM was started anew, once for each time.
    pub(super) restarts: Vec<String>,
    /// From the VM's first start to its end.
    pub(super) total: Duration,
    /// Why the VM did not come to its end.
    pub(super) broken: Option<String>,
}

/// All kernels, in the order that was asked for.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) rows: Vec<Row>,
    /// How many tests there are in all.
    pub(super) tests: usize,
    /// Whether everything was run that can be.
    pub(super) full: bool,
}

impl Table {
    /// The sum of all kernels. A VM that broke, or whose kernel warns of what we load,
    /// has failed even if its tests did not.
    pub(crate) fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for row in &self.rows {
            sum += row.outcome.tally;
            let is_warned = row.outcome.warnings.iter().any(|it| is_of_programs(it));
            if (row.broken.is_some() || is_warned) && row.outcome.tally.failed == 0 {
                sum.failed += 1;
            }
        }
        sum
    }

    /// One line for each failure, skip and complaint.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for row in &self.rows {
            let Outcome {
                failed,
                repeated,
                skipped,
                warnings,
                ..
            } = &row.outcome;
            let mut note = |what: &str, why: &str| {
                notes.push(format!("{} {what}: {}", row.release, first_line(why)));
            };
            for why in &row.restarts {
                note("was started anew", why);
            }
            if let Some(why) = &row.broken {
                note("broke", why);
            }
            let (unheard, heard): (Vec<_>, Vec<_>) = failed
                .iter()
                .partition(|(_, said)| row.broken.is_some() && said.starts_with(NO_RESULT));
            if !unheard.is_empty() {
                note("failed", &format!("{} without any result", unheard.len()));
            }
            for (test, said) in heard {
                note(&format!("failed {test}"), reason(said));
            }
            for (test, said) in repeated {
                note(&format!("repeated {test}"), reason(said));
            }
            for (test, why) in skipped {
                note(&format!("skipped {test}"), why);
            }
            for warning in warnings {
                note("kernel warns", warning);
            }
        }
        notes
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<26} {:>6} {:>6} {:>7} {:>7} {:>8} {:>10} {:>6}",
            "KERNEL", "STARTS", "BOOT", "PASSED", "FAILED", "SKIPPED", "TESTS", "TOTAL"
        )?;
        for row in &self.rows {
            let tally = row.outcome.tally;
            let boot = row
                .boot
                .map_or("-".to_owned(), |seconds| format!("{seconds:.1} s"));
            writeln!(
                f,
                "{:<26} {:>6} {boot:>6} {:>7} {:>7} {:>8} {:>10} {:>4.0} s",
                row.release,
                row.restarts.len() + 1,
                tally.passed,
                tally.failed,
                row.outcome.skipped.len(),
                format!("{} of {}", tally.ran(), self.tests),
                row.total.as_secs_f64()
            )?;
        }
        if !self.full {
            writeln!(
                f,
                "The tests are a choice that reaches every feature and fallback \
                 (xtask/src/vm/selection.rs); cargo xtask vm --full runs all."
            )?;
        }
        for note in self.notes() {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

/// The line of a failed test's output that says why: the one after the panic's
/// place, or the error that the test returned.
fn reason(said: &str) -> &str {
    let mut lines = said.lines();
    let why = lines.find_map(|line| {
        if line.contains("panicked at") {
            return Some(None);
        }
        line.starts_with("Error: ").then_some(Some(line))
    });
    match why {
        Some(Some(error)) => error,
        Some(None) => lines.next().unwrap_or(said),
        None => said,
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Whether a kernel's warning is of BPF programs or of probes. (Of clocks and locks that
/// were late a kernel under emulation may warn, too.)
fn is_of_programs(warning: &str) -> bool {
    ["bpf", "BPF", "uprobe"]
        .iter()
        .any(|part| warning.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_of_our_programs_is_a_failure() {
        let mut warned = row("5.10", Vec::new());
        let tally = |row: &Row| {
            let table = Table {
                rows: vec![row.clone()],
                tests: 171,
                full: false,
            };
            table.tally().failed
        };
        assert_eq!(tally(&warned), 0);
        let warning = "WARNING: CPU: 0 PID: 140 at kernel/bpf/verifier.c:10519 bpf_check";
        warned.outcome.warnings.push(warning.to_owned());
        assert_eq!(tally(&warned), 1);
    }

    fn row(release: &str, failed: Vec<(String, String)>) -> Row {
        let tally = Tally {
            passed: 12,
            failed: u64::try_from(failed.len()).unwrap(),
            skipped: 0,
        };
        Row {
            release: release.to_owned(),
            boot: Some(4.06),
            outcome: Outcome {
                repeated: Vec::new(),
                tally,
                failed,
                skipped: vec![("stress::slow".to_owned(), "too slow".to_owned())],
                warnings: vec!["WARNING: CPU: 1".to_owned()],
            },
            restarts: vec!["nothing was heard of it".to_owned()],
            total: Duration::from_millis(61_200),
            broken: None,
        }
    }

    #[test]
    fn a_row_for_each_kernel_and_a_line_for_each_reason() {
        let failed = vec![(
            "roads::both".to_owned(),
            "thread 'both' panicked at a.rs:1:\none is not two\nbacktrace".to_owned(),
        )];
        let table = Table {
            rows: vec![row("5.10.0-46-cloud-amd64", failed)],
            tests: 171,
            full: true,
        };
        assert_eq!(
            table.to_string(),
            "\
KERNEL                     STARTS   BOOT  PASSED  FAILED  SKIPPED      TESTS  TOTAL
5.10.0-46-cloud-amd64           2  4.1 s      12       1        1  13 of 171   61 s
5.10.0-46-cloud-amd64 was started anew: nothing was heard of it
5.10.0-46-cloud-amd64 failed roads::both: one is not two
5.10.0-46-cloud-amd64 skipped stress::slow: too slow
5.10.0-46-cloud-amd64 kernel warns: WARNING: CPU: 1
"
        );
        assert!(table.tally().failed == 1);
    }

    #[test]
    fn a_broken_vm_is_a_failure() {
        let unheard = ("roads::both".to_owned(), format!("{NO_RESULT}; and so on"));
        let mut broken = row("7", vec![unheard]);
        broken.boot = None;
        broken.broken = Some("ended after 300 s".to_owned());
        let table = Table {
            rows: vec![broken],
            tests: 171,
            full: false,
        };
        let text = table.to_string();
        assert!(
            text.contains("7                               2      -      12"),
            "{text}"
        );
        assert!(text.contains("--full runs all"), "{text}");
        assert!(text.contains("7 broke: ended after 300 s"), "{text}");
        assert!(text.contains("7 failed: 1 without any result"), "{text}");
        assert_eq!(table.tally().failed, 1);
    }

    #[test]
    fn a_returned_error_is_its_own_reason() {
        assert_eq!(reason("a\nError: no report\n\nb"), "Error: no report");
        assert_eq!(reason("no result; it said:\nx"), "no result; it said:\nx");
    }
}
