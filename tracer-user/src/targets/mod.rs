//! The processes of a run: their images, the groups that they belong to, and what
//! each holds.

pub mod ages;
pub mod estimate;
pub mod groups;
pub mod images;
pub mod large_blocks;
pub mod ledger;
mod mapped_files;
mod pieces;
pub mod resident;
pub mod share;
pub mod status;
mod thread_stacks;
pub mod touched;
pub mod uncharged;
