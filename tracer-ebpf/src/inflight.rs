//! The current thread's record, and the call that it has in flight.

use core::arch::asm;

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_ktime_get_ns};
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::block::{self, Block, BlockKey};
use tracer_ebpf::call::{self, Call, Entry, Function};
use tracer_ebpf::lifetime;
use tracer_ebpf::limits::LIFETIME_BUCKETS;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOCAL, LOST_SITE, NO_SITE, Site, SiteKind, THREAD_NAME};
use tracer_ebpf::stack::Walk;
use tracer_ebpf::stated;
use tracer_ebpf::thread::Thread;

use crate::burst;
use crate::chosen;
use crate::elsewhere;
use crate::lifecycle;
use crate::mapped;
use crate::maps::{
    self, FREE_SITES, HAS_SAMPLER, LIVE, NEW_THREAD, PROCESSES, SITE_INDEX, SITES, THREADS,
};
use crate::read::{self, user_word};
use crate::recall;
use crate::thrown;
use crate::unwind::{self, Place};

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// The key is not there.
pub(crate) const ENOENT: i32 = -2;
/// The map is full.
pub(crate) const E2BIG: i32 = -7;
/// The key is there already.
const EEXIST: i32 = -17;

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The record of the current thread as it stands. It may be that of a thread
/// that is gone, unless the probe that runs has asked for [`thread`] before.
#[inline(always)]
pub(crate) fn record() -> Option<*mut Thread> {
    THREADS.get_ptr_mut(bpf_get_current_pid_tgid())
}

/// The record of the current thread if events count now and it has one: a call
/// that returns after the run's end has not happened in it.
#[inline(always)]
pub(crate) fn known_thread() -> Option<*mut Thread> {
    if !maps::is_active() {
        return None;
    }
    let thread = record()?;
    is_own(thread).then_some(thread)
}

/// The record of the current thread if events count now, made if its process
/// is traced.
#[inline(always)]
pub(crate) fn thread() -> Option<*mut Thread> {
    if !maps::is_active() {
        return None;
    }
    match record() {
        Some(thread) => is_own(thread).then_some(thread),
        None => make_thread(),
    }
}

/// Whether the current thread's record is of the image that its process is
/// now. An end that the kernel did not tell us of leaves a record behind, and
/// its key may be used again.
#[inline(always)]
fn is_own(thread: *mut Thread) -> bool {
    // SAFETY: the current thread's record.
    let as_of = unsafe { (*thread).as_of };
    as_of == maps::process_changes() || look_again(thread)
}

/// Processes came or went since a record was believed. One that is of another
/// image begins anew.
#[inline(never)]
fn look_again(thread: *mut Thread) -> bool {
    let changes = maps::process_changes();
    let process = maps::process((bpf_get_current_pid_tgid() >> 32) as u32);
    let (image, last_fork) = process.map_or((0, 0), |it| (it.image, it.last_fork));
    // SAFETY: the current thread's record.
    unsafe {
        (*thread).last_fork = last_fork;
        if (*thread).image != image {
            forget_calls(thread);
            (*thread).image = image;
        }
        if image != 0 {
            (*thread).group = group_of(image);
            (*thread).has_sampler = has_sampler(image);
            (*thread).origins = elsewhere::list_of(image);
            (*thread).as_of = changes;
        }
    }
    image != 0
}

/// The group that the current process belongs to, which is one image.
#[inline(always)]
pub(crate) fn group_of(image: u64) -> u64 {
    if maps::setting!(by_program) == 0 {
        return image;
    }
    let Some(process) = PROCESSES.get_ptr_mut((bpf_get_current_pid_tgid() >> 32) as u32) else {
        return image;
    };
    // SAFETY: a live map value. Two threads that do this write the same.
    unsafe {
        if (*process).group == 0 {
            (*process).group = mapped::program().unwrap_or(image);
            lifecycle::tell_group(image, (*process).group);
        }
        (*process).group
    }
}

/// Forgets what a thread has in flight.
///
/// # Safety
/// `thread` points to a record that no other thread uses.
#[inline(always)]
pub(crate) unsafe fn forget_calls(thread: *mut Thread) {
    // SAFETY: the caller's record.
    unsafe {
        (*thread).call.function = 0;
        (*thread).unheard.slot = 0;
        (*thread).thrown.slot = 0;
        (*thread).handle.slot = 0;
        (*thread).start.slot = 0;
        (*thread).clone.stack = 0;
        (*thread).pool.slot = 0;
    }
}

