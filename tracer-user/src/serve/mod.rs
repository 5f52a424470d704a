//! Watching a host for weeks: what is watched (`config`, `discovery`, `container`, `services`),
//! which of it is looked at closer (`agenda`, `look`), for which findings who holds their blocks is
//! searched for (`searches`, and when somebody asks `wanted`), what is kept of it (`keeper`, `store`,
//! `status`), what the tracer itself took (`account`), and what others are told: when they ask
//! (`http`), and by ourselves (`push`). Other verbs ask it as `client`s.

pub mod account;
pub mod agenda;
pub mod client;
pub mod config;
pub mod container;
pub mod discovery;
mod gzip;
pub mod http;
pub mod keeper;
pub mod listen;
pub mod look;
mod powerless;
pub mod push;
pub mod searches;
pub mod services;
pub mod status;
pub mod store;
mod trust;
pub mod wanted;
#[cfg(test)]
mod week;
