//! Watching a host for weeks: what is watched (`config`, `discovery`, `services`), which of it is
//! looked at closer (`agenda`, `look`), what is
//! kept of it (`keeper`, `store`, `status`), and what others are told (`http`).

pub mod agenda;
pub mod config;
pub mod discovery;
pub mod http;
pub mod keeper;
pub mod listen;
pub mod look;
pub mod services;
pub mod status;
pub mod store;