#[inline(never)]
fn make_thread() -> Option<*mut Thread> {
    let id = bpf_get_current_pid_tgid();
    let changes = maps::process_changes();
    let process = maps::process((id >> 32) as u32)?;
    let template = NEW_THREAD.get(0)?;
    if let Err(error) = THREADS.insert(id, template, BPF_ANY) {
        maps::lose(full_or_busy(error, LossCause::ThreadsFull), 1, 0);
        return None;
    }
    let thread = THREADS.get_ptr_mut(id)?;
    // SAFETY: a live map value.
    unsafe {
        (*thread).image = process.image;
        (*thread).group = group_of(process.image);
        (*thread).last_fork = process.last_fork;
        (*thread).has_sampler = has_sampler(process.image);
        (*thread).origins = elsewhere::list_of(process.image);
        (*thread).as_of = changes;
        recall::equip(thread);
    }
    Some(thread)
}

/// 1 if an image takes samples itself.
#[inline(always)]
fn has_sampler(image: u64) -> u64 {
    u64::from(HAS_SAMPLER.get_ptr(image).is_some())
}

/// The record of the current thread, if what it calls of an allocator counts: what its
/// process's own sampler tells is in the place of that.
#[inline(always)]
pub(crate) fn calling_thread() -> Option<*mut Thread> {
    let thread = thread()?;
    // SAFETY: the current thread's record.
    let has_sampler = unsafe { (*thread).has_sampler };
    (has_sampler == 0).then_some(thread)
}

/// Why the kernel did not enter something into a map.
#[inline(always)]
pub(crate) const fn full_or_busy(error: i32, full: LossCause) -> LossCause {
    if error == E2BIG {
        full
    } else {
        LossCause::MapBusy
    }
}

/// Whether a probed function that was entered at stack pointer `slot` is the
/// outermost one. A call that was left without a return is settled as lost.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn is_outermost(
    thread: *mut Thread,
    (function, start): (Function, u32),
    slot: u64,
) -> bool {
    // SAFETY: the caller's record, which only this thread touches.
    let in_flight = unsafe { &mut (*thread).call };
    let saved_at = in_flight.slot;
    if is_forgotten(in_flight) {
        return true;
    }
    let lost = match call::entry(in_flight, (function, start), slot, || user_word(saved_at)) {
        Entry::Outermost => return true,
        Entry::Nested if in_flight.may_throw() && thrown::makes_exception(slot) != 0 => {
            // SAFETY: the caller's record.
            unsafe { thrown::give_up(thread) };
            return true;
        }
        Entry::Nested => {
            in_flight.inner += 1;
            return false;
        }
        Entry::Stale => (1 + in_flight.inner, in_flight.size),
        // What was allocated on the way to the exception was left out.
        Entry::Instead => (in_flight.inner, 0),
    };
    if lost.0 > 0 {
        maps::lose(LossCause::MissedReturn, lost.0, lost.1);
    }
    // SAFETY: the caller's record.
    unsafe { restore_old(thread) };
    in_flight.function = 0;
    true
}

/// Whether the call in flight began in an earlier phase, whose probes were taken away
/// before it returned; then it is none any more. What it was to free is gone.
#[inline(always)]
fn is_forgotten(in_flight: &mut Call) -> bool {
    if in_flight.function == 0 || !burst::is_over(in_flight.time) {
        return false;
    }
    forget_call();
    in_flight.function = 0;
    true
}

/// Counts what the current thread's call in flight was to free. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn forget_call() -> u64 {
    if let Some(thread) = record() {
        // SAFETY: the thread's own record.
        let call = unsafe { &mut (*thread).call };
        if call.old_address != 0 && call.old.site != NO_SITE {
            count_free(&call.old, call.time);
        }
        call.old_address = 0;
    }
    0
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

/// The current thread ends, maybe within a call that has not happened then.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn abandon(thread: *mut Thread) {
    // SAFETY: the caller's record.
    unsafe {
        if (*thread).call.function != 0 {
            restore_old(thread);
        }
    }
}

/// Counts a block as allocated at its site, and follows it.
#[inline(always)]
pub(crate) fn count_made(key: BlockKey, block: &Block) {
    if count_allocated(block) {
        keep(key, block);
    }
}

