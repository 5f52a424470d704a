//! The table of answers.

use anyhow::Result;

use super::answer::{Answer, Covers};
use super::leaky::Subject;
use super::{Mode, Run};
use crate::bench::looks;

pub(super) fn all(seconds: &[u64], rows: &[String]) -> String {
    let times: Vec<_> = seconds.iter().map(|at| format!("after {at} s")).collect();
    format!(
        "One run each. The place of the leak's first row in the table, how far its live bytes \
         are off, and whether the truth is in the stated interval of 95 %: *within*; *with the \
         factor* that by the report all numbers of bursts share; *outside*; *exact* (nothing is \
         estimated, and off by less than 0.2 %, which is what is known of the moment); or \
         nothing is stated. `?`: marked as too little seen to be ranked. \"First from\": from \
         which report on it came first in all.\n\n\
         | program | traced by | {} | first from | the tracer beside |\n|---|---|{}---|---|\n{}",
        times.join(" | "),
        "---|".repeat(seconds.len()),
        rows.concat()
    )
}

pub(super) fn row(
    subject: Subject,
    mode: Mode,
    seconds: &[u64],
    run: Result<&Run, &anyhow::Error>,
) -> String {
    let (name, mode) = (subject.name(), mode.name());
    match run {
        Ok(run) => {
            let cells: Vec<_> = seconds.iter().map(|at| cell(run, *at)).collect();
            format!(
                "| {name} | {mode} | {} | {} | {:.1} ms/s, {:.0} MiB |\n",
                cells.join(" | "),
                first_from(&run.answers),
                run.beside.processor * 1e3,
                run.beside.resident as f64 / f64::from(1 << 20)
            )
        }
        Err(error) => {
            let why = format!("{error:#}").replace(['\n', '|'], " ");
            let why: String = why.chars().take(300).collect();
            format!(
                "| {name} | {mode} | failed: {why} |{}\n",
                " |".repeat(seconds.len() + 1)
            )
        }
    }
}

/// What the report nearest to this time said.
fn cell(run: &Run, seconds: u64) -> String {
    let Some(answer) = looks::nearest(&run.answers, seconds, |answer| answer.duration) else {
        return "no report".to_owned();
    };
    let Some(rank) = answer.rank else {
        return "not seen".to_owned();
    };
    let unsure = if answer.unsure { "?" } else { "" };
    let lost = if answer.lost { "≥ " } else { "" };
    let covers = match answer.covers(&run.truth) {
        Covers::Exact => ", exact",
        Covers::Within => ", within",
        Covers::WithFactor => ", with the factor",
        Covers::Outside => ", outside",
        Covers::Unstated => "",
    };
    let error = 100.0 * answer.error(&run.truth);
    let error = match error.abs() < 0.05 {
        true => "0.0".to_owned(),
        false => format!("{error:+.1}"),
    };
    format!("{rank}.{unsure} {lost}{error} %{covers}")
}

/// From when on the leak was first in all reports.
fn first_from(answers: &[Answer]) -> String {
    let first = |answer: &&Answer| answer.rank == Some(1);
    match answers.iter().rev().take_while(first).last() {
        Some(answer) => format!("{:.0} s", answer.duration),
        None => "never".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::truth::Truth;
    use super::*;
    use crate::bench::modes::Beside;

    #[test]
    fn an_answer_is_compared_with_what_was_true_then() {
        let answer = |duration: f64, rank, live| Answer {
            began: 100.0,
            duration,
            rank,
            live,
            range: None,
            factor: 0.1,
            lost: false,
            unsure: false,
        };
        let mut truth = Truth::default();
        for line in ["truth 100.0 1000", "truth 200.0 2000"] {
            truth.hear(line);
        }
        let estimate = |duration, live, low, high| Answer {
            range: Some((low, high)),
            ..answer(duration, Some(1), live)
        };
        let mut run = Run {
            answers: vec![
                answer(10.01, Some(2), 100.1),
                estimate(20.0, 220.0, 190.0, 250.0),
                estimate(30.0, 200.0, 180.0, 280.0),
                estimate(40.0, 300.0, 280.0, 330.0),
                Answer {
                    lost: true,
                    ..answer(50.0, Some(1), 250.0)
                },
                answer(60.0, None, 0.0),
            ],
            truth,
            beside: Beside::default(),
        };
        let cells = |run: &Run| [10, 20, 30, 40, 50, 60, 70].map(|at| cell(run, at));
        assert_eq!(
            cells(&run),
            [
                "2. 0.0 %, exact",
                "1. +10.0 %, within",
                "1. -33.3 %, with the factor",
                "1. -25.0 %, outside",
                "1. ≥ -50.0 %",
                "not seen",
                "no report",
            ]
        );
        assert_eq!(first_from(&run.answers), "never");
        run.answers.pop();
        assert_eq!(first_from(&run.answers), "20 s");
        let row = row(Subject::C, Mode::Exact, &[10], Ok(&run));
        assert!(
            row.ends_with("| exact | 2. 0.0 %, exact | 20 s | 0.0 ms/s, 0 MiB |\n"),
            "{row}"
        );
        let failed = super::row(
            Subject::C,
            Mode::Exact,
            &[10, 20],
            Err(&anyhow::anyhow!("a\nb")),
        );
        assert!(
            failed.ends_with("| exact | failed: a b | | | |\n"),
            "{failed}"
        );
    }
}
