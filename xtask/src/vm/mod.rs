//! The end-to-end tests on other kernels: each in a small VM that shows the
//! host's files, so that nothing is built or installed for it.

mod fleet;
mod hearing;
mod initramfs;
mod kernels;
mod machine;
mod outcome;
mod selection;
mod shared_files;
mod shares;
mod suite;
mod table;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tracer_ebpf_build::workspace;

use crate::programs::EndToEnd;
use crate::setup::{Group, ensure};
use crate::shell::say;
use crate::timeline::Timeline;
pub(crate) use fleet::Fleet;
use fleet::Heard;
use machine::{End, Limits};
use outcome::{Transcript, WARNING};
use shares::Extent;
use suite::Suite;
use table::Row;
pub(crate) use table::Table;

/// The series that are run when none is named.
const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7"];
/// The oldest, two between, and the newest, which are a part of every run of all tests.
const REGULAR: [(&str, Extent); 4] = [
    ("5.10", Extent::Oldest),
    ("6.1", Extent::Strict),
    ("6.12", Extent::Between),
    ("7", Extent::Newest),
];
/// How long a VM may take for a choice of tests, or for one command, while
/// other work goes first.
const PATIENCE: Duration = Duration::from_secs(40 * 60);
/// How long it may take for all tests.
const FULL_PATIENCE: Duration = Duration::from_secs(60 * 60);
/// How long a test may wait for a single fact, in seconds: a tracer may take
/// half a minute to start under emulation.
const DEADLINE: u64 = 300;
/// How long a VM may give no sign of life, of which it has one every 5 s.
const SILENCE: Duration = Duration::from_secs(60);

