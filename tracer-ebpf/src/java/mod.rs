//! HotSpot's code cache: from a return address in it to the way up the stack.
//!
//! Sources: HotSpot's own stack walker and heap of code
//! (`src/hotspot/cpu/x86/frame_x86.cpp`, `share/memory/heap.cpp`,
//! `share/code/codeBlob.hpp`), and the tables that libjvm.so exports for
//! debuggers, from which user space takes all offsets.

mod blob;
pub mod cached;
mod code;

pub use self::blob::{Anywhere, WINDOW_WORDS, read};
pub use self::code::Code;

/// JVMs that are traced at the same time; 0 is none.
pub const MAX_VMS: u32 = 64;

/// Parts of a code cache.
pub const MAX_HEAPS: usize = 4;

/// One part of a code cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CodeHeap {
    /// First address.
    pub start: u64,
    /// First address after what is reserved.
    pub end: u64,
    /// Where its segment map is: a byte for each segment, 0 where a block
    /// begins, otherwise how far to go back towards that, 0xff if it is free.
    pub segments: u64,
}

/// What the kernel side knows of a JVM, in the terms of `gHotSpotVMStructs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Vm {
    /// First address of the code cache.
    pub start: u64,
    /// First address after what is reserved for it.
    pub end: u64,
    /// The interpreter's code.
    pub interpreter_start: u64,
    /// First address after it.
    pub interpreter_end: u64,
    /// Where Java code returns to, in the stub that calls it from native code.
    pub call_stub_return: u64,
    /// Where the deepest frame of a virtual thread that is on the stack
    /// returns to; 0 if this JVM has none, or it is not known.
    pub return_barrier: u64,
    /// Its parts; those that are not there are empty.
    pub heaps: [CodeHeap; MAX_HEAPS],
    /// log2 of a segment's bytes.
    pub segment_bits: u32,
    /// Bytes of a `HeapBlock`, which stands before each blob.
    pub block_header: u32,
    /// Offset of its `_used`, a byte.
    pub block_used: u32,
    /// Offset of its `_length`, in segments; the lower half if it has two.
    pub block_length: u32,
    /// Offset of `CodeBlob::_frame_size`, an `int`, in words.
    pub frame_size: u32,
    /// Offset of `nmethod::_compile_id`, an `int`.
    pub compile_id: u32,
    /// Offset of where an nmethod says its deoptimisation handler is.
    pub deopt_handler: u32,
    /// The same for method handle calls; 0 if there is none.
    pub deopt_mh_handler: u32,
    /// 1 if these are addresses, 0 if they are `int`s from the blob on.
    pub deopt_is_address: u32,
    /// Offset of `nmethod::_orig_pc_offset`, an `int`: from the stack pointer
    /// on, where the return address was put that the handler's took the place
    /// of.
    pub original_pc: u32,
    /// Bytes from an interpreted frame's rbp to its bytecode pointer, below.
    pub bytecode_below: u32,
    /// 1 if user space is told of code that is freed, by [`Freed`].
    pub may_cache: u32,
    /// [`Freed`] at the time when nothing was cached.
    pub emptied: u64,
}

// SAFETY: repr(C), u64 fields, 12 u32 in a row and another u64: no padding,
// any bit pattern is valid.
unsafe impl crate::Record for Vm {}

const _: () = assert!(
    size_of::<Vm>() == 8 * (6 + 3 * MAX_HEAPS) + 4 * 12 + 8,
    "no padding"
);

/// How often a JVM has freed code.
pub type Freed = u64;
