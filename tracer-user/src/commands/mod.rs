//! The verbs of the command line, one a file.

pub mod doctor;
pub mod record;
pub mod run;
