//! How right `--holders` is on programs whose blocks have labels, and what the search costs a
//! service.

mod labelled;
mod loaded;

use std::path::Path;

use anyhow::Result;

use crate::targets;

/// Measures both, and makes the tables.
///
/// # Errors
/// Fails if a program or a tracer does not start, or a report cannot be read.
pub(super) fn measure(unfreed: &Path) -> Result<String> {
    targets::build_all()?;
    let labelled = labelled::measure(unfreed)?;
    let loaded = loaded::measure(unfreed)?;
    Ok(format!("{labelled}\n{loaded}"))
}
