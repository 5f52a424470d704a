//! `unfreed` shows which call paths of a live process allocate native memory
//! that is never freed.

mod allocator;
mod attach;
mod cli;
mod kernel;
mod leak;
mod process;
mod report;

fn main() {}
