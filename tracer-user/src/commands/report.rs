//! `unfreed report`: a saved report, rendered again.

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::args::ReportArgs;
use crate::grouping::{Rules, group_saved};
use crate::privilege::capability::Phase;
use crate::report::{gate, input, output, text};
use crate::verdict;

/// Prints the table, writes the outputs and applies the gates. The table
/// stays away from standard output when an output goes there.
///
/// # Errors
/// Fails when the report cannot be read or an output cannot be written.
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
    if !output::takes_stdout(&outputs) {
        text::print(&report, args.output.top)?;
    }
    output::write(&outputs, &report)?;
    Ok(gate::exit_code(
        &report,
        args.output.fail_above,
        args.output.fail_growth_above,
    ))
}
