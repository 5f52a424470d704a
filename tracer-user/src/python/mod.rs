//! CPython from outside: the names of its functions, read from the target's memory.
//! Nothing that is found there is trusted.

mod names;
#[cfg(test)]
mod tests;
mod text;

pub use names::PythonNames;
