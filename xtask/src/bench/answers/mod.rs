//! How good the answers are over time: programs that leak at a rate that they know, beside
//! much that comes and goes, each traced in every way; the leak's place in the table, how
//! far its live bytes are off, and whether the stated interval has the truth.

mod answer;
mod leaky;
mod table;
mod truth;

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result};

use self::answer::Answer;
use self::leaky::Leaky;
use self::leaky::Subject;
pub(super) use self::leaky::keys;
use self::truth::Truth;
use super::choice::Choice;
use super::looks::{self, LATE};
use super::modes::{Beside, Mode, Watch};
use super::seen;
use super::service::Launch;
use super::tracer::Tracer;
use crate::shell;

/// When runs are looked at, seconds.
pub(super) const SECONDS: [u64; 3] = [10, 60, 300];

/// What it takes to start and to end a run, seconds.
const AROUND: u64 = 4;

/// One run, from its reports, and what is true.
struct Run {
    answers: Vec<Answer>,
    truth: Truth,
    beside: Beside,
}

/// Measures all, and makes the table. What fails has the reason in its place.
pub(super) fn measure(unfreed: &Path, choice: &Choice) -> String {
    let seconds = choice.seconds(&SECONDS);
    let cells = cells(choice);
    let each = seconds.last().copied().unwrap_or(0) + AROUND;
    let mut rows = Vec::new();
    for (number, (subject, mode)) in cells.iter().enumerate() {
        let left = each * (cells.len() - number) as u64;
        shell::say(format!(
            "answers: {}, {}: run {} of {}, some {} minutes to go",
            subject.key(),
            mode.key(),
            number + 1,
            cells.len(),
            left.div_ceil(60)
        ));
        let run = run(unfreed, *subject, *mode, &seconds);
        if let Err(error) = &run {
            shell::say(format!(
                "answers: {}, {}: {error:#}",
                subject.key(),
                mode.key()
            ));
        }
        let row = table::row(*subject, *mode, &seconds, run.as_ref());
        shell::say(&row);
        rows.push(row);
    }
    table::all(&seconds, &rows)
}

/// What is to be run, each program in every way.
fn cells(choice: &Choice) -> Vec<(Subject, Mode)> {
    let mut cells = Vec::new();
    for subject in Subject::all().filter(|subject| choice.has_service(subject.key())) {
        for mode in Mode::all().filter(|mode| choice.has_mode(mode.key())) {
            // heaptrack tells nothing before its end.
            if mode != Mode::Heaptrack {
                cells.push((subject, mode));
            }
        }
    }
    cells
}

fn run(unfreed: &Path, subject: Subject, mode: Mode, seconds: &[u64]) -> Result<Run> {
    let last = seconds.last().copied().context("no time to look at it")?;
    let file = seen::new_file("answers.json")?;
    let interval = format!("{}s", looks::interval(seconds));
    let told = ["--interval", &interval, "-o"].map(OsStr::new);
    let told = [&told[..], &[file.as_os_str()]].concat();
    let Some(options) = mode.options() else {
        let launch = Launch::Sampler {
            unfreed,
            options: &told,
        };
        let leaky = Leaky::start(subject, &launch)?;
        let watch = Watch::begin(&leaky.root(), Some(leaky.pid()));
        let answers = look(&file, subject, last)?;
        return finish(leaky, answers, watch.end()?);
    };
    let leaky = Leaky::start(subject, &Launch::Plain)?;
    let arguments = options.iter().map(OsStr::new).chain(told.iter().copied());
    let lifetime = u32::try_from(last + LATE)?;
    let tracer = Tracer::unfreed(unfreed, &leaky.pid(), lifetime, arguments)?;
    let watch = Watch::begin(&tracer.pid(), None);
    let answers = look(&file, subject, last)?;
    let beside = watch.end()?;
    tracer.stop()?;
    tracer.rest()?;
    finish(leaky, answers, beside)
}

fn finish(leaky: Leaky, answers: Vec<Answer>, beside: Beside) -> Result<Run> {
    Ok(Run {
        answers,
        truth: leaky.end()?,
        beside,
    })
}

/// Reads each report as soon as it is there.
fn look(file: &Path, subject: Subject, last: u64) -> Result<Vec<Answer>> {
    let answers = looks::each(file, last, |file| {
        let answer = Answer::read(file, subject.function())?;
        Ok((answer.duration, answer))
    })?;
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_is_traced_in_every_way() {
        assert_eq!(cells(&Choice::default()).len(), 25);
    }
}
