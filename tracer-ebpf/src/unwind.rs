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
    let mut memory = Window {
        thread,
        start: 0,
        length: 0,
    };
    // SAFETY: only this thread touches the record, and the window and the
    // frames are different fields of it.
    let frames = unsafe { &mut *(&raw mut (*thread).frames) };
    walk(registers, seed, &mut memory, frames)
}

/// The part of the stack that was read last.
struct Window {
    thread: *mut Thread,
    start: u64,
    length: u64,
}

impl StackMemory for Window {
    #[inline(always)]
    fn pair(&mut self, address: u64) -> Option<(u64, u64)> {
        let offset = address.wrapping_sub(self.start);
        let index = if offset < WINDOW_BYTES as u64 && offset + 16 <= self.length {
            (offset / 8) as usize
        } else {
            self.read(address)?;
            0
        };
        if index > WINDOW_BYTES / 8 - 2 {
            return None;
        }
        // SAFETY: only this thread touches its record.
        let window = unsafe { &*(&raw const (*self.thread).window) };
        Some((window[index], window[index + 1]))
    }
}

impl Window {
    /// Reads from `address` to the end of its page, at most a window: a read
    /// that crosses into an unmapped page would fail as a whole.
    #[inline(always)]
    fn read(&mut self, address: u64) -> Option<()> {
        let to_page_end = 4096 - (address & 4095);
        let length = if to_page_end < 16 {
            16
        } else if to_page_end > WINDOW_BYTES as u64 {
            WINDOW_BYTES as u64
        } else {
            to_page_end
        };
        // SAFETY: the window has room for `length` bytes; a fault in the
        // target's memory is an error code.
        let status = unsafe {
            bpf_probe_read_user(
                (&raw mut (*self.thread).window).cast(),
                length as u32,
                address as *const _,
            )
        };
        if status != 0 {
            self.length = 0;
            return None;
        }
        self.start = address;
        self.length = length;
        Some(())
    }
}
