//! Attaching probes to allocators.

pub mod placement;
pub mod probes;
