//! Test programs, several at a time: most of their time the end-to-end tests wait
//! for a target, or for a tracer's clock.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::shell::{cannot_run, say};
use crate::tally::Tally;
use crate::timeline::Timeline;
use crate::{cpu, libtest};

/// Programs at a time. Each runs two tests.
const AT_A_TIME: usize = 2;

/// Programs that take long, the longest first. They begin, so that none of
/// them is left over at the end.
const LONG: [&str; 8] = [
    "incidents",
    "jvm_attach",
    "java_heap",
    "jvm_probes",
    "jvm_names",
    "jvm_stacks",
    "jvm_ends",
    "java_memory",
];

/// Programs that run alone, after all others. A tracer that follows children
/// (in `jvm_stacks`, `lifecycle`, `races`) has the kernel place breakpoints in
/// every process: valgrind's in `oracle` die of them, gdb's in `stacks` and `changes`
/// may take them for its own or find the kernel's trampolines for return addresses,
/// and `growth`, `robustness`, `serve` and the tests of the tests themselves find code patched
/// that should not be.
/// `roads` and `stress` load both cores, and count what is lost; `follow` and `kin` fork
/// thousands of times, of which every tracer is told. A tracer that
/// follows children refuses to probe what a target in `hooks` has hooked.
const ALONE: [&str; 13] = [
    "changes",
    "follow",
    "growth",
    "hooks",
    "kin",
    "oracle",
    "roads",
    "robustness",
    "serve",
    "stacks",
    "stress",
    "top",
    "unfreed_tests",
];

/// Programs that run when nothing else does, not even a VM. Some ask what tracing costs:
/// `budget` and `budget_growth` load a core, and what others trace costs the targets of
/// `overhead`, too. In `findings` and `table` leaks are told from the rest by their pace, and in
/// `serve_page` a browser's load is timed.
const IN_QUIET: [&str; 6] = [
    "budget",
    "budget_growth",
    "findings",
    "overhead",
    "serve_page",
    "table",
];

/// Whether a program is to run when nothing else does.
pub(crate) fn wants_quiet(program: &Path) -> bool {
    IN_QUIET.contains(&name_of(program).as_str())
}

/// The name of a test program: `semantics` of
/// `…/deps/semantics-5c5a551b29142d34`.
pub(crate) fn name_of(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    match file.rsplit_once('-') {
        Some((name, _)) => name.to_owned(),
        None => file.into_owned(),
    }
}

/// What programs came to.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// All their tests.
    pub(crate) tally: Tally,
    /// Programs with a test that failed.
    pub(crate) failed: Vec<Failed>,
}

/// A program with a test that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) program: PathBuf,
    /// All its tests, which are in [`Ran::tally`] too.
    tally: Tally,
    /// The names of those that failed; none if the program itself did.
    tests: Vec<String>,
}

impl Ran {
    /// Adds what other programs came to.
    pub(crate) fn add(&mut self, other: Self) {
        self.tally += other.tally;
        self.failed.extend(other.failed);
    }
}

/// Runs programs to their end, each by the command that it is given, and shows
/// what each printed once it has ended.
///
/// # Errors
/// One cannot be run.
pub(crate) fn run(
    programs: &[PathBuf],
    command: &(dyn Fn(&Path) -> Result<Command> + Sync),
    timeline: &Timeline,
) -> Result<Ran> {
    let (alone, mut others): (Vec<&PathBuf>, _) = programs
        .iter()
        .partition(|program| wants_quiet(program) || ALONE.contains(&name_of(program).as_str()));
    others.sort_by_key(|program| place(&name_of(program)));
    let mut ran = several(&others, AT_A_TIME, command, timeline)?;
    ran.add(several(&alone, 1, command, timeline)?);
    Ok(ran)
}

/// Runs programs that failed once more, one by one, and counts what they come to now. Returns
/// a line for each one that has not failed now: a machine that others share disturbs a test,
/// and whoever reads the end of a run is to see which ones.
///
/// # Errors
/// One cannot be run.
pub(crate) fn repeat(
    ran: Ran,
    command: &(dyn Fn(&Path) -> Result<Command> + Sync),
    timeline: &Timeline,
) -> Result<(Tally, Vec<String>)> {
    let mut tally = ran.tally;
    let mut notes = Vec::new();
    for first in ran.failed {
        let second = several(&[&first.program], 1, command, timeline)?;
        tally = tally - first.tally + second.tally;
        if second.failed.is_empty() {
            let tests = match first.tests.is_empty() {
                true => "its program failed".to_owned(),
                false => first.tests.join(", "),
            };
            notes.push(format!(
                "{} was repeated and passed; at first failed: {tests}",
                name_of(&first.program)
            ));
        }
    }
    Ok((tally, notes))
}

