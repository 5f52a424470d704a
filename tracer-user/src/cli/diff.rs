//! The arguments of `unfreed diff`.

use std::path::PathBuf;

use clap::Args;

use super::args::Format;
use super::output::GROUP;
use crate::grouping::Asked;

/// `unfreed diff`
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The earlier report (.json or .pb.gz)
    pub before: PathBuf,
    /// The later report (.json or .pb.gz)
    pub after: PathBuf,
    /// Write the difference (.svg, .folded or .json; repeatable, - is standard output)
    #[arg(short, long = "output", value_name = "FILE")]
    pub outputs: Vec<PathBuf>,
    /// Format of outputs whose name does not tell it
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Rows of each table
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// Show all frames of a call path, also those of allocators, runtimes and thread starts
    #[arg(long)]
    pub all_frames: bool,
    /// Write what REGEX matches in a function's name as NAME, before generated names become
    /// one: call paths that are the same then are one row (repeatable)
    #[arg(long = "group", value_name = "REGEX=NAME", long_help = GROUP)]
    pub groups: Vec<Asked>,
}
