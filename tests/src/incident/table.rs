//! All trials as a table, and what they come to.

use std::fmt;

use anyhow::Result;

use super::Incident;
use super::judge::{Outcome, Verdict};
use super::trial::{Trial, Variant};
use crate::jdk::Jdk;

/// What is read out of the table.
const LEGEND: &str = "\
diagnosed  the class grows, by what the program holds, and most samples of it were taken on its
           path; native blocks are as many as the program holds, on their path, and first among
           the heap's sites (malloc): a JVM's mappings are larger, and are its own.
           Objects without a sample must have native blocks, whose path is judged.
quiet      no class of the program grows, and no native block on the path is live
seconds    from the tracer's start to its report
overhead   a round's time under the tracer, by that without; the programs do little but allocate";

/// The trials so far.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    jdk: String,
    program: String,
    trial: Result<Trial>,
}

impl Table {
    /// Runs one more trial. That it cannot be run is a row too.
    pub fn run(&mut self, jdk: &Jdk, incident: &Incident, variant: Variant) {
        let twin = match variant {
            Variant::Leaking => "",
            Variant::Healthy => " twin",
        };
        self.rows.push(Row {
            jdk: jdk.name.clone(),
            program: format!("{}{twin}", incident.name),
            trial: Trial::run(jdk, incident, variant),
        });
    }

    /// Whether there is a trial, and the tracer was right in each.
    pub fn is_good(&self) -> bool {
        let is_good = |row: &Row| {
            row.trial
                .as_ref()
                .is_ok_and(|trial| trial.verdict.is_right())
        };
        !self.rows.is_empty() && self.rows.iter().all(is_good)
    }

    /// The last trial's line.
    pub fn last(&self) -> String {
        self.rows.last().map(Row::to_string).unwrap_or_default()
    }

    /// The names of the columns.
    pub fn head() -> String {
        format!(
            "{:<12} {:<24} {:<12} {:>7} {:>9} {:>8}  named",
            "JDK", "incident", "verdict", "seconds", "us/round", "overhead"
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12} {:<24} ", self.jdk, self.program)?;
        let trial = match &self.trial {
            Ok(trial) => trial,
            Err(error) => return write!(f, "broken: {error:#}"),
        };
        write!(
            f,
            "{:<12} {:>7.2} {:>9.2} {:>7.2}x  {}",
            trial.verdict,
            trial.seconds,
            trial.round * 1e6,
            trial.overhead,
            trial.named
        )?;
        for finding in &trial.findings {
            match &finding.outcome {
                Outcome::Fails(how) => write!(f, "\n    {}: {how}", finding.what)?,
                Outcome::NotJudged(why) => {
                    write!(f, "\n    {} cannot be judged: {why}", finding.what)?;
                }
                Outcome::Holds => {}
            }
        }
        Ok(())
    }
}

/// What the trials come to.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdicts: Vec<Verdict> = self
            .rows
            .iter()
            .flat_map(|row| &row.trial)
            .map(|trial| trial.verdict)
            .collect();
        write!(f, "{} trials:", self.rows.len())?;
        for verdict in [
            Verdict::Diagnosed,
            Verdict::Quiet,
            Verdict::Missed,
            Verdict::FalseAlarm,
            Verdict::NotJudged,
        ] {
            let count = verdicts.iter().filter(|one| **one == verdict).count();
            write!(f, " {count} {verdict},")?;
        }
        write!(f, " {} broken", self.rows.len() - verdicts.len())?;
        write!(f, "\n{LEGEND}")
    }
}
