//! How right verdicts are: a suite of programs whose behaviours are labelled, run side by
//! side, each traced by itself and looked at after several times. Every program counts
//! what it has live, and a label that this contradicts fails the measurement. One half of
//! the suite is there to make rules with, the other only to measure them.

mod label;
mod live;
mod program;
mod run;
mod said;
mod score;
mod table;

use std::path::Path;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

pub(super) use self::label::Half;
use self::label::Label;
use self::program::{Language, Program};
use self::run::{Found, Run};
use super::choice::Choice;
use super::modes::Mode;
use crate::shell;

/// When runs are looked at, seconds.
const SECONDS: [u64; 2] = [30, 120];

/// Programs that run side by side.
const BESIDE: usize = 16;

/// Names of its programs on the command line.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    Language::all().map(Language::key)
}

/// Measures all, and makes the tables.
///
/// # Errors
/// Fails if the suite cannot be read or built, or if a label is wrong.
pub(super) fn measure(unfreed: &Path, choice: &Choice) -> Result<String> {
    let labels = Label::all()?;
    let built: Vec<(Language, Program)> = Language::all()
        .map(|language| Ok((language, language.build()?)))
        .collect::<Result<_>>()?;
    let seconds = choice.seconds(&SECONDS);
    let mut text = String::new();
    let mut wrong = Vec::new();
    for mode in modes(choice) {
        let runs = runs(&labels, &built, mode, choice)?;
        let (found, failed) = all(unfreed, &runs, &seconds, choice.is_again());
        text += &table::all(mode, &seconds, &found, &failed);
        wrong.extend(found.wrong_labels);
    }
    if !wrong.is_empty() {
        shell::say(&text);
        bail!("labels that are not true:\n{}", wrong.join("\n"));
    }
    Ok(text)
}

/// Those that were named, or the exact one.
fn modes(choice: &Choice) -> Vec<Mode> {
    let attached = Mode::all().filter(|mode| mode.options().is_some());
    let named: Vec<Mode> = attached
        .filter(|mode| choice.names_mode(mode.key()))
        .collect();
    match named[..] {
        [] => vec![Mode::Exact],
        _ => named,
    }
}

/// What is to be run: each program in each of its modes, with what is judged in it.
fn runs<'a>(
    labels: &'a [Label],
    built: &'a [(Language, Program)],
    mode: Mode,
    choice: &Choice,
) -> Result<Vec<Run<'a>>> {
    let mut runs: Vec<Run> = Vec::new();
    let is_wanted = |label: &&Label| {
        let of_half = choice.half().is_none_or(|half| label.half == half);
        let of_service =
            choice.has_service(label.program.key()) || choice.has_service(&label.run());
        of_half && of_service
    };
    for label in labels.iter().filter(is_wanted) {
        if let Some(run) = runs.iter_mut().find(|run| run.name() == label.run()) {
            run.labels.push(label);
            continue;
        }
        let program = built
            .iter()
            .find(|(language, _)| *language == label.program);
        let (_, program) = program.context("a program was not built")?;
        let labels = vec![label];
        runs.push(Run {
            labels,
            program,
            mode,
        });
    }
    ensure!(!runs.is_empty(), "the suite has no such behaviour");
    Ok(runs)
}

/// Runs all of them, in groups, and gathers what was found, and what failed.
fn all(unfreed: &Path, runs: &[Run<'_>], seconds: &[u64], again: bool) -> (Found, Vec<String>) {
    let groups = runs.len().div_ceil(BESIDE);
    let mut found = Found::default();
    let mut failed = Vec::new();
    for number in 0..groups {
        // Programs of all languages in each.
        let group: Vec<&Run> = runs.iter().skip(number).step_by(groups).collect();
        shell::say(format!(
            "verdicts: group {} of {groups}, {} programs side by side",
            number + 1,
            group.len()
        ));
        for (run, result) in group
            .iter()
            .zip(side_by_side(unfreed, &group, seconds, again))
        {
            match result {
                Ok(one) => {
                    found.outcomes.extend(one.outcomes);
                    found.wrong_labels.extend(one.wrong_labels);
                    let named = |title| format!("{}: {title}", run.name());
                    found.others.extend(one.others.into_iter().map(named));
                }
                Err(error) => failed.push(format!("{}: {error:#}", run.name())),
            }
        }
    }
    (found, failed)
}

fn side_by_side(
    unfreed: &Path,
    group: &[&Run<'_>],
    seconds: &[u64],
    again: bool,
) -> Vec<Result<Found>> {
    let starting = Mutex::new(());
    let one = |run: &Run<'_>| match again {
        true => run.again(unfreed, seconds),
        false => run.measure(unfreed, seconds, &starting),
    };
    let one = &one;
    thread::scope(|scope| {
        let threads: Vec<_> = group
            .iter()
            .map(|run| scope.spawn(move || one(run)))
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}
