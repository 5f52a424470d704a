//! `unfreed diff`: what changed between two reports.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::cli::args::DiffArgs;
use crate::grouping::Rules;
use crate::privilege::capability::Phase;
use crate::report::diff::{self, Snapshot};
use crate::report::text::{self, Layout};
use crate::report::{input, output};
use crate::verdict;

/// Prints what that says and the table of the most grown, and writes the outputs. The table stays
/// away from standard output when an output goes there.
///
/// # Errors
/// Fails when a report cannot be read, the two cannot be compared, or an
/// output cannot be written.
pub fn run(args: &DiffArgs) -> Result<ExitCode> {
    Phase::Reporting.start()?;
    let outputs = output::resolve(&args.outputs, args.format)?;
    outputs
        .iter()
        .try_for_each(|output| diff::check_format(output.format()))?;
    output::check(&outputs)?;
    let stdin = Path::new(input::STDIN);
    ensure!(
        args.before != stdin || args.after != stdin,
        "only one of the reports can be standard input"
    );
    let (before, after) = (Snapshot::read(&args.before)?, Snapshot::read(&args.after)?);
    let mut diff = diff::compare(before, after, &Rules::new(&args.groups)?)?;
    diff.findings = verdict::compared(&diff);
    if !output::takes_stdout(&outputs) {
        let mut layout = Layout::of_stdout();
        (layout.top, layout.all_frames) = (args.top, args.all_frames);
        text::print_text(&diff::render(&diff, &layout))?;
    }
    output::write_each(&outputs, |output| {
        output.write_with(|writer| diff::write(&diff, output.format(), writer))
    })?;
    Ok(ExitCode::SUCCESS)
}
