//! `unfreed` shows which call paths of a live process allocate native memory
//! that is never freed.

mod cli;
mod commands;
mod report;

use std::process::ExitCode;

use clap::Parser;

use cli::args::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Report(args) => commands::report::run(&args),
        Command::Diff(args) => commands::diff::run(&args),
        Command::Completions { shell } => commands::completions::run(shell),
        Command::Manual { folder } => commands::manual::run(&folder),
        Command::Record(_) | Command::Run(_) | Command::Doctor(_) => {
            Err(anyhow::anyhow!("this build only renders reports"))
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("unfreed: {error:#}");
        ExitCode::FAILURE
    })
}
