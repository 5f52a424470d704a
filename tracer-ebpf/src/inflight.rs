//! The current thread's record, and the call that it has in flight.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_ktime_get_ns};
use tracer_ebpf::block::{Block, BlockKey};
use tracer_ebpf::call::{self, Entry, Function};
use tracer_ebpf::lifetime;
use tracer_ebpf::limits::{LIFETIME_BUCKETS, MAX_FRAMES};
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOST_SITE, NO_SITE, Site, SiteKind, THREAD_NAME};
use tracer_ebpf::stack::Walk;
use tracer_ebpf::thread::Thread;
use tracer_ebpf::volatile::opaque;

use crate::maps::{self, FREE_SITES, LIVE, NEW_THREAD, PROCESSES, SITE_INDEX, SITES, THREADS};
use crate::read::user_word;
use crate::unwind::{self, Place};

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The record of the current thread if it has one.
#[inline(always)]
pub(crate) fn known_thread() -> Option<*mut Thread> {
    THREADS.get_ptr_mut(bpf_get_current_pid_tgid())
}

/// The record of the current thread if events count now, made if its process
/// is traced.
#[inline(always)]
pub(crate) fn thread() -> Option<*mut Thread> {
    if !maps::is_active() {
        return None;
    }
    match known_thread() {
        Some(thread) => Some(thread),
        None => make_thread(),
    }
}

#[inline(never)]
fn make_thread() -> Option<*mut Thread> {
    let id = bpf_get_current_pid_tgid();
    let process = PROCESSES.get_ptr((id >> 32) as u32)?;
    let template = NEW_THREAD.get(0)?;
    if THREADS.insert(id, template, BPF_ANY).is_err() {
        maps::lose(LossCause::ThreadsFull, 1, 0);
        return None;
    }
    let thread = THREADS.get_ptr_mut(id)?;
    // SAFETY: both point to live map values.
    unsafe { (*thread).image = (*process).image };
    Some(thread)
}

/// Whether a probed function that was entered at stack pointer `slot` is the
/// outermost one. A call that was left without a return is settled as lost.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn is_outermost(thread: *mut Thread, function: Function, slot: u64) -> bool {
    // SAFETY: the caller's record, which only this thread touches.
    let in_flight = unsafe { &mut (*thread).call };
    let saved_at = in_flight.slot;
    match call::entry(in_flight, function, slot, || user_word(saved_at)) {
        Entry::Outermost => true,
        Entry::Nested => {
            in_flight.inner += 1;
            false
        }
        Entry::Stale => {
            maps::lose(LossCause::MissedReturn, 1 + in_flight.inner, in_flight.size);
            // SAFETY: the caller's record.
            unsafe { restore_old(thread) };
            in_flight.function = 0;
            true
        }
    }
}

/// Puts the block that realloc took out back into the live map.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn restore_old(thread: *mut Thread) {
    // SAFETY: the caller's record.
    let (call, image) = unsafe { (&mut (*thread).call, (*thread).image) };
    if call.old_address != 0 {
        let key = BlockKey {
            address: call.old_address,
            image,
        };
        let old = call.old;
        call.old_address = 0;
        if old.site != NO_SITE {
            keep(key, &old);
        }
    }
}

/// Counts a block as allocated at its site, and follows it.
#[inline(always)]
pub(crate) fn count_made(key: BlockKey, block: &Block) {
    let Some(site) = SITES.get_ptr_mut(block.site) else {
        return;
    };
    // SAFETY: fields of a live map value.
    unsafe {
        maps::add(&raw mut (*site).allocated_count, 1);
        maps::add(&raw mut (*site).allocated_bytes, block.size);
        (*site).last_seen = block.time;
    }
    keep(key, block);
}

/// Takes a block out of the live map and counts it as freed. Whether it was
/// there.
#[inline(always)]
pub(crate) fn count_gone(key: BlockKey) -> bool {
    let Some(block) = LIVE.get_ptr(key) else {
        return false;
    };
    // SAFETY: a live map value.
    let block = unsafe { *block };
    if LIVE.remove(key).is_ok() {
        count_free(&block, now());
    }
    true
}

/// Enters a block into the live map, and settles the one that it replaces.
#[inline(always)]
pub(crate) fn keep(key: BlockKey, block: &Block) {
    let Err(error) = LIVE.insert(key, block, BPF_NOEXIST) else {
        return;
    };
    keep_slowly(key, block, error);
}

#[inline(never)]
fn keep_slowly(key: BlockKey, block: &Block, error: i32) {
    const EEXIST: i32 = -17;
    const E2BIG: i32 = -7;
    let mut error = error;
    if error == EEXIST {
        if let Some(old) = LIVE.get_ptr(key) {
            // SAFETY: a live map value.
            let old = unsafe { *old };
            maps::lose(LossCause::MissedFree, 1, old.size);
            count_free(&old, block.time);
        }
        match LIVE.insert(key, block, BPF_ANY) {
            Ok(()) => return,
            Err(again) => error = again,
        }
    }
    let cause = if error == E2BIG {
        LossCause::LiveFull
    } else {
        LossCause::MapBusy
    };
    maps::lose(cause, 1, block.size);
    if let Some(site) = SITES.get_ptr_mut(block.site) {
        // SAFETY: fields of a live map value.
        unsafe {
            maps::add(&raw mut (*site).untracked_count, 1);
            maps::add(&raw mut (*site).untracked_bytes, block.size);
        }
    }
}

