//! Attaching probes to allocators.

pub mod library;
pub mod linkage;
pub mod placement;
pub mod plan;
pub mod probes;
pub mod returns;
pub mod symbols;
pub mod walkers;
