//! Frees of blocks that a process inherited from one that it was forked from.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::maps::HashMap;
use tracer_ebpf::block::{Block, BlockKey, Caller};
use tracer_ebpf::kinship::{Ancestor, FreedSince};
use tracer_ebpf::site::NO_SITE;
use tracer_ebpf::thread::{Process, Thread};

use crate::chosen;
use crate::inflight::{self, now};
use crate::maps::{
    self, FREED_BY, FREED_SINCE, FREED_UNKNOWN, FREED_UNSEEN, INHERITED_FREES, LIVE, PROCESSES,
    UNTRACED_FREES,
};
use crate::read::user_word;

/// Takes a block of the current thread's process out of the live map. If the
/// process has forked since it was allocated, its children have a copy, and it
/// is remembered for them first: at no time is it in neither map.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn take(thread: *const Thread, key: BlockKey) -> Option<Block> {
    // SAFETY: the caller's record.
    let forked = unsafe { (*thread).last_fork };
    // What was chosen tells nothing of a child's other frees.
    if forked != 0 && !chosen::leaves_out() {
        remember(key, forked);
    }
    inflight::take(key)
}

#[inline(never)]
fn remember(key: BlockKey, forked: u64) {
    let Some(block) = LIVE.get_ptr(key) else {
        return;
    };
    // SAFETY: a live map value.
    let (made, site) = unsafe { ((*block).time, (*block).site) };
    if made >= forked || site == NO_SITE {
        return;
    }
    let freed = now();
    if let Some(since) = FREED_SINCE.get_ptr_mut(key) {
        // SAFETY: a live map value.
        unsafe { (*since).add(made, freed) };
        return;
    }
    let mut since = FreedSince::default();
    since.add(made, freed);
    insert(key, &since);
}

fn insert(key: BlockKey, since: &FreedSince) {
    if FREED_SINCE.insert(key, since, 0).is_err() {
        // A child's free of it will pass for one of a block from before.
        if let Some(count) = INHERITED_FREES.get_ptr_mut(1) {
            // SAFETY: a live map value.
            unsafe { maps::add(count, 1) };
        }
    }
}

/// Counts a free of a block that is not in the live map. The return address of
/// the call is at `stack`; `probed` is the instruction that was hit.
#[inline(never)]
pub(crate) fn count_unknown(key: BlockKey, stack: u64, probed: u64) {
    // It is one that was not chosen, or is made elsewhere.
    if chosen::leaves_out() {
        return;
    }
    let process = PROCESSES.get_ptr((bpf_get_current_pid_tgid() >> 32) as u32);
    match process {
        // SAFETY: a live map value.
        Some(process) if unsafe { is_inherited(process, key) } => {
            maps::count(&INHERITED_FREES);
            // Blocks that are too small to be traced may come to be there, and
            // their frees are none of a copy.
            if maps::setting!(min_size) != 0 {
                give_up(key);
            }
        }
        Some(process) => {
            maps::count(&UNTRACED_FREES);
            let address = user_word(stack).unwrap_or(0);
            let caller = Caller {
                image: key.image,
                address,
            };
            // Of a process that is traced from its start there should be none but
            // what its allocator and its loader free for themselves.
            // SAFETY: as above.
            if unsafe { (*process).from_start } != 0 && address != 0 {
                count_caller(&FREED_BY, caller);
            }
            if is_freed_again(key, probed) {
                count_caller(&FREED_UNSEEN, caller);
            }
        }
        None => maps::count(&UNTRACED_FREES),
    }
}

/// Whether an unknown block was freed where another one had been before: that one may
/// be older than the run, but this one was allocated during it, and not seen. A call
/// that goes on with another probed function is one free, and hits two instructions.
#[inline(always)]
fn is_freed_again(key: BlockKey, probed: u64) -> bool {
    if maps::setting!(min_size) != 0 {
        return false;
    }
    if let Some(before) = FREED_UNKNOWN.get_ptr_mut(key) {
        // SAFETY: a live map value.
        unsafe {
            let is_same = *before == probed;
            *before = probed;
            return is_same;
        }
    }
    // If the kernel refuses it, less is known.
    let _ = FREED_UNKNOWN.insert(key, probed, 0);
    false
}

/// Counts a free of an unknown block for whoever called.
#[inline(always)]
fn count_caller(callers: &HashMap<Caller, u64>, caller: Caller) {
    match callers.get_ptr_mut(caller) {
        // SAFETY: a live map value.
        Some(count) => unsafe { maps::add(count, 1) },
        // If there is no room it stays a free of an unknown block.
        None => {
            let _ = callers.insert(caller, 1, 0);
        }
    }
}

/// Remembers that a process has freed its copy.
#[inline(always)]
fn give_up(key: BlockKey) {
    if let Some(since) = FREED_SINCE.get_ptr_mut(key) {
        // SAFETY: a live map value.
        unsafe { (*since).gave_up = now() };
        return;
    }
    let since = FreedSince {
        gave_up: now(),
        ..FreedSince::default()
    };
    insert(key, &since);
}

/// Whether a block was an ancestor's when the process was forked, and nobody in
/// between had freed it.
///
/// # Safety
/// `process` is a live map value.
#[inline(always)]
unsafe fn is_inherited(process: *const Process, key: BlockKey) -> bool {
    let address = key.address;
    // SAFETY: the caller's value.
    let [first, second, third, fourth] = unsafe { (*process).ancestors };
    if first.image == 0 || has_given_up(key, u64::MAX) {
        return false;
    }
    if had(address, &first) {
        return true;
    }
    if second.image == 0 || has_given_up(of(address, &first), first.forked) {
        return false;
    }
    if had(address, &second) {
        return true;
    }
    if third.image == 0 || has_given_up(of(address, &second), second.forked) {
        return false;
    }
    if had(address, &third) {
        return true;
    }
    fourth.image != 0 && !has_given_up(of(address, &third), third.forked) && had(address, &fourth)
}

#[inline(always)]
const fn of(address: u64, ancestor: &Ancestor) -> BlockKey {
    BlockKey {
        address,
        image: ancestor.image,
    }
}

/// Whether an image had freed its copy of an ancestor's block by then.
#[inline(always)]
fn has_given_up(key: BlockKey, by: u64) -> bool {
    match FREED_SINCE.get_ptr(key) {
        // SAFETY: a live map value.
        Some(since) => unsafe { (*since).gave_up != 0 && (*since).gave_up < by },
        None => false,
    }
}

/// Whether an ancestor had a block of its own there at the fork.
#[inline(always)]
fn had(address: u64, ancestor: &Ancestor) -> bool {
    let key = of(address, ancestor);
    if let Some(block) = LIVE.get_ptr(key) {
        // SAFETY: a live map value.
        let (made, site) = unsafe { ((*block).time, (*block).site) };
        if made < ancestor.forked && site != NO_SITE {
            return true;
        }
    }
    match FREED_SINCE.get_ptr(key) {
        // SAFETY: a live map value.
        Some(since) => unsafe { (*since).had_at(ancestor.forked) },
        None => false,
    }
}
