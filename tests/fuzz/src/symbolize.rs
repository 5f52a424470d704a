//! Symbol tables.

#[path = "../../../tracer-user/src/symbolize/elf.rs"]
pub mod elf;
#[path = "../../../tracer-user/src/symbolize/symbols.rs"]
pub mod symbols;
