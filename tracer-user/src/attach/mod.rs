//! Attaching probes to allocators.

pub mod allocator;
pub mod copied;
pub mod guarded;
pub mod inspect;
pub mod jump;
pub mod known;
pub mod library;
pub mod linkage;
pub mod loader;
pub mod placement;
pub mod plan;
pub mod probes;
pub mod rest;
pub mod returns;
pub mod sampler;
pub mod stretch;
pub mod symbols;
pub mod walkers;
