//! The arguments of `unfreed top`.

use clap::{ArgGroup, Args};

use super::args::TraceArgs;
use super::server::ServerArgs;

const EXAMPLES: &str = "\
Examples:
  What does process 1234 leak, live?
      sudo unfreed top -p 1234
  A hot service with its workers, at no more than 1 % of their processor time:
      sudo unfreed top -p 1234 --follow --overhead 1%
  What the `serve` that watches this host knows of the service nginx:
      sudo unfreed top --service nginx";

/// `unfreed top`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("watched").required(true).args(["pids", "service"]))]
pub struct TopArgs {
    /// Process to trace (repeatable)
    #[arg(short, long = "pid", value_name = "PID", conflicts_with = "ServerArgs",
          value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub pids: Vec<u32>,
    /// Show what a running `serve` knows of this service; nothing is traced
    #[arg(long, value_name = "NAME", conflicts_with = "TraceArgs")]
    pub service: Option<String>,
    /// Whom to ask, with --service.
    #[command(flatten)]
    pub server: ServerArgs,
    /// How to trace, with --pid.
    #[command(flatten)]
    pub trace: TraceArgs,
}
