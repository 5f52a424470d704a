//! Global handles of a JVM's native interface: what `NewGlobalRef` and
//! `NewWeakGlobalRef` make, and their counterparts delete.
//!
//! They are followed like blocks without bytes. Those that the JVM makes or
//! deletes for itself take another way and are not seen.

use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::block::{Block, BlockKey, handle};
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOST_SITE, SiteKind};
use tracer_ebpf::thread::{Making, Thread};

use crate::elsewhere;
use crate::inflight::{self, now};
use crate::maps;

/// `jni_NewGlobalRef(environment, object)`, or the weak one, was entered.
#[inline(always)]
pub(crate) fn enter(context: &ProbeContext) {
    // Its caller is Java code, or the JVM, which nobody asks for by a file.
    if elsewhere::is_on() {
        return;
    }
    let Some(thread) = inflight::thread() else {
        return;
    };
    // SAFETY: the context's registers and the thread's own record.
    unsafe { (*thread).handle = begin(context, SiteKind::Handle, thread) };
}

/// A call that was just entered, and its site.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn begin(context: &ProbeContext, kind: SiteKind, thread: *mut Thread) -> Making {
    let time = now();
    // SAFETY: the context's registers and the caller's record.
    unsafe {
        let first = (kind, 0);
        Making {
            slot: (*context.regs).rsp,
            time,
            site: inflight::site((context.regs, Arguments::AT_ENTRY), first, thread, time, 0),
            padding: 0,
        }
    }
}

/// It returned the handle `made`, or null, to above its slot at `stack`.
#[inline(always)]
pub(crate) fn leave(made: u64, stack: u64) {
    let Some(thread) = inflight::known_thread() else {
        return;
    };
    // SAFETY: the context's registers and the thread's own record.
    let (new, image) = unsafe {
        let new = (*thread).handle;
        if !new.ends(stack) {
            return;
        }
        (*thread).handle.slot = 0;
        (new, (*thread).image)
    };
    if made == 0 {
        return;
    }
    let address = handle(made);
    made_at(&new, BlockKey { address, image });
}

/// Follows what a call made.
#[inline(always)]
pub(crate) fn made_at(making: &Making, key: BlockKey) {
    if making.site == LOST_SITE {
        maps::lose(LossCause::SitesFull, 1, 0);
        return;
    }
    let block = Block {
        size: 0,
        time: making.time,
        site: making.site,
        certain: 0,
    };
    inflight::count_made(key, &block);
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
