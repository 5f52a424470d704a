//! The program's own mmap, munmap and mremap. What they do to ranges is sent
//! to user space, which keeps the ledger: one call can touch many mappings.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use tracer_ebpf::call::{self, Function};
use tracer_ebpf::event::{Event, EventKind, MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED};
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOST_SITE, NO_SITE};
use tracer_ebpf::thread::Thread;

use crate::inflight::{self, now};
use crate::maps;

#[inline(always)]
pub(crate) fn enter_mmap(context: &ProbeContext) {
    let (Some(length), Some(flags)) = (context.arg::<u64>(1), context.arg::<u64>(3)) else {
        return;
    };
    let flags = flags & 0xffff_ffff;
    if flags & (MAP_ANONYMOUS | MAP_FIXED) == 0 {
        return;
    }
    begin(
        context,
        Function::Mmap,
        length,
        flags,
        flags & MAP_ANONYMOUS != 0,
    );
}

#[inline(always)]
pub(crate) fn leave_mmap(context: &RetProbeContext) {
    let address = context.ret::<u64>();
    if let Some(thread) = end(context, Function::Mmap)
        && address != MAP_FAILED
    {
        // SAFETY: the thread's own record.
        unsafe { report(thread, EventKind::Map, address) };
    }
}

#[inline(always)]
pub(crate) fn enter_munmap(context: &ProbeContext) {
    let (Some(address), Some(length)) = (context.arg::<u64>(0), context.arg::<u64>(1)) else {
        return;
    };
    if let Some(thread) = begin(context, Function::Munmap, length, 0, false) {
        // SAFETY: the thread's own record.
        unsafe { report(thread, EventKind::UnmapEnter, address) };
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
pub(crate) fn enter_mremap(context: &ProbeContext) {
    let (Some(address), Some(old_length), Some(length), Some(flags)) = (
        context.arg::<u64>(0),
        context.arg::<u64>(1),
        context.arg::<u64>(2),
        context.arg::<u64>(3),
    ) else {
        return;
    };
    if let Some(thread) = begin(context, Function::Mremap, length, flags & 0xffff_ffff, true) {
        // SAFETY: the thread's own record.
        unsafe {
            (*thread).call.size = old_length;
            report(thread, EventKind::RemapEnter, address);
            (*thread).call.size = length;
        }
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

/// Notes an outermost call; `None` if it is not one.
#[inline(always)]
fn begin(
    context: &ProbeContext,
    function: Function,
    length: u64,
    flags: u64,
    wants_site: bool,
) -> Option<*mut Thread> {
    let thread = inflight::thread()?;
    // SAFETY: the context's registers and the thread's own record.
    unsafe {
        let slot = (*context.regs).rsp;
        if !inflight::is_outermost(thread, function, slot) {
            return None;
        }
        let time = now();
        let site = if wants_site && length >= maps::settings().min_size {
            inflight::site(context.regs, thread, time, length)
        } else {
            NO_SITE
        };
        let call = &mut (*thread).call;
        call.begin(function, slot, time, site);
        call.size = length;
        call.argument = flags;
    }
    Some(thread)
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
