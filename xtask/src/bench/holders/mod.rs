//! How right `--holders` is on programs whose blocks have labels, and what the search costs a
//! service.

mod labelled;
mod loaded;
mod reported;

use std::path::Path;

use anyhow::Result;

use super::choice::Choice;
use crate::targets;

/// Measures both, and makes the tables.
///
/// # Errors
/// Fails if a program or a tracer does not start, or a report cannot be read.
pub(super) fn measure(unfreed: &Path, choice: &Choice) -> Result<String> {
    targets::build_all()?;
    let labelled = labelled::measure(unfreed, choice)?;
    let loaded = loaded::measure(unfreed, choice)?;
    Ok(format!("{labelled}\n{loaded}"))
}