/// Counts a block as allocated at its site. Whether there is one.
#[inline(always)]
pub(crate) fn count_allocated(block: &Block) -> bool {
    let Some(site) = SITES.get_ptr_mut(block.site) else {
        return false;
    };
    // SAFETY: fields of a live map value.
    unsafe {
        maps::add(&raw mut (*site).allocated_count, 1);
        maps::add(&raw mut (*site).allocated_bytes, block.size);
        (*site).last_seen = block.time;
    }
    true
}

/// Takes a block out of the live map and counts it as freed. Whether it was
/// there.
#[inline(always)]
pub(crate) fn count_gone(key: BlockKey) -> bool {
    match take(key) {
        Some(block) => {
            count_free(&block, now());
            true
        }
        None => false,
    }
}

/// Takes a block out of the live map, if it is there.
///
/// The kernel may refuse to remove it: others hold the lock for too long, or
/// the program that holds it was interrupted by this one. The entry then stays
/// as nobody's, without a site, until its address is allocated again: the
/// block is gone all the same, so nothing is lost.
#[inline(always)]
pub(crate) fn take(key: BlockKey) -> Option<Block> {
    let entry = LIVE.get_ptr_mut(key)?;
    // SAFETY: a live map value.
    let block = unsafe { *entry };
    if block.site == NO_SITE {
        return None;
    }
    match LIVE.remove(key) {
        Ok(()) => {
            chosen::note_gone(key.address);
            Some(block)
        }
        // Another thread has taken it in between.
        Err(ENOENT) => None,
        Err(_) => {
            // SAFETY: a live map value.
            unsafe { (*entry).site = NO_SITE };
            Some(block)
        }
    }
}

/// Enters a block into the live map, and settles the one that it replaces.
#[inline(always)]
pub(crate) fn keep(key: BlockKey, block: &Block) {
    chosen::note_live(key.address);
    let Err(error) = LIVE.insert(key, block, BPF_NOEXIST) else {
        return;
    };
    keep_slowly(key, block, error);
}

#[inline(never)]
fn keep_slowly(key: BlockKey, block: &Block, error: i32) {
    let mut error = error;
    // The old entry was counted in the filter too, and stays so: it may be taken out
    // meanwhile, and a count must not be too low.
    if error == EEXIST {
        if let Some(entry) = LIVE.get_ptr_mut(key) {
            // SAFETY: a live map value.
            let old = unsafe { *entry };
            if old.site != NO_SITE {
                // Two threads may touch a page at once; and between bursts nobody looks.
                let is_expected = block::page_of(key.address).is_some() || burst::is_over(old.time);
                if !is_expected {
                    maps::lose(LossCause::MissedFree, 1, old.size);
                }
                count_end(&old, block.time, 1);
            }
            // SAFETY: as above. It is counted; see `take`.
            unsafe { (*entry).site = NO_SITE };
        }
        match LIVE.insert(key, block, BPF_ANY) {
            Ok(()) => return,
            Err(again) => error = again,
        }
    }
    chosen::note_gone(key.address);
    let lost = match key.address >= block::OTHERS {
        true => (1, block.size),
        false => chosen::lost_block(block),
    };
    count_untracked(block, lost, error);
}

/// Counts a block, which stands for so many events and bytes, as one that could not be
/// entered into a map.
#[inline(always)]
pub(crate) fn count_untracked(block: &Block, (events, bytes): (u64, u64), error: i32) {
    maps::lose(full_or_busy(error, LossCause::LiveFull), events, bytes);
    if let Some(site) = SITES.get_ptr_mut(block.site) {
        // SAFETY: fields of a live map value.
        unsafe {
            maps::add(&raw mut (*site).untracked_count, 1);
            maps::add(&raw mut (*site).untracked_bytes, block.size);
            chosen::untracked(site, block);
        }
    }
}

/// See [`lifetime::bucket`]. Verified once, on its own: it has many ways, and what comes
/// after would be verified for each.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn bucket_of(lifetime: u64) -> u64 {
    lifetime::bucket(lifetime) as u64
}

/// Counts a block as freed at its site.
#[inline(always)]
pub(crate) fn count_free(block: &Block, time: u64) {
    count_end(block, time, 0);
}

