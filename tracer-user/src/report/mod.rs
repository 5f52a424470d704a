//! Reports: the model, and one exporter a file.

pub mod gate;
pub mod model;
pub mod names;
pub mod text;
pub mod units;

#[cfg(test)]
pub mod sample;
