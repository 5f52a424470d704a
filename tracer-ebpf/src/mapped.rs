//! Code that is in no address space that user space has told of: the kernel says
//! which file is mapped there, at this moment.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use tracer_ebpf::file::{FileKey, TableKind};
use tracer_ebpf::frame;
use tracer_ebpf::stack::StackEnd;
use tracer_ebpf::table::Range;
use tracer_ebpf::thread::Thread;

use crate::inflight;
use crate::lookup::{Rows, bare, failed};
use crate::maps::{self, FILE_TABLES};
use crate::read::kernel;

/// `FMODE_BACKING` in the kernel's `fs.h`: the file lies below an overlay.
const BACKING: u32 = 1 << 25;

/// The number of the rule of an address, by the file that is mapped there;
/// `exact` is 1 for an interrupted instruction. The thread's record then has the
/// mapping. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_mapped(address: u64, exact: u32) -> u64 {
    let Some(thread) = inflight::record() else {
        return failed(StackEnd::NoMapping);
    };
    // SAFETY: the current thread's record.
    match unsafe { rule(&mut *thread, address, exact != 0) } {
        Ok(number) => number,
        Err(end) => failed(end),
    }
}

#[inline(always)]
fn rule(thread: &mut Thread, address: u64, exact: bool) -> Result<u64, StackEnd> {
    if !is_in(thread, address) && !look(thread, address) {
        return Err(StackEnd::NoMapping);
    }
    let file = thread.mapping.file.get() as u32;
    let table = FILE_TABLES.get(file).ok_or(StackEnd::NoRowYet)?;
    if table.kind == TableKind::Bare as u32 {
        return bare(address, exact);
    }
    if table.kind != TableKind::Table as u32 {
        return Err(StackEnd::NoRowYet);
    }
    let offset = address.wrapping_sub(thread.mapping.origin.get());
    let offset = table.row_offset(offset).ok_or(StackEnd::NoRow)?;
    let rows = Rows {
        returns: (table.returns, table.returns_len),
        full: (table.full, table.full_len),
    };
    rows.rule(address, offset, exact)
}

/// The word of an address, by the file that is mapped there; 0 if none is.
/// Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mapped_word(address: u64, exact: u32) -> u64 {
    let Some(thread) = inflight::record() else {
        return 0;
    };
    // SAFETY: the current thread's record.
    let thread = unsafe { &mut *thread };
    if !is_in(thread, address) && !look(thread, address) {
        return 0;
    }
    word(thread, address, u64::from(exact))
}

/// The word of an address in the mapping that was met last.
#[inline(always)]
pub(crate) fn word(thread: &Thread, address: u64, exact: u64) -> u64 {
    let offset = address.wrapping_sub(thread.mapping.origin.get());
    frame::in_file(thread.mapping.file.get() as u32, offset, exact)
}

/// Notes that a walk is in a range. One without a file says nothing of its words.
#[inline(always)]
pub(crate) fn remember(thread: &mut Thread, range: &Range) {
    let length = match range.file {
        0 => 0,
        _ => range.end.wrapping_sub(range.start),
    };
    let mapping = &mut thread.mapping;
    mapping.start.set(range.start);
    mapping.length.set(length);
    mapping.origin.set(range.origin);
    mapping.file.set(u64::from(range.file));
}

/// Whether an address is in the mapping that was met last.
#[inline(always)]
pub(crate) fn is_in(thread: &Thread, address: u64) -> bool {
    let mapping = &thread.mapping;
    address.wrapping_sub(mapping.start.get()) < mapping.length.get()
}

/// Asks the kernel for the mapping of an address. Whether a file with a number
/// is there: otherwise none was met.
#[inline(always)]
fn look(thread: &mut Thread, address: u64) -> bool {
    let inode = vma::find(thread, address);
    if inode == 0 {
        return false;
    }
    match number_of(inode) {
        Some(file) => {
            thread.mapping.file.set(u64::from(file));
            true
        }
        None => {
            thread.mapping.length.set(0);
            false
        }
    }
}

/// The number of a file by its inode, an address in the kernel.
#[inline(always)]
fn number_of(inode: u64) -> Option<u32> {
    maps::FILES.get_ptr(key_of(inode)?).map(|number| {
        // SAFETY: a live map value.
        unsafe { *number }
    })
}

