//! What both sides of the kernel boundary share: the records in the kernel
//! maps, and the pure decisions that the BPF programs take. Everything here
//! compiles on the host too and is tested there.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod arguments;
pub mod block;
pub mod call;
pub mod callsite;
pub mod choice;
pub mod class_name;
pub mod compiled;
pub mod event;
pub mod file;
pub mod frame;
pub mod held;
pub mod hits;
pub mod java;
pub mod kinship;
pub mod lifetime;
pub mod limits;
pub mod loss;
pub mod memo;
pub mod notes;
pub mod operand;
pub mod origin;
pub mod phase;
pub mod python;
pub mod rule;
pub mod sample;
pub mod settings;
pub mod site;
pub mod stack;
pub mod stated;
pub mod step;
pub mod table;
pub mod thread;
pub mod usdt;
pub mod v8;
pub mod volatile;

/// Records that user space reads from, or writes into, the kernel as bytes.
///
/// # Safety
/// The type must be `repr(C)` without padding, and valid for every bit
/// pattern.
pub unsafe trait Record: Copy + 'static {}

/// Reads a record from the start of `bytes`; `None` if they are too few.
pub fn read_record<T: Record>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: the length was checked, the read tolerates any alignment, and a
    // `Record` is valid for every bit pattern.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// A record's bytes.
pub fn as_bytes<T: Record>(record: &T) -> &[u8] {
    // SAFETY: a `Record` has no padding, so all its bytes are initialised.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(record).cast(), size_of::<T>()) }
}

// SAFETY: a plain integer, any bit pattern is valid.
unsafe impl Record for u8 {}

// SAFETY: a plain integer, any bit pattern is valid.
unsafe impl Record for u32 {}

// SAFETY: a plain integer, any bit pattern is valid.
unsafe impl Record for u64 {}
