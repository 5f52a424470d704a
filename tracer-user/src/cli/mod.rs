//! The command line.
pub mod args;
mod holders;
mod output;
pub mod serve;
pub mod table;