#[inline(always)]
fn key_of(inode: u64) -> Option<FileKey> {
    let mapped = maps::setting!(mapped);
    let superblock = kernel::<u64>(inode + u64::from(mapped.inode_sb))?;
    Some(FileKey {
        inode: kernel::<u64>(inode + u64::from(mapped.inode_number))?,
        device: u64::from(kernel::<u32>(superblock + u64::from(mapped.device))?),
    })
}

/// The inode of a file, both addresses in the kernel: what `/proc/PID/maps`
/// shows, which for a file on overlayfs is not the one that has the data.
#[inline(always)]
fn inode_of(file: u64) -> Option<u64> {
    let mapped = maps::setting!(mapped);
    if file == 0 {
        return None;
    }
    if mapped.backing_dentry != 0 && kernel::<u32>(file + u64::from(mapped.mode))? & BACKING != 0 {
        let dentry = kernel::<u64>(file + u64::from(mapped.backing_dentry))?;
        return kernel(dentry + u64::from(mapped.dentry_inode));
    }
    kernel(file + u64::from(mapped.inode))
}

/// A number for the program that the current process runs: the same for all
/// processes that run its file, and never 0.
#[inline(always)]
pub(crate) fn program() -> Option<u64> {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let memory = kernel::<u64>(task + u64::from(maps::setting!(task_mm)))?;
    if memory == 0 {
        return None;
    }
    let file = kernel::<u64>(memory + u64::from(maps::setting!(mapped).program))?;
    let key = key_of(inode_of(file)?)?;
    let mixed = (key.inode ^ key.device.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Some(mixed | 1)
}

/// By `bpf_find_vma`, which kernels have from 5.17 on.
#[cfg(feature = "find_vma")]
mod vma {
    use core::ffi::c_void;

    use aya_ebpf::bindings::task_struct;
    use aya_ebpf::helpers::generated::{bpf_find_vma, bpf_get_current_task_btf};
    use tracer_ebpf::thread::Thread;

    use super::inode_of;
    use crate::maps;
    use crate::read::kernel_or_zero;

    /// Enters the mapping that has an address, with the inode of its file, an address in the
    /// kernel, for the file's number. That inode; 0 if no file is mapped there.
    #[inline(always)]
    pub(super) fn find(thread: &mut Thread, address: u64) -> u64 {
        // All that is kept on the kernel's stack is where to write: there is little of it.
        let mut thread: *mut Thread = thread;
        // SAFETY: the current task, a function that the helper calls before it
        // returns, and a local. It fails while another thread changes mappings.
        let status = unsafe {
            bpf_find_vma(
                bpf_get_current_task_btf().cast::<task_struct>(),
                address,
                note as *mut c_void,
                (&raw mut thread).cast(),
                0,
            )
        };
        if status != 0 {
            return 0;
        }
        // SAFETY: only this thread touches its record.
        unsafe { (*thread).mapping.file.get() }
    }

    /// Notes what is asked of a mapping.
    #[inline(never)]
    extern "C" fn note(_task: *mut c_void, mapping: *mut c_void, thread: *mut *mut Thread) -> u64 {
        let offsets = maps::setting!(mapped);
        let word = |offset: u32| kernel_or_zero::<u64>(mapping as u64 + u64::from(offset));
        // SAFETY: the local of the function that asked, and a record that only this thread
        // touches.
        let met = unsafe { &mut (**thread).mapping };
        // One after the other, for the same reason.
        met.start.set(word(offsets.start));
        let before = word(offsets.page_offset) << 12;
        met.origin.set(met.start.get().wrapping_sub(before));
        met.length
            .set(word(offsets.end).wrapping_sub(met.start.get()));
        met.file.set(inode_of(word(offsets.file)).unwrap_or(0));
        if met.file.get() == 0 {
            met.length.set(0);
        }
        0
    }
}

/// Older kernels do not say.
#[cfg(not(feature = "find_vma"))]
mod vma {
    use tracer_ebpf::thread::Thread;

    #[inline(always)]
    pub(super) fn find(_: &mut Thread, _: u64) -> u64 {
        0
    }
}
