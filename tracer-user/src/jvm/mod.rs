//! HotSpot, the Java virtual machine, seen from outside.

pub mod account;
pub mod attach;
pub mod counters;
pub mod growth;
pub mod heap_samples;
pub mod heap_watch;
pub mod histogram;
mod nmt;
