//! The program's own mmap, munmap and mremap. What they do to ranges is sent
//! to user space, which keeps the ledger: one call can touch many mappings.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_ebpf::call::Function;
use tracer_ebpf::event::{Event, EventKind, MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED};
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOST_SITE, NO_SITE};
use tracer_ebpf::thread::Thread;

use crate::code;
use crate::entry::Request;
use crate::maps;

/// Reports a mapping function that was entered, whose call is noted.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn entered(thread: *mut Thread, function: Function, request: &Request) {
    // SAFETY: the caller's record.
    unsafe {
        match function {
            Function::Munmap => report(thread, EventKind::UnmapEnter, request.address),
            Function::Mremap => {
                (*thread).call.size = request.old_size;
                report(thread, EventKind::RemapEnter, request.address);
                (*thread).call.size = request.size;
            }
            _ => {}
        }
    }
}

/// `mmap` returned.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn mmap_returned(thread: *const Thread, address: u64) {
    if address == MAP_FAILED {
        return;
    }
    // SAFETY: the caller's record.
    unsafe {
        let call = &(*thread).call;
        code::replaced((*thread).image, address, call.size);
        if call.argument & (MAP_ANONYMOUS | MAP_FIXED) != 0 {
            report(thread, EventKind::Map, address);
        }
    }
}

/// `munmap` returned.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn munmap_returned(thread: *const Thread, status: u64) {
    // SAFETY: the caller's record.
    unsafe { report(thread, EventKind::UnmapReturn, status & 0xffff_ffff) };
}

/// `mremap` returned.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn mremap_returned(thread: *const Thread, address: u64) {
    // SAFETY: the caller's record.
    unsafe { report(thread, EventKind::RemapReturn, address) };
}

/// Sends the call in flight as an event.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn report(thread: *const Thread, kind: EventKind, address: u64) {
    // SAFETY: the caller's record.
    let (call, image) = unsafe { (&(*thread).call, (*thread).image) };
    let mut site = call.site;
    if site == LOST_SITE {
        if kind as u32 != EventKind::RemapEnter as u32 && address != MAP_FAILED {
            maps::lose(LossCause::SitesFull, 1, call.size);
        }
        site = NO_SITE;
    }
    let thread = bpf_get_current_pid_tgid() as u32;
    maps::send(&Event {
        address,
        length: call.size,
        flags: call.argument,
        site,
        ..Event::new(kind, thread, image, call.time)
    });
}
