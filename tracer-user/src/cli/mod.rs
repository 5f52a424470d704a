//! The command line.
pub mod args;
mod output;
pub mod serve;
pub mod table;
