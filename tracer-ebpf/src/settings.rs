//! What the loader tells the BPF programs before they are verified.

/// Read-only data of the BPF object, set at load.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Settings {
    /// Allocations below this many bytes get no site and no block.
    pub min_size: u64,
    /// Seed of the stack hash, so that a target cannot aim for collisions.
    pub hash_seed: u64,
    /// Offset of `tgid` (the process' id) in the kernel's `task_struct`.
    pub task_tgid: u32,
    /// Offset of `mm` (the address space) in the kernel's `task_struct`.
    pub task_mm: u32,
    /// Offset of `utask` (what uprobes keep about the thread) in the kernel's
    /// `task_struct`.
    pub task_utask: u32,
    /// 1 if children are traced too.
    pub follow: u32,
}

// SAFETY: repr(C), fields fill all 32 bytes, any bit pattern is valid.
unsafe impl crate::Record for Settings {}
