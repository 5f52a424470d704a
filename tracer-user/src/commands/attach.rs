//! `unfreed attach`: what a running `serve` knows of a service, for scripts.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::report::present;
use crate::cli::args::Format;
use crate::cli::server::AttachArgs;
use crate::grouping::{Rules, group_saved};
use crate::privilege::capability::Phase;
use crate::report::output::{self, Output};
use crate::report::profile::Picture;
use crate::serve::client::{Client, Moment};
use crate::verdict;
use crate::visible::clean;

/// Gets the report of the last window, and treats it as `report` does a saved one; or gets the
/// profile of another moment, and writes it.
///
/// # Errors
/// Nobody answers, the service is not known, or an output cannot be written.
pub fn run(args: &AttachArgs) -> Result<ExitCode> {
    Phase::Reporting.start()?;
    let outputs = output::resolve(&args.output.outputs, args.output.format)?;
    let is_profile = args.window.is_some() || args.seconds.is_some();
    if is_profile {
        check(args, &outputs)?;
    }
    output::check(&outputs)?;
    let client = args.server.client()?;
    if is_profile {
        write_profile(args, &outputs, &client)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = client.report(&args.service, args.look)?;
    if !args.output.groups.is_empty() {
        group_saved(&mut report, &Rules::new(&args.output.groups)?);
        verdict::conclude(&mut report);
    }
    present(&report, &args.output, &outputs)
}

/// What is kept of another moment is a profile: that is enough for call paths, and for no
/// more.
fn check(args: &AttachArgs, outputs: &[Output]) -> Result<()> {
    let is_drawn = |output: &Output| {
        let format = output.format();
        matches!(format, Format::Svg | Format::Folded | Format::Pprof)
    };
    if let Some(output) = outputs.iter().find(|output| !is_drawn(output)) {
        bail!(
            "-o {output}: with --window and --seconds there is a profile, which lacks what a report needs: give .svg, .folded or .pb.gz"
        );
    }
    let asked = &args.output;
    if !asked.groups.is_empty()
        || asked.table.explain.is_some()
        || asked.fail_above.is_some()
        || asked.fail_growth_above.is_some()
    {
        bail!(
            "--group, --explain, --fail-above and --fail-growth-above need a report, and with --window and --seconds there is a profile"
        );
    }
    Ok(())
}

fn write_profile(args: &AttachArgs, outputs: &[Output], client: &Client) -> Result<()> {
    let moment = Moment {
        window: args.window,
        seconds: args.seconds.map(|time| time.as_secs()),
    };
    let packed = client.profile(&args.service, args.look, moment)?;
    let picture = Picture::of(&packed, title(args))?;
    output::write_each(outputs, |output| {
        output.write_with(|writer| match output.format() {
            Format::Pprof => Ok(writer.write_all(&packed)?),
            Format::Folded => Ok(picture.write_folded(writer)?),
            _ => picture.write_svg(writer),
        })
    })
}

fn title(args: &AttachArgs) -> String {
    let service = clean(&args.service);
    match (args.seconds, args.look) {
        (Some(time), _) => format!(
            "What came in {} at {service}",
            humantime::format_duration(time)
        ),
        (None, true) => format!("Live memory of {service}"),
        (None, false) => format!("Growth of {service}"),
    }
}
