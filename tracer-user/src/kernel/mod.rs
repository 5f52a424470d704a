//! The kernel side as user space sees it: the loaded object, its maps, its
//! memory.

pub mod batch;
pub mod btf;
pub mod counted;
mod detached;
pub mod footprint;
pub mod freed_since;
pub mod link;
pub mod mapped;
pub mod memory;
pub mod multi;
pub mod object;
pub mod origins;
mod perf_link;
pub mod program;
pub mod samplers;
mod syscall;
pub mod tables;
mod tracefs;
mod tracepoints;
pub mod usdt;
pub mod vms;