/// Counts a block as freed at its site; `unseen` is 1 if that was some time before.
#[inline(always)]
fn count_end(block: &Block, time: u64, unseen: u64) {
    if burst::may_be() {
        let flags = u64::from(block.certain) << 1 | unseen;
        end_within_budget(block.site, block.size, block.time, time, flags);
        return;
    }
    add_end(block, time);
}

/// The same where a budget decides what is followed: verified once, on its own, or the
/// programs would be too long.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn end_within_budget(site: u32, size: u64, born: u64, died: u64, flags: u64) -> u64 {
    let block = Block {
        size,
        time: born,
        site,
        certain: (flags >> 1) as u32,
    };
    if add_end(&block, died) {
        burst::tell(&block, died, flags & 1);
    }
    0
}

/// Adds a block's end to the sums of its site. Whether it is one of memory.
#[inline(always)]
fn add_end(block: &Block, time: u64) -> bool {
    let Some(site) = SITES.get_ptr_mut(block.site) else {
        return false;
    };
    let bucket = bucket_of(time.saturating_sub(block.time)) as usize;
    // SAFETY: fields of a live map value.
    unsafe {
        maps::add(&raw mut (*site).freed_count, 1);
        maps::add(&raw mut (*site).freed_bytes, block.size);
        if bucket < LIFETIME_BUCKETS && !stated::is_word(block.certain) {
            maps::add((&raw mut (*site).lifetimes).cast::<u64>().add(bucket), 1);
        }
        chosen::freed(site, block, bucket);
        (*site).is(SiteKind::Memory)
    }
}

/// The site of the current stack at the entry of a function, made if it is new;
/// [`LOST_SITE`] if there is no room. `first` is as for [`unwind::capture`]; with another kind of site it
/// has to be another.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn site(
    (regs, arguments): (*const pt_regs, Arguments),
    (kind, first): (SiteKind, u64),
    thread: *mut Thread,
    time: u64,
    size: u64,
) -> u32 {
    // SAFETY: the caller's record.
    unsafe {
        let walk = unwind::capture(regs, Place::Entry(arguments), first, thread);
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
    let index = match FREE_SITES.pop() {
        Ok(Some(index)) => index,
        Ok(None) => return LOST_SITE,
        Err(_) => {
            maps::lose(LossCause::MapBusy, 1, size);
            return NO_SITE;
        }
    };
    let Some(site) = SITES.get_ptr_mut(index) else {
        return NO_SITE;
    };
    // SAFETY: the index came from the queue, so nobody else has this site, and
    // user space leaves it alone until it is published.
    unsafe { fill(site, kind, thread, walk, time) };
    if SITE_INDEX.insert(walk.key, index, BPF_NOEXIST).is_ok() {
        // SAFETY: filled, and in use from now on.
        unsafe { publish(site, (*thread).image) };
        return index;
    }
    // Another thread made the same site first, or the index map is busy. If
    // the queue is, too, there is room for one site less.
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

/// Writes all of a new site but its image.
///
/// # Safety
/// The caller owns the site and the thread's record.
#[inline(always)]
unsafe fn fill(site: *mut Site, kind: SiteKind, thread: *const Thread, walk: &Walk, time: u64) {
    // SAFETY: the caller owns the site and the thread's record.
    unsafe {
        (*site).kind = kind as u32 | if walk.is_local { LOCAL } else { 0 };
        (*site).group = (*thread).group;
        (*site).key = walk.key;
        (*site).first_seen = time;
        (*site).depth = walk.depth;
        (*site).end = walk.end as u32;
        name_thread(site);
        // Map values both, which can be read.
        let _ = read::copy(&raw mut (*site).frames, &raw const (*thread).frames);
    }
}

/// Shows a site to user space, which takes one with an image for filled. x86
/// writes in the order of the program; the empty instruction keeps the compiler
/// from another one.
///
/// # Safety
/// `site` is a live map value, and filled.
#[inline(always)]
unsafe fn publish(site: *mut Site, image: u64) {
    // SAFETY: no instruction at all, and a field of the caller's site.
    unsafe {
        asm!("");
        (&raw mut (*site).image).write_volatile(image);
    }
}

/// The current thread's id if call paths are told apart by thread, else 0.
#[inline(always)]
pub(crate) fn told_apart() -> u32 {
    if maps::setting!(threads) == 0 {
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
