//! Reports: the model, and one exporter a file.

pub mod brief;
pub mod class_loading;
pub mod destination;
pub mod diff;
pub mod flamegraph;
pub mod folded;
pub mod gate;
pub mod held_by;
pub mod hidden;
pub mod input;
pub mod java;
pub mod java_growth;
pub mod json;
pub mod kept_by;
pub mod long_names;
pub mod names;
pub mod numbers;
pub mod output;
pub mod own;
pub mod owned;
pub mod pool;
pub mod pprof;
pub mod profile;
pub mod retention;
pub mod text;
pub mod units;
pub mod words;

#[cfg(test)]
mod huge;
#[cfg(test)]
pub mod sample;
