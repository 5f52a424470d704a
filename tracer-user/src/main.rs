//! `unfreed` shows which call paths of a live process allocate native memory
//! that is never freed.

mod cli;
mod process;
mod report;
mod symbolize;

fn main() {}
