//! What a table of call paths shows.

use clap::{Args, ValueEnum};

use crate::model::RowNumber;

/// Which rows, in which order, and how much of each.
#[derive(Debug, Clone, Default, Args)]
pub struct TableArgs {
    /// Rows of the table [default: 10, without those that hold less than 1 % and do not grow]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// What comes first
    #[arg(long, value_enum, default_value_t)]
    pub sort: Sort,
    /// Show all frames of a call path, also those of allocators, runtimes and thread starts
    #[arg(long)]
    pub all_frames: bool,
    /// Say what speaks for and against the verdict on finding or row N
    #[arg(long, value_name = "N", long_help = EXPLAIN)]
    pub explain: Option<RowNumber>,
}

const EXPLAIN: &str = "\
Say what speaks for and against the verdict on finding or row N: what was live over time, what \
came and went, how long blocks lived and how old those are that are live, and the whole call path with \
the names that functions had before generated ones became one.

Findings and rows have one numbering. Of a finding of several call paths the largest has its \
number, and the next ones are N.2, N.3, … With record and run the explanation comes after the \
table of the whole run; with report in the place of the table.

    unfreed report monday.json --explain 1";

/// The order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Sort {
    /// What leaks, what grows, then what holds most
    #[default]
    Growth,
    /// What holds most memory
    Live,
    /// What allocates most bytes a second
    Rate,
    /// What holds the oldest block
    Age,
}
