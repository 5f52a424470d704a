//! `unfreed holders`: who holds what, of a run that goes on.

use std::io::{Write, stdout};
use std::process::ExitCode;

use anyhow::{Result, anyhow};

use crate::asking::{Question, ask};
use crate::cli::ask::HoldersArgs;
use crate::explain;
use crate::model::{Report, RowNumber, Site};
use crate::privilege::capability::Phase;
use crate::report::json;
use crate::report::numbers::Numbers;
use crate::report::output::{self, Output};
use crate::report::text::{self, Layout};

/// Asks the run that traces a process, and prints what it says.
///
/// # Errors
/// No run traces it, nothing has the number, or an output cannot be written.
pub fn run(args: &HoldersArgs) -> Result<ExitCode> {
    Phase::Reporting.start()?;
    let outputs = output::resolve(&args.outputs, args.format)?;
    output::check(&outputs)?;
    let question = Question {
        pid: args.pid,
        sites: Vec::new(),
    };
    let report = ask(&question)?;
    let number = args.site.or(args.table.explain);
    let (report, number) = match number {
        Some(number) => {
            let (report, number) = searched(report, number, &question)?;
            (report, Some(number))
        }
        None => (report, None),
    };
    match args.json {
        true => write_json(&report, number)?,
        false => present(&report, number, args, &outputs)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The report in which the blocks of what has a number were searched for, and its number there. What
/// is not among the call paths that hold most is asked for again, by what the kernel knows it by.
fn searched(report: Report, number: RowNumber, question: &Question) -> Result<(Report, RowNumber)> {
    let sites = sites_of(&report, number)?;
    let is_known = sites.iter().any(|site| site.holders.is_some());
    let indices: Vec<u32> = sites.iter().flat_map(|it| it.indices.clone()).collect();
    if is_known || indices.is_empty() {
        return Ok((report, number));
    }
    let report = ask(&Question {
        pid: question.pid,
        sites: indices.clone(),
    })?;
    let is_it = |site: &&Site| site.indices.iter().any(|index| indices.contains(index));
    let site = report.sites.iter().find(is_it);
    let number = site.and_then(|site| Numbers::of(&report).of_site(site));
    let number = number.ok_or_else(|| anyhow!("nothing of it is live any more"))?;
    Ok((report, number))
}

/// The call paths of what has a number.
fn sites_of(report: &Report, number: RowNumber) -> Result<Vec<&Site>> {
    let numbers = Numbers::of(report);
    let found = numbers.find(report, number);
    let found = found.ok_or_else(|| no_such(number, numbers.last()))?;
    Ok(match (found.finding, found.site) {
        (Some(finding), _) if number.part == 1 => {
            let sites = report.sites.iter();
            sites.filter(|it| finding.sites.contains(&it.id)).collect()
        }
        (_, site) => site.into_iter().collect(),
    })
}

fn no_such(number: RowNumber, last: usize) -> anyhow::Error {
    anyhow!("nothing has the number {number}: the report has findings and rows up to {last}")
}

fn write_json(report: &Report, number: Option<RowNumber>) -> Result<()> {
    let mut out = stdout().lock();
    let Some(number) = number else {
        return Ok(json::write(report, &mut out)?);
    };
    let numbers = Numbers::of(report);
    let found = numbers.find(report, number);
    let found = found.ok_or_else(|| no_such(number, numbers.last()))?;
    match (found.finding, found.site) {
        (Some(finding), _) if number.part == 1 => serde_json::to_writer(&mut out, finding)?,
        (_, site) => serde_json::to_writer(&mut out, &site)?,
    }
    writeln!(out)?;
    Ok(())
}

fn present(
    report: &Report,
    number: Option<RowNumber>,
    args: &HoldersArgs,
    outputs: &[Output],
) -> Result<()> {
    if !output::takes_stdout(outputs) {
        match number {
            Some(number) => {
                text::print_text(&explain::render(report, number, &Layout::of_stdout())?)?;
            }
            None => text::print(report, &args.table)?,
        }
    }
    output::write(outputs, report)
}
