//! The capture of a stack: the one place that a better unwinder replaces.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use tracer_ebpf::limits::WINDOW_BYTES;
use tracer_ebpf::stack::{Registers, StackMemory, Walk, walk};
use tracer_ebpf::thread::Thread;

use crate::maps;

/// Walks the current thread's stack into its record.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn capture(regs: *const pt_regs, thread: *mut Thread) -> Walk {
    // SAFETY: regs is the program's context.
    let registers = unsafe {
        Registers {
            ip: (*regs).rip,
            sp: (*regs).rsp,
            fp: (*regs).rbp,
        }
    };
    // SAFETY: the caller's record.
    let seed = unsafe { (maps::settings().hash_seed, (*thread).image) };
    // SAFETY: only this thread touches the record, and these are different
    // fields of it.
    let (frames, state) = unsafe { (&mut (*thread).frames, &mut (*thread).walk) };
    // SAFETY: the caller's record.
    unsafe { (*thread).window_length.set(0) };
    walk(registers, seed, &mut Window { thread }, state, frames)
}

/// The part of the stack that was read last, in the thread's record.
struct Window {
    thread: *mut Thread,
}

impl StackMemory for Window {
    #[inline(always)]
    fn pair(&mut self, address: u64) -> Option<(u64, u64)> {
        // SAFETY: only this thread touches its record.
        let thread = unsafe { &mut *self.thread };
        let offset = address.wrapping_sub(thread.window_start.get());
        if offset > WINDOW_BYTES as u64 || offset + 16 > thread.window_length.get() {
            read(thread, address)?;
        }
        let index = address.wrapping_sub(thread.window_start.get()) as usize / 8;
        let index = maps::opaque(index);
        if index > WINDOW_BYTES / 8 - 2 {
            return None;
        }
        Some((thread.window[index], thread.window[index + 1]))
    }
}

/// Reads from `address` to the end of its page, at most a window: a read
/// that crosses into an unmapped page would fail as a whole.
#[inline(always)]
fn read(thread: &mut Thread, address: u64) -> Option<()> {
    let to_page_end = 4096 - (address & 4095);
    let length = if to_page_end < 16 {
        16
    } else if to_page_end > WINDOW_BYTES as u64 {
        WINDOW_BYTES as u64
    } else {
        to_page_end
    };
    // SAFETY: the window has room for `length` bytes; a fault in the target's
    // memory is an error code.
    let status = unsafe {
        bpf_probe_read_user(
            (&raw mut thread.window).cast(),
            length as u32,
            address as *const _,
        )
    };
    if status != 0 {
        thread.window_length.set(0);
        return None;
    }
    thread.window_start.set(address);
    thread.window_length.set(length);
    Some(())
}
