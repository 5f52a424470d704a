//! Reports.
pub mod model;
