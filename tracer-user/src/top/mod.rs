//! `unfreed top`: what is shown (`model`, made of `rows` and their `history`; `key` says what a
//! key does, `draw` how it looks), apart from where it comes from (`feed`) and the terminal
//! (`screen`, `messages`).

mod draw;
mod export;
pub mod feed;
mod history;
mod key;
pub mod messages;
mod model;
mod rows;
pub mod screen;
mod trend;

#[cfg(test)]
mod tests;

pub use model::Model;
