//! V8 from outside: the names of JavaScript's functions, read from the target's memory.
//! Nothing that is found there is trusted.

mod lines;
mod names;
mod scope;
mod strings;
#[cfg(test)]
mod tests;

pub use names::JavaScriptNames;
