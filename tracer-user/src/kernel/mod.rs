//! The kernel side as user space sees it: the loaded object, its maps, its
//! memory.

pub mod batch;
pub mod btf;
pub mod footprint;
pub mod mapped;
pub mod object;
mod syscall;
