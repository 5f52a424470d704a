//! What was counted until a moment, and what is new since another.

pub mod collect;
pub mod curves;
pub mod retired;
pub mod windows;
