//! Attaching probes to allocators.

pub mod guarded;
pub mod inspect;
pub mod jump;
pub mod placement;
pub mod probes;
pub mod rest;
pub mod stretch;