/// Sets up, builds, runs the tests on all `series`, or on the usual ones, and
/// prints a table. The code says failure when a test failed or was skipped.
///
/// # Errors
/// Fails when something cannot be set up or built.
pub(crate) fn tests(series: &[String], full: bool) -> Result<ExitCode> {
    ensure(&[Group::Test, Group::Vm])?;
    let end_to_end = EndToEnd::build()?;
    let series = match series {
        [] => SERIES.to_vec(),
        named => distinct(named),
    };
    let timeline = Timeline::new();
    let fleet = timeline.phase("kernels fetched", || Fleet::prepare(&series))?;
    let extent = match full {
        true => Extent::Full,
        false => Extent::Choice,
    };
    let kernels: Vec<_> = series.iter().map(|series| (*series, extent)).collect();
    let table = run_tests(&fleet, &end_to_end, &kernels, &timeline)?;
    println!("{timeline}\n{table}{}", table.tally());
    Ok(if table.tally().is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Fetches the kernels of a run of all tests.
///
/// # Errors
/// A package is not to be had.
pub(crate) fn fetch_regular() -> Result<Fleet> {
    Fleet::prepare(&REGULAR.map(|(series, _)| series))
}

/// Runs the choice of tests on the kernels of [`fetch_regular`], shared out between them.
///
/// # Errors
/// A test program does not tell its tests, or a VM cannot be started.
pub(crate) fn run_choice(
    fleet: &Fleet,
    end_to_end: &EndToEnd,
    timeline: &Timeline,
) -> Result<Table> {
    run_tests(fleet, end_to_end, &REGULAR, timeline)
}

/// Runs one shell command on each of the series, as root under the host's
/// files, and prints what it prints. What it needs must have been built.
///
/// # Errors
/// Fails when a VM cannot be set up, or does not come to its end.
pub(crate) fn command(series: &[String], command: &str) -> Result<ExitCode> {
    ensure(&[Group::Vm])?;
    let series = distinct(series);
    let script = format!("{}{command}\n", preamble()?);
    let fleet = Fleet::prepare(&series)?;
    let ends = fleet.run(
        &|_| script.clone(),
        limits(PATIENCE),
        &|index, heard| match heard {
            Heard::Line(line) if series.len() == 1 => println!("{line}"),
            Heard::Line(line) => println!("{:>5} | {line}", series[index]),
            Heard::Anew(why) => say_anew(series[index], why),
        },
    );
    let mut worst = ExitCode::SUCCESS;
    for (series, ended) in series.iter().zip(ends) {
        let why = match ended.end? {
            End::Finished { code: 0, .. } => continue,
            End::Finished { code, .. } => format!("the command ended with {code}"),
            End::Broken(why) | End::Died(why) => why,
        };
        say(format_args!("{series}: {why}"));
        worst = ExitCode::FAILURE;
    }
    Ok(worst)
}

/// The series without repetitions: each has a folder of its own.
fn distinct(series: &[String]) -> Vec<&str> {
    let mut distinct: Vec<&str> = Vec::new();
    for one in series {
        if !distinct.contains(&one.as_str()) {
            distinct.push(one);
        }
    }
    distinct
}

fn limits(patience: Duration) -> Limits {
    Limits {
        patience,
        silence: SILENCE,
    }
}

fn say_anew(series: &str, why: &str) {
    say(format_args!("{series:>5} is started anew: {why}"));
}

fn run_tests(
    fleet: &Fleet,
    end_to_end: &EndToEnd,
    kernels: &[(&str, Extent)],
    timeline: &Timeline,
) -> Result<Table> {
    let full = kernels.iter().any(|(_, extent)| *extent == Extent::Full);
    let patience = if full { FULL_PATIENCE } else { PATIENCE };
    let suites: Vec<Suite> = kernels
        .iter()
        .map(|(_, extent)| Suite::new(&end_to_end.programs, *extent))
        .collect::<Result<_>>()?;
    let scripts: Vec<String> = suites
        .iter()
        .map(|suite| script(suite, patience, end_to_end.timed))
        .collect::<Result<_>>()?;
    let transcripts: Vec<Mutex<Transcript>> = kernels.iter().map(|_| Mutex::default()).collect();
    let ends = fleet.run(
        &|index| scripts[index].clone(),
        limits(patience),
        &|index, heard| {
            let mut transcript = transcripts[index]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match heard {
                Heard::Line(line) => {
                    say(format_args!("{:>5} | {line}", kernels[index].0));
                    transcript.add(line);
                }
                Heard::Anew(why) => {
                    say_anew(kernels[index].0, why);
                    *transcript = Transcript::default();
                }
            }
        },
    );
    let mut rows = Vec::new();
    let known = kernels.iter().map(|(series, _)| series).zip(&suites);
    for (((series, suite), transcript), ended) in known.zip(transcripts).zip(ends) {
        let transcript = transcript
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut row = Row {
            release: (*series).to_owned(),
            boot: None,
            outcome: transcript.outcome(suite),
            restarts: ended.restarts,
            total: ended.total,
            broken: None,
        };
        match ended.end? {
            End::Finished { release, boot, .. } => {
                row.release = release;
                row.boot = Some(boot);
            }
            End::Broken(why) | End::Died(why) => row.broken = Some(why),
        }
        timeline.took(
            &format!("VM {}", row.release),
            ended.began,
            ended.total,
            ended.cpu,
        );
        transcript.note_times(series, timeline);
        for (test, said) in &row.outcome.failed {
            say(format_args!("\n{} failed {test}:\n{said}", row.release));
        }
        rows.push(row);
    }
    Ok(Table {
        rows,
        tests: suites.first().map_or(0, Suite::count),
        full,
    })
}

/// What a VM runs.
fn script(suite: &Suite, patience: Duration, timed: bool) -> Result<String> {
    Ok(format!(
        "{}dmesg --clear\n{}{}",
        preamble()?,
        suite.script(patience.as_secs() / 2, timed)?,
        complaints()
    ))
}

/// What every script begins with: the environment of the end-to-end tests.
fn preamble() -> Result<String> {
    let exports: String = EndToEnd::variables()?
        .iter()
        .map(|(name, value)| format!("export {name}='{}'\n", value.display()))
        .collect();
    Ok(format!(
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         export HOME=/root UNFREED_DEADLINE={DEADLINE}\n\
         {exports}cd '{}'\n",
        workspace().join("tests").display()
    ))
}

/// Shows what the kernel complained about while the tests ran: warnings with a
/// trace, which begin with a line to cut at.
fn complaints() -> String {
    format!(
        "dmesg --notime | grep -A 2 'cut here' | grep -v -e 'cut here' -e '^--$' | \
         sed 's/^/{WARNING}/'\n"
    )
}