/// Counts a block as freed at its site.
#[inline(always)]
pub(crate) fn count_free(block: &Block, time: u64) {
    let Some(site) = SITES.get_ptr_mut(block.site) else {
        return;
    };
    let bucket = opaque(lifetime::bucket(time.saturating_sub(block.time)));
    // SAFETY: fields of a live map value.
    unsafe {
        maps::add(&raw mut (*site).freed_count, 1);
        maps::add(&raw mut (*site).freed_bytes, block.size);
        if bucket < LIFETIME_BUCKETS {
            maps::add((&raw mut (*site).lifetimes).cast::<u64>().add(bucket), 1);
        }
    }
}

/// The site of the current stack, made if it is new; [`LOST_SITE`] if there is
/// no room. `first` is the word of the probed function, and differs from kind
/// to kind.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn site(
    regs: *const pt_regs,
    (kind, first): (SiteKind, u64),
    thread: *mut Thread,
    time: u64,
    size: u64,
) -> u32 {
    // SAFETY: the caller's record.
    unsafe {
        let walk = unwind::capture(regs, Place::Entry, first, thread);
        site_of(&walk, kind, thread, time, size)
    }
}

/// The site of a stack that was just walked; see [`site`].
///
/// # Safety
/// `thread` is the current thread's record, and has the stack.
#[inline(always)]
pub(crate) unsafe fn site_of(
    walk: &Walk,
    kind: SiteKind,
    thread: *mut Thread,
    time: u64,
    size: u64,
) -> u32 {
    match SITE_INDEX.get_ptr(walk.key) {
        // SAFETY: a live map value.
        Some(index) => unsafe { *index },
        // SAFETY: the caller's record.
        None => unsafe { make_site(kind, thread, walk, time, size) },
    }
}

#[inline(always)]
unsafe fn make_site(kind: SiteKind, thread: *mut Thread, walk: &Walk, time: u64, size: u64) -> u32 {
    let Ok(Some(index)) = FREE_SITES.pop() else {
        return LOST_SITE;
    };
    let Some(site) = SITES.get_ptr_mut(index) else {
        return NO_SITE;
    };
    // SAFETY: the index came from the queue, so nobody else has this site.
    unsafe {
        fill(site, thread, walk, time);
        (*site).kind = kind as u32;
    }
    if SITE_INDEX.insert(walk.key, index, BPF_NOEXIST).is_ok() {
        return index;
    }
    // Another thread made the same site first, or the index map is busy.
    // SAFETY: still ours alone.
    unsafe { (*site).image = 0 };
    let _ = FREE_SITES.push(index, 0);
    match SITE_INDEX.get_ptr(walk.key) {
        // SAFETY: a live map value.
        Some(index) => unsafe { *index },
        None => {
            maps::lose(LossCause::MapBusy, 1, size);
            NO_SITE
        }
    }
}

#[inline(always)]
unsafe fn fill(site: *mut Site, thread: *const Thread, walk: &Walk, time: u64) {
    // SAFETY: the caller owns the site and the thread's record.
    unsafe {
        (*site).first_seen = time;
        (*site).depth = walk.depth;
        (*site).end = walk.end as u32;
        name_thread(site);
        copy_frames(&raw mut (*site).frames, &raw const (*thread).frames);
        (*site).image = (*thread).image;
    }
}

/// The current thread's id if call paths are told apart by thread, else 0.
#[inline(always)]
pub(crate) fn told_apart() -> u32 {
    if maps::settings().threads == 0 {
        return 0;
    }
    bpf_get_current_pid_tgid() as u32
}

/// Notes whose path a new site is.
#[inline(always)]
unsafe fn name_thread(site: *mut Site) {
    let thread = told_apart();
    // SAFETY: the caller owns the site, and the name has room for 16 bytes.
    unsafe {
        (*site).thread = thread;
        if thread != 0 {
            // It fails only without a task, and we are in one.
            bpf_get_current_comm((&raw mut (*site).thread_name).cast(), THREAD_NAME as u32);
        }
    }
}

/// Copies word by word; left to itself the compiler copies byte by byte.
#[inline(always)]
unsafe fn copy_frames(to: *mut [u64; MAX_FRAMES], from: *const [u64; MAX_FRAMES]) {
    let mut index = 0;
    while index < MAX_FRAMES {
        // SAFETY: the index is within both arrays, which the caller owns.
        unsafe {
            let word = from.cast::<u64>().add(index).read_volatile();
            to.cast::<u64>().add(index).write_volatile(word);
        }
        index += 1;
    }
}
