//! Functions and their code.

#[path = "../../../tracer-user/src/allocator/elf.rs"]
pub mod elf;
