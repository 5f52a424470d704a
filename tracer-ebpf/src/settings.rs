//! What the loader tells the BPF programs before they are verified.

use crate::sample::Sampling;

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
    /// Offsets in the kernel's `uprobe_task` and `return_instance`.
    pub hijack: Hijack,
    /// Offset of `length` in the kernel's `vm_unmapped_area_info`.
    pub unmapped_length: u32,
    /// 1 if call paths are told apart by thread.
    pub threads: u32,
    /// Offset of `pid` (the thread's id) in the kernel's `task_struct`.
    pub task_pid: u32,
    /// Offset of `signal` (what the threads share) in it.
    pub task_signal: u32,
    /// Offset of `flags` in the kernel's `signal_struct`.
    pub signal_flags: u32,
    /// Offset of `live` (threads that have not begun to end) in it.
    pub signal_live: u32,
    /// Offset of `group_exit_code` in it.
    pub signal_exit_code: u32,
    /// Offset of `exit_code` in the kernel's `task_struct`.
    pub task_exit_code: u32,
    /// Offset of `group_leader` (the first thread) in it.
    pub task_leader: u32,
    /// Offset of `ptrace` (whether it is traced by ptrace) in the kernel's
    /// `task_struct`.
    pub task_ptrace: u32,
    /// Offset of `parent` (who is told of it: its tracer, if it has one) in it.
    pub task_parent: u32,
    /// Offset of `blocked` (the signals that have to wait) in it.
    pub task_blocked: u32,
    /// 1 if processes that run the same program share their call paths.
    pub by_program: u32,
    /// Where the kernel tells which file is mapped.
    pub mapped: Mapped,
    /// Offset of `brk` (where the heap ends that it moves) in the kernel's
    /// `mm_struct`.
    pub mm_brk: u32,
    /// Which allocations are chosen, if not all.
    pub sampling: Sampling,
    /// Offset of `pagefault_disabled` (whether it must not bring pages in now) in the
    /// kernel's `task_struct`.
    pub task_no_faults: u32,
    /// Offset of `stack` (the kernel's own, for the thread) in it.
    pub task_stack: u32,
    /// 1 if a budget changes during the run what is followed; see [`crate::phase`].
    pub budget: u32,
    /// Offset of `thread.fsbase` (where the thread's own variables are) in the kernel's
    /// `task_struct`.
    pub task_fs: u32,
    /// 1 if calls are followed that some code makes, and no others; see [`crate::origin`].
    pub origins: u64,
}

/// Offsets in the kernel's structures on the way from a mapping to its file.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Mapped {
    /// Of `vm_start` in `vm_area_struct`.
    pub start: u32,
    /// Of `vm_end` in it.
    pub end: u32,
    /// Of `vm_pgoff` in it: where it begins in its file, pages.
    pub page_offset: u32,
    /// Of `vm_file` in it.
    pub file: u32,
    /// Of `f_inode` in `file`.
    pub inode: u32,
    /// Of `f_mode` in it.
    pub mode: u32,
    /// Of the dentry of `user_path` in `backing_file`: what a file on
    /// overlayfs passes for. 0 if the kernel has none.
    pub backing_dentry: u32,
    /// Of `d_inode` in `dentry`.
    pub dentry_inode: u32,
    /// Of `i_ino` in `inode`.
    pub inode_number: u32,
    /// Of `i_sb` in it.
    pub inode_sb: u32,
    /// Of `s_dev` in `super_block`.
    pub device: u32,
    /// Of `exe_file` in `mm_struct`: the program.
    pub program: u32,
}

/// Where the kernel keeps return addresses that return probes replaced:
/// `task->utask->return_instances`, a list. All zero if it is not known.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Hijack {
    /// Offset of `return_instances` in `uprobe_task`.
    pub instances: u32,
    /// Offset of `stack` in `return_instance`: where the return address was.
    pub stack: u32,
    /// Offset of `orig_ret_vaddr`: what it was.
    pub original: u32,
    /// Offset of `next`.
    pub next: u32,
}

// SAFETY: repr(C), fields fill all 200 bytes, any bit pattern is valid.
unsafe impl crate::Record for Settings {}

/// In the map `ACTIVE`: events count, and calls end at return probes.
pub const RETURN_PROBES: u64 = 1;

/// In the map `ACTIVE`: events count, and calls end at return instructions.
pub const RETURN_INSTRUCTIONS: u64 = 2;

/// In the map `ACTIVE`: events count, and entries and returns are told by session links,
/// but for functions that may throw.
pub const SESSIONS: u64 = 3;
