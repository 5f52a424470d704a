//! The command line.
pub mod args;
mod output;
pub mod table;
