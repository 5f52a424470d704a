//! What is written, and what is shown.

use std::path::PathBuf;

use clap::Args;

use super::args::{Format, size};
use super::table::TableArgs;
use crate::grouping::Asked;

/// The long help of `--group`.
pub const GROUP: &str = "\
Write what REGEX matches in a function's name as NAME, before generated names become one: call \
paths that are the same then are one row. It may be given several times; each rule sees what those \
before it made.

Names that generators are known to make (lambdas, proxies, accessors, scripts, closures) are one \
anyway, and so are those that differ in a number alone, if there are ten and more of them. This is for \
all others. A function that is named so is the same in every file and at every address, but not at \
every line.

REGEX is a regular expression and matches anywhere in the name; $1 and ${name} in NAME are its \
groups, and $$ is a dollar sign. What the names were is in the JSON report (originals).

    sudo unfreed record -p 1234 --group 'Handler[0-9]+=Handler*' --duration 60s
    unfreed diff monday.json friday.json --group '(v[0-9]+)::=vN::'";

/// What to write.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Write a report; the extension tells the format (repeatable, - is standard output)
    #[arg(short, long = "output", value_name = "FILE")]
    pub outputs: Vec<PathBuf>,
    /// Format of outputs whose name does not tell it
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// What the table shows.
    #[command(flatten)]
    pub table: TableArgs,
    /// Write what REGEX matches in a function's name as NAME, before generated names become
    /// one: call paths that are the same then are one row (repeatable)
    #[arg(long = "group", value_name = "REGEX=NAME", long_help = GROUP)]
    pub groups: Vec<Asked>,
    /// Exit with status 3 when more than this is live at the end
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub fail_above: Option<u64>,
    /// Exit with status 3 when the resident set grew by more than this
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub fail_growth_above: Option<u64>,
}
