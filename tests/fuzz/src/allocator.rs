//! Functions and their code.

#[path = "../../../tracer-user/src/attach/allocator/elf.rs"]
pub mod elf;
