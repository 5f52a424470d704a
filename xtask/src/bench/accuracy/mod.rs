//! How exact and how whole what the tracer says is: counts of programs that know
//! them, under each allocator; the balance of the resident sets of real services; and
//! cases from reports of people, which have a right answer.

mod balance;
mod jvm;
mod known;
mod load;
mod nginx;
mod postgres;
mod redis;
mod scripts;

use std::path::Path;

use anyhow::Result;

use crate::programs::EndToEnd;
use crate::setup::{self, Group};
use crate::shell;

/// Measures all, and makes the tables.
///
/// # Errors
/// Fails if a program is not there or fails, and if a count that has to be exact is
/// not.
pub(super) fn measure(unfreed: &Path) -> Result<String> {
    setup::ensure(&[Group::Services])?;
    let services = balance::measure(unfreed)?;
    shell::say(&services);
    let tests = EndToEnd::build()?;
    Ok(format!(
        "Services whose resident set grows while they are traced:\n\n{}\n\
         Programs that know what they allocate:\n\n{}\n\
         Cases:\n\n{}",
        services,
        known::matrix(&tests)?,
        known::cases(&tests)?
    ))
}
