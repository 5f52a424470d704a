//! Java virtual machines of the HotSpot kind.

pub mod events;
