//! `unfreed` shows which call paths of a live process allocate native memory
//! that is never freed.

#[cfg(test)]
mod alone;
mod asking;
mod attach;
mod budget;
mod cli;
mod commands;
mod duty;
mod engine;
mod explain;
mod grouping;
mod holders;
mod javascript;
mod jvm;
mod kernel;
mod model;
mod origins;
mod pattern;
mod privilege;
mod process;
mod python;
mod report;
mod serve;
mod session;
mod symbolize;
mod tables;
mod targets;
mod top;
mod unwind;
mod usdt;
mod verdict;
mod visible;
mod window;

use std::process::ExitCode;

use clap::Parser;

use cli::args::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Record(args) => commands::record::run(args),
        Command::Run(args) => commands::run::run(&args),
        Command::Serve(args) => commands::serve::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Holders(args) => commands::ask::run(&args),
        Command::Attach(args) => commands::attach::run(&args),
        Command::Top(args) => commands::top::run(args),
        Command::Report(args) => commands::report::run(&args),
        Command::Diff(args) => commands::diff::run(&args),
        Command::Probes(args) => commands::probes::run(&args),
        Command::Completions { shell } => commands::completions::run(shell),
        Command::Manual { folder } => commands::manual::run(&folder),
        Command::Tables(args) => commands::tables::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("unfreed: {error:#}");
        ExitCode::FAILURE
    })
}
