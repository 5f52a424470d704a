//! Reading memory that is not ours.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};
use tracer_ebpf::Record;
use tracer_ebpf::operand::Register;
use tracer_ebpf::volatile::opaque;

/// A value in the kernel's memory.
#[inline(always)]
pub(crate) fn kernel<T: Record + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    let size = size_of::<T>() as u32;
    // SAFETY: as many bytes as the local has; a fault is an error code.
    let status =
        unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size, address as *const _) };
    (status == 0).then_some(value)
}

/// The same, and 0 where it cannot be read: the helper clears what it could not
/// fill, so that there is nothing to tell apart, for the verifier neither.
#[inline(always)]
pub(crate) fn kernel_or_zero<T: Record + Default>(address: u64) -> T {
    let mut value = T::default();
    let size = size_of::<T>() as u32;
    // SAFETY: as many bytes as the local has.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size, address as *const _) };
    value
}

/// Copies words from one map value to another, as the kernel does: the verifier goes
/// through a loop word by word. Whether it did.
///
/// # Safety
/// `to` is the caller's.
#[inline(always)]
pub(crate) unsafe fn copy<const WORDS: usize>(
    to: *mut [u64; WORDS],
    from: *const [u64; WORDS],
) -> bool {
    let size = size_of::<[u64; WORDS]>() as u32;
    // SAFETY: as many bytes as both have.
    unsafe { bpf_probe_read_kernel(to.cast(), size, from.cast()) == 0 }
}

/// A register of the thread that was probed, by its number: a program may not
/// choose a field of its context by one, but may read it as memory.
#[inline(always)]
pub(crate) fn register(regs: *const pt_regs, register: Register) -> Option<u64> {
    kernel((regs as u64).wrapping_add(register.offset()))
}

/// A word of the target's memory.
#[inline(always)]
pub(crate) fn user_word(address: u64) -> Option<u64> {
    let mut word = 0u64;
    // SAFETY: eight bytes into a local; a fault is an error code.
    let status = unsafe { bpf_probe_read_user((&raw mut word).cast(), 8, address as *const _) };
    (status == 0).then_some(word)
}

/// Reads `length` bytes of the target's memory, or as many as there is room
/// for. Whether they could be read.
///
/// # Safety
/// `into` is in a map value or an entry of a ring.
#[inline(always)]
pub(crate) unsafe fn user_bytes<const ROOM: usize>(
    into: *mut [u8; ROOM],
    address: u64,
    length: u64,
) -> bool {
    let bytes = opaque(length as usize);
    let bytes = if bytes > ROOM { ROOM } else { bytes };
    // SAFETY: at most as many bytes as there is room for; a fault is an error
    // code.
    let status = unsafe { bpf_probe_read_user(into.cast(), bytes as u32, address as *const _) };
    status == 0
}
