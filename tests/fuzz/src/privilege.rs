//! What the reading of files gives up and takes.

#[path = "../../../tracer-user/src/privilege/capability.rs"]
pub mod capability;
