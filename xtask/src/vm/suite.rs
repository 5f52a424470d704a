//! The end-to-end tests as a VM sees them: programs, and the tests to run.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::selection::{CHOSEN, Choice, EXCLUDED, Exclusion};
use super::shares::{BETWEEN, Extent, NEWEST_ALONE, OLDEST_ALONE};
use crate::libtest;
use crate::pool::name_of;
use crate::shell::capture;

/// Tests of one program that run at a time. Two VMs have two cores between them, and
/// of two tests at a time in each, the cores of a VM spend a seventh more on the
/// same: each waits for what the other holds, and that one has no core.
const THREADS: usize = 1;

/// All test programs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Suite {
    pub(super) programs: Vec<Program>,
}

/// One test program.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Program {
    /// Such as `semantics`.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// All tests in it.
    pub(super) tests: Vec<String>,
    /// Those to run.
    pub(super) chosen: Vec<String>,
    /// Those that are not run in any case, and why.
    pub(super) excluded: Vec<(String, String)>,
}

impl Suite {
    /// Asks the test programs for their tests and chooses among them.
    ///
    /// # Errors
    /// A program does not tell, or a test that should be chosen or left out is
    /// not there.
    pub(super) fn new(programs: &[PathBuf], extent: Extent) -> Result<Self> {
        let programs = programs
            .iter()
            .map(|path| {
                let name = name_of(path);
                let listing = capture(Command::new(path).args(["--list", "--format=terse"]))?;
                Program::choose(&name, path, &listing, extent)
            })
            .collect::<Result<Vec<_>>>()?;
        for name in CHOSEN
            .iter()
            .map(|(name, _)| *name)
            .chain(EXCLUDED.iter().map(|exclusion| exclusion.program))
        {
            if !programs.iter().any(|program| program.name == name) {
                bail!("no test program is called {name}: see xtask/src/vm/selection.rs");
            }
        }
        Ok(Self { programs })
    }

    /// How many tests there are.
    pub(super) fn count(&self) -> usize {
        self.programs
            .iter()
            .map(|program| program.tests.len())
            .sum()
    }

    /// The part of a VM's script that runs the tests, each program for at most
    /// `seconds`, and up to twice more if a test of it failed: an emulated kernel on a busy
    /// host preempts BPF programs wherever they are, and leaves out others meanwhile
    /// (the tracer's loss `tracepoint_missed`). If the programs can, they tell how long each test took.
    pub(super) fn script(&self, seconds: u64, timed: bool) -> Result<String> {
        let mut script = String::new();
        let mut options = format!("--test-threads={THREADS} --color=never");
        if timed {
            let (name, value) = libtest::VARIABLE;
            writeln!(script, "export {name}={value}")?;
            write!(options, " {}", libtest::OPTIONS.join(" "))?;
        }
        for program in self.programs.iter().filter(|one| !one.chosen.is_empty()) {
            let run = format!(
                "timeout -k 5 {seconds} '{}' {options} --exact {}",
                program.path.display(),
                program.chosen.join(" ")
            );
            writeln!(
                script,
                "echo '{BEGIN}{name}'\n{run} || {again} || {again}",
                again = format_args!("{{ echo '{AGAIN}{}'; {}; }}", program.name, run),
                name = program.name,
            )?;
        }
        Ok(script)
    }
}

/// Begins the line before a program's output.
pub(super) const BEGIN: &str = "unfreed-vm-tests: ";

/// Begins the line before the output of a program that is run once more.
pub(super) const AGAIN: &str = "unfreed-vm-again: ";

impl Program {
    fn choose(name: &str, path: &Path, listing: &str, extent: Extent) -> Result<Self> {
        let tests: Vec<String> = listing
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .map(str::to_owned)
            .collect();
        let choice = CHOSEN
            .iter()
            .find(|(of, _)| *of == name)
            .map_or(Choice::All, |(_, choice)| *choice);
        let excluded: Vec<&Exclusion> = EXCLUDED
            .iter()
            .filter(|exclusion| exclusion.program == name)
            .collect();
        let shared_out = OLDEST_ALONE.iter().chain(BETWEEN).chain(NEWEST_ALONE);
        let alone = shared_out.filter(|(of, _)| *of == name);
        for test in excluded
            .iter()
            .map(|one| &one.test)
            .chain(choice.names())
            .chain(alone.flat_map(|(_, tests)| *tests))
        {
            tests.iter().find(|one| one == test).with_context(|| {
                format!("{name} has no test {test}: see selection.rs and shares.rs in xtask/src/vm")
            })?;
        }
        let is_chosen = |test: &str| {
            extent.has(name, choice, test) && !excluded.iter().any(|one| one.test == test)
        };
        Ok(Self {
            name: name.to_owned(),
            path: path.to_owned(),
            chosen: tests
                .iter()
                .filter(|test| is_chosen(test))
                .cloned()
                .collect(),
            excluded: excluded
                .iter()
                .map(|one| (one.test.to_owned(), one.reason.to_owned()))
                .collect(),
            tests,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "a_kernel_thread: test\n\
                           a_killed_tracer_leaves_nothing_in_the_kernel: test\n\
                           a_zombie: test\n\
                           missing_privileges_are_named: test\n";

    #[test]
    fn a_choice_is_made_unless_all_are_wanted() {
        let path = Path::new("/t/deps/robustness-12ab");
        assert_eq!(name_of(path), "robustness");
        let some = Program::choose("robustness", path, LISTING, Extent::Choice).unwrap();
        assert_eq!((some.chosen.len(), some.tests.len()), (3, 4));
        let all = Program::choose("robustness", path, LISTING, Extent::Full).unwrap();
        assert_eq!(all.chosen, all.tests);
        let new = Program::choose("new", path, LISTING, Extent::Choice).unwrap();
        assert_eq!(new.chosen, new.tests);
    }

    #[test]
    fn a_choice_of_what_is_not_there_is_an_error() {
        let error = Program::choose("robustness", Path::new("/t"), "", Extent::Choice).unwrap_err();
        assert!(error.to_string().contains("selection.rs"), "{error}");
    }

    #[test]
    fn every_program_is_announced_and_ended_in_time() {
        let path = Path::new("/t/deps/robustness-12ab");
        let program = Program::choose("robustness", path, LISTING, Extent::Choice).unwrap();
        let suite = Suite {
            programs: vec![program],
        };
        assert_eq!(suite.count(), 4);
        let run = "timeout -k 5 60 '/t/deps/robustness-12ab' --test-threads=1 --color=never \
                   --exact a_kernel_thread a_killed_tracer_leaves_nothing_in_the_kernel \
                   missing_privileges_are_named";
        let again = format!("{{ echo 'unfreed-vm-again: robustness'; {run}; }}");
        assert_eq!(
            suite.script(60, false).unwrap(),
            format!(
                "echo 'unfreed-vm-tests: robustness'\n\
                 {run} || {again} || {again}\n"
            )
        );
        let timed = suite.script(60, true).unwrap();
        assert!(
            timed.starts_with("export RUSTC_BOOTSTRAP=1\necho "),
            "{timed}"
        );
        assert!(
            timed.contains(" --report-time --exact a_kernel_thread "),
            "{timed}"
        );
    }
}
