//! Symbol tables, perf maps, and what names mean.

#[path = "../../../tracer-user/src/symbolize/demangle.rs"]
pub mod demangle;
#[path = "../../../tracer-user/src/symbolize/elf.rs"]
pub mod elf;
#[path = "../../../tracer-user/src/symbolize/symbols.rs"]
pub mod symbols;
