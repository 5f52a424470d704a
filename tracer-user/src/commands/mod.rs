//! The verbs of the command line, one a file.

mod answering;
pub mod ask;
pub mod attach;
pub mod completions;
pub mod diff;
pub mod doctor;
mod holders;
mod look;
mod looking;
pub mod manual;
pub mod probes;
pub mod publisher;
pub mod record;
pub mod report;
pub mod run;
mod said;
mod searching;
pub mod serve;
pub mod tables;
pub mod top;
mod top_service;
