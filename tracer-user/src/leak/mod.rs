//! What is live, where it came from, and since when.

pub mod collect;
pub mod ledger;
pub mod retired;
pub mod share;
pub mod window;
