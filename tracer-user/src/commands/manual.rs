//! `unfreed manual`: the man pages as files.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::cli::args::Cli;

/// Writes `unfreed.1` and a page for each verb into an existing folder.
///
/// # Errors
/// Fails when a page cannot be written.
pub fn run(folder: &Path) -> Result<ExitCode> {
    clap_mangen::generate_to(Cli::command(), folder)
        .with_context(|| format!("cannot write the man pages into {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
