//! What hits of probes cost: see [`tracer_ebpf::hits`].

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use tracer_ebpf::hits::{Counter, KINDS, Kind};
use tracer_ebpf::thread::Thread;
use tracer_ebpf::volatile::opaque;

use crate::inflight::now;
use crate::maps::{self, COSTS, IN_PASSING};

/// Counts a hit of the current thread; [`done`] comes when its program ends.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn hit(thread: *mut Thread, kind: Kind) {
    // SAFETY: the caller's record.
    if unsafe { (*counter(thread, kind as usize)).hit() } {
        begin(thread, kind as u64);
    }
}

/// The same for an entry at an instruction that is emulated, or single-stepped.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn hit_at_entry(thread: *mut Thread, emulated: Kind, is_stepped: u64) {
    let kind = emulated as usize + opaque(is_stepped as usize);
    // SAFETY: the caller's record.
    if unsafe { (*counter(thread, kind)).hit() } {
        begin(thread, kind as u64);
    }
}

/// Counts a hit that ends before the thread's record is looked up: of a call or a block
/// that no sample has. Programs of other threads may come in between.
#[inline(always)]
pub(crate) fn hit_in_passing(emulated: Kind, is_stepped: u64) {
    if !maps::is_active() {
        return;
    }
    let kind = emulated as u32 + is_stepped as u32;
    if let Some(count) = IN_PASSING.get_ptr_mut(kind) {
        // SAFETY: a live map value.
        unsafe { maps::add(count, 1) };
    }
}

/// A program ends that has counted a hit.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn done(thread: *mut Thread) {
    // SAFETY: the caller's record.
    if unsafe { (*thread).timing.began } != 0 {
        end(thread);
    }
}

#[inline(always)]
unsafe fn counter(thread: *mut Thread, kind: usize) -> *mut Counter {
    // SAFETY: the caller's record, and an index within its counters.
    unsafe {
        (&raw mut (*thread).hits)
            .cast::<Counter>()
            .add(kind & (KINDS - 1))
    }
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_prandom_u32() as u32 }
}

/// A hit is due.
#[inline(never)]
fn begin(thread: *mut Thread, kind: u64) {
    let Some(cost) = COSTS.get_ptr(kind as u32) else {
        return;
    };
    // SAFETY: a live map value and the current thread's record.
    unsafe {
        let counter = counter(thread, opaque(kind as usize));
        if (*counter).is_new() {
            (*counter).start((*cost).every as u32, random());
            return;
        }
        (*thread).timing.kind = kind;
        (*thread).timing.began = now();
    }
}

/// A timed program ends.
#[inline(never)]
fn end(thread: *mut Thread) {
    // SAFETY: the current thread's record.
    let (kind, took) = unsafe {
        let timing = &mut (*thread).timing;
        let took = now().wrapping_sub(timing.began);
        timing.began = 0;
        (timing.kind, took)
    };
    let Some(cost) = COSTS.get_ptr_mut(kind as u32) else {
        return;
    };
    // SAFETY: a live map value and the current thread's record.
    unsafe {
        let counter = counter(thread, opaque(kind as usize));
        maps::add(&raw mut (*cost).hits, u64::from((*counter).pending()));
        (*counter).renew((*cost).every as u32, random());
        if (*cost).limit != 0 && took > (*cost).limit {
            maps::add(&raw mut (*cost).interrupted, 1);
            return;
        }
        maps::add(&raw mut (*cost).timed, 1);
        maps::add(&raw mut (*cost).nanoseconds, took);
        maps::add(&raw mut (*cost).squares, took.wrapping_mul(took));
    }
}

/// Hands on what is pending in the record of a thread that is over.
///
/// # Safety
/// `thread` is a record that no other thread uses.
#[inline(always)]
pub(crate) unsafe fn hand_over(thread: *mut Thread) {
    let mut kind = 0;
    while kind < KINDS {
        if let Some(cost) = COSTS.get_ptr_mut(kind as u32) {
            // SAFETY: a live map value and the caller's record.
            unsafe {
                let counter = counter(thread, kind);
                maps::add(&raw mut (*cost).hits, u64::from((*counter).pending()));
                *counter = Counter::default();
            }
        }
        kind += 1;
    }
}
