//! The verbs of the command line, one a file.

pub mod completions;
pub mod diff;
pub mod manual;
pub mod report;
