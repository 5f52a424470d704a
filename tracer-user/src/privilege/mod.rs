//! Whose rights are used for what: the tracer's own, which it gives up step
//! by step, those of the program that `unfreed run` starts, and those of a
//! JVM's user, as whom files are made in the JVM's folders.

pub mod caller;
pub mod capability;
pub mod describe;
pub mod environment;
pub mod file_identity;
pub mod limits;
pub mod program;
