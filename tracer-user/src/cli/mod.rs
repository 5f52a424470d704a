//! The command line.
pub mod args;
pub mod ask;
mod diff;
mod holders;
mod output;
pub mod serve;
pub mod server;
pub mod table;
pub mod top;
