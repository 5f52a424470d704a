//! Global handles of a JVM's native interface: what `NewGlobalRef` and
//! `NewWeakGlobalRef` make, and their counterparts delete.
//!
//! They are followed like blocks without bytes. Those that the JVM makes or
//! deletes for itself take another way and are not seen.

use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use tracer_ebpf::block::{Block, BlockKey, handle};
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOST_SITE, SiteKind};
use tracer_ebpf::thread::NewHandle;

use crate::inflight::{self, now};
use crate::maps;

/// `jni_NewGlobalRef(environment, object)`, or the weak one, was entered.
#[inline(always)]
pub(crate) fn enter(context: &ProbeContext) {
    let Some(thread) = inflight::thread() else {
        return;
    };
    let time = now();
    // SAFETY: the context's registers and the thread's own record.
    unsafe {
        let first = (SiteKind::Handle, (*context.regs).rip);
        let site = inflight::site(context.regs, first, thread, time, 0);
        (*thread).handle = NewHandle {
            slot: (*context.regs).rsp,
            time,
            site,
            padding: 0,
        };
    }
}

/// It returned the handle, or null.
#[inline(always)]
pub(crate) fn leave(context: &RetProbeContext) {
    let Some(thread) = inflight::known_thread() else {
        return;
    };
    // SAFETY: the context's registers and the thread's own record.
    let (new, image) = unsafe {
        let new = (*thread).handle;
        if !new.ends((*context.regs).rsp) {
            return;
        }
        (*thread).handle.slot = 0;
        (new, (*thread).image)
    };
    let made = context.ret::<u64>();
    if made == 0 {
        return;
    }
    if new.site == LOST_SITE {
        maps::lose(LossCause::SitesFull, 1, 0);
        return;
    }
    let address = handle(made);
    let block = Block {
        size: 0,
        time: new.time,
        site: new.site,
        padding: 0,
    };
    inflight::count_made(BlockKey { address, image }, &block);
}

/// `jni_DeleteGlobalRef(environment, handle)`, or the weak one, was entered.
#[inline(always)]
pub(crate) fn delete(context: &ProbeContext) {
    let Some(gone) = context.arg::<u64>(1) else {
        return;
    };
    if gone == 0 {
        return;
    }
    let Some(thread) = inflight::thread() else {
        return;
    };
    // SAFETY: the thread's own record.
    let image = unsafe { (*thread).image };
    // Those from before the run are unknown.
    inflight::count_gone(BlockKey {
        address: handle(gone),
        image,
    });
}