/// Where a program stands in the order.
fn place(name: &str) -> usize {
    let long = LONG.iter().position(|long| *long == name);
    long.unwrap_or(LONG.len())
}

fn several(
    programs: &[&PathBuf],
    at_a_time: usize,
    command: &(dyn Fn(&Path) -> Result<Command> + Sync),
    timeline: &Timeline,
) -> Result<Ran> {
    let waiting = Mutex::new(programs.iter());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.next()
    };
    let work = || -> Result<Ran> {
        let mut ran = Ran::default();
        while let Some(program) = next() {
            let (tally, output) = one(&mut command(program)?)?;
            timeline.tests(&name_of(program), output.lines());
            ran.tally += tally;
            if tally.failed > 0 {
                ran.failed.push(Failed {
                    program: PathBuf::clone(program),
                    tally,
                    tests: output.lines().filter_map(libtest::failed).collect(),
                });
            }
            say(output);
        }
        Ok(ran)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_a_time)
            .map(|_| scope.spawn(|| cpu::measured(work)))
            .collect();
        let mut all = Ran::default();
        for worker in workers {
            match worker.join() {
                Ok((ran, spent)) => {
                    cpu::note(spent);
                    all.add(ran?);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

/// Runs one to its end. Returns what it counts to, and what is to be shown of it:
/// its command and what it wrote, standard output and errors in the order in
/// which they came. A run that fails without a failed test counts as one.
///
/// # Errors
/// It cannot be run.
pub(crate) fn one(command: &mut Command) -> Result<(Tally, String)> {
    let start = Instant::now();
    let (mut reader, writer) = io::pipe().context("no pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("no second end of a pipe")?)
        .stderr(writer)
        .spawn()
        .with_context(|| cannot_run(command))?;
    let line = crate::shell::line(command);
    // Ours of the pipe's ends would keep it open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut output = Vec::new();
    io::Read::read_to_end(&mut reader, &mut output).with_context(|| cannot_run(command))?;
    let (status, spent) = cpu::measured(|| cpu::wait(&mut child));
    let status = status.with_context(|| cannot_run(command))?;
    let output = String::from_utf8_lossy(&output);
    let mut tally = output.lines().map(Tally::of_line).sum::<Tally>();
    let took = start.elapsed().as_secs_f64();
    let spent = spent.as_secs_f64();
    let mut shown = format!("$ {line}\n{output}  took {took:.1} s, {spent:.1} s of processors");
    if !status.success() && tally.failed == 0 {
        shown += &format!("\nno test failed, and yet: {status}");
        tally.failed = 1;
    }
    Ok((tally, shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_programs_begin() {
        let mut names = ["names", "jvm_ends", "incidents", "usdt"];
        names.sort_by_key(|name| place(name));
        assert_eq!(names, ["incidents", "jvm_ends", "names", "usdt"]);
    }

    #[test]
    fn tests_of_all_programs_are_counted_and_a_bad_end_is_a_failure() {
        let programs = ["/a-1", "/b-2", "/stress-3"].map(PathBuf::from);
        let shell = |program: &Path| {
            let mut command = Command::new("sh");
            let script = match name_of(program).as_str() {
                "b" => "exit 3",
                _ => "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'",
            };
            command.args(["-c", script]);
            Ok(command)
        };
        let ran = run(&programs, &shell, &Timeline::new()).unwrap();
        assert_eq!((ran.tally.passed, ran.tally.failed), (4, 1));
        let failed: Vec<_> = ran.failed.iter().map(|it| name_of(&it.program)).collect();
        assert_eq!(failed, ["b"]);
    }

    #[test]
    fn what_failed_is_repeated_once_and_named_if_it_passes_then() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("was-here");
        let shell = |program: &Path| {
            let mut command = Command::new("sh");
            let script = match name_of(program).as_str() {
                "bad" => {
                    "echo 'test never ... FAILED'; \
                    echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 101"
                }
                _ => {
                    "test -e \"$1\" && echo 'test result: ok. 2 passed; 0 failed; 0 ignored' && exit
                    touch \"$1\"; echo 'test once ... FAILED <0.100s>'
                    echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 101"
                }
            };
            command.args(["-c", script, "sh"]).arg(&marker);
            Ok(command)
        };
        let timeline = Timeline::new();
        let ran = run(&["/bad-1".into(), "/first-2".into()], &shell, &timeline).unwrap();
        assert_eq!((ran.tally.passed, ran.tally.failed), (2, 2));
        let (tally, notes) = repeat(ran, &shell, &timeline).unwrap();
        assert_eq!((tally.passed, tally.failed), (3, 1));
        assert_eq!(
            notes,
            ["first was repeated and passed; at first failed: once"]
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let missing = |_: &Path| Ok(Command::new("/nonexistent/program"));
        assert!(run(&["/a-1".into()], &missing, &Timeline::new()).is_err());
    }
}
