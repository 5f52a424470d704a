//! Who has a pointer to live blocks: a process's memory is searched from outside, without
//! stopping it, as a leak detector within it would do.
//!
//! What pointers can lead to are *nodes*: all traced live blocks, and the chunks of glibc's
//! and jemalloc's heaps that are in use and not traced. From *areas* that hold pointers without
//! being held themselves (files' variables, stacks and thread-locals, other mappings) all nodes are
//! marked that a word leads to, anywhere into them, then those that these lead to, and so on:
//! each word is read once, and the first mark of a node is the shortest way to it. What has no
//! mark in two looks is lost.

pub mod areas;
mod budget;
mod ends;
mod glibc;
mod heaps;
mod jemalloc;
mod look;
mod mark;
mod members;
mod memory;
mod naming;
mod nodes;
mod nptl;
mod places;
mod reader;
mod segments;
mod settle;
mod threads;
mod variables;
mod way;
mod young;

pub use budget::Allowance;
pub use look::{Job, Key, Look, Traced};
pub use naming::Namer;
pub use settle::{ByJava, Found, OfSite, Outcome, settle};
pub use way::RawLink;
