//! The kernel's types.

#[path = "../../../tracer-user/src/kernel/btf.rs"]
mod btf;

/// Looks for a structure's member in BTF of any content.
pub fn member(btf: &[u8]) -> Option<u32> {
    let structures = btf::Structures::find(btf, &["task_struct"]).ok()?;
    structures.offset("task_struct", "mm").ok()
}
