//! `unfreed report`: a saved report, rendered again.

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::args::{OutputArgs, ReportArgs};
use crate::explain;
use crate::grouping::{Rules, group_saved};
use crate::model::Report;
use crate::privilege::capability::Phase;
use crate::report::output::{self, Output};
use crate::report::text::{self, Layout};
use crate::report::{gate, input};
use crate::verdict;

/// Prints the table, or the explanation that is asked for, writes the outputs and applies
/// the gates. Nothing is printed on standard output when an output goes there.
///
/// # Errors
/// Fails when the report cannot be read, nothing has the number that is to be explained, or
/// an output cannot be written.
pub fn run(args: &ReportArgs) -> Result<ExitCode> {
    Phase::Reporting.start()?;
    let outputs = output::resolve(&args.output.outputs, args.output.format)?;
    output::check(&outputs)?;
    let mut report = input::read_report(&args.file)?;
    group_saved(&mut report, &Rules::new(&args.output.groups)?);
    // One of a version that did not judge, or with other rows than it had.
    if report.findings.is_empty() || !args.output.groups.is_empty() {
        verdict::conclude(&mut report);
    }
    present(&report, &args.output, &outputs)
}

/// Prints the table of a judged report, or the explanation that is asked for, writes the
/// outputs and applies the gates. See [`run`].
///
/// # Errors
/// Nothing has the number that is to be explained, or an output cannot be written.
pub fn present(report: &Report, asked: &OutputArgs, outputs: &[Output]) -> Result<ExitCode> {
    let explained = asked.table.explain;
    let explained = explained.map(|number| explain::render(report, number, &Layout::of_stdout()));
    let explained = explained.transpose()?;
    if !output::takes_stdout(outputs) {
        match explained {
            Some(text) => text::print_text(&text)?,
            None => text::print(report, &asked.table)?,
        }
    }
    output::write(outputs, report)?;
    Ok(gate::exit_code(
        report,
        asked.fail_above,
        asked.fail_growth_above,
    ))
}
