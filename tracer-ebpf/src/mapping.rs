//! The program's own mmap, munmap and mremap. What they do to ranges is sent
//! to user space, which keeps the ledger: one call can touch many mappings.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::programs::RetProbeContext;
use tracer_ebpf::call::{self, Function};
use tracer_ebpf::event::{Event, EventKind, MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED};
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOST_SITE, NO_SITE};
use tracer_ebpf::thread::Thread;

use crate::code;
use crate::entry::Request;
use crate::inflight;
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

#[inline(always)]
pub(crate) fn leave_mmap(context: &RetProbeContext) {
    let address = context.ret::<u64>();
    if let Some(thread) = end(context, Function::Mmap)
        && address != MAP_FAILED
    {
        // SAFETY: the thread's own record.
        unsafe {
            let call = &(*thread).call;
            code::replaced((*thread).image, address, call.size);
            if call.argument & (MAP_ANONYMOUS | MAP_FIXED) != 0 {
                report(thread, EventKind::Map, address);
            }
        }
    }
}

#[inline(always)]
pub(crate) fn leave_munmap(context: &RetProbeContext) {
    let status = context.ret::<u64>() & 0xffff_ffff;
    if let Some(thread) = end(context, Function::Munmap) {
        // SAFETY: the thread's own record.
        unsafe { report(thread, EventKind::UnmapReturn, status) };
    }
}

#[inline(always)]
pub(crate) fn leave_mremap(context: &RetProbeContext) {
    let address = context.ret::<u64>();
    if let Some(thread) = end(context, Function::Mremap) {
        // SAFETY: the thread's own record.
        unsafe { report(thread, EventKind::RemapReturn, address) };
    }
}

/// Settles the call in flight if this return ends it.
#[inline(always)]
fn end(context: &RetProbeContext, function: Function) -> Option<*mut Thread> {
    let thread = inflight::known_thread()?;
    // SAFETY: the context's registers and the thread's own record.
    unsafe {
        let call = &mut (*thread).call;
        if !call::ends(call, function, (*context.regs).rsp) {
            return None;
        }
        call.function = 0;
        Some(thread)
    }
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
    maps::send(&Event {
        kind: kind as u32,
        thread: bpf_get_current_pid_tgid() as u32,
        image,
        time: call.time,
        address,
        length: call.size,
        flags: call.argument,
        other: 0,
        site,
        padding: 0,
    });
}
