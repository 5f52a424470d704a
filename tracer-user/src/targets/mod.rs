//! The processes of a run: their images, the groups that they belong to, and what
//! each holds.

pub mod groups;
pub mod images;
pub mod ledger;
pub mod share;
pub mod status;
