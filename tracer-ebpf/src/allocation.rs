//! malloc and its relatives.

use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::block::BlockKey;
use tracer_ebpf::call::{Call, Function};
use tracer_ebpf::hits::Kind;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOST_SITE, NO_SITE};
use tracer_ebpf::thread::{Freed, Thread};

use crate::burst;
use crate::chosen;
use crate::cost;
use crate::entry::{argument, slot};
use crate::inflight;
use crate::inherited;
use crate::maps;
use crate::read;

/// Takes realloc's old block out of the live map: while the call runs, the
/// address may already belong to another thread.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn take_old(thread: *mut Thread, address: u64) {
    // SAFETY: the caller's record.
    unsafe {
        let image = (*thread).image;
        let taken = match chosen::may_be_live(address) {
            true => inherited::take(thread, BlockKey { address, image }),
            false => None,
        };
        let call = &mut (*thread).call;
        match taken {
            Some(block) => call.old = block,
            None => call.old.site = NO_SITE,
        }
        call.old_address = address;
    }
}

/// An allocating function, whose call was in flight, returned `result`.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn returned(thread: *mut Thread, function: Function, result: u64) {
    // SAFETY: the caller's record.
    unsafe {
        let call = &mut (*thread).call;
        let outcome = match function {
            Function::PosixMemalign => aligned_result(result as u32, call.argument, call.size),
            // It did what it was asked for if the block is that large now.
            Function::Xallocx if result >= call.size => call.old_address,
            Function::Xallocx => 0,
            _ => result,
        };
        // A realloc to nothing frees the block and returns null; any other
        // null is a failure that leaves the old block alone.
        let done = outcome != 0
            || match function {
                Function::Xallocx => false,
                Function::Reallocf => true,
                _ => call.size == 0,
            };
        if call.old_address != 0 {
            if !done {
                inflight::restore_old(thread);
            } else if call.old.site == NO_SITE {
                let (address, image) = (call.old_address, (*thread).image);
                // Nobody but programs calls realloc; and no instruction is at such a
                // low address.
                let key = BlockKey { address, image };
                inherited::count_unknown(key, 0, u64::from(call.function));
            } else {
                inflight::count_free(&call.old, call.time);
            }
        }
        if outcome != 0 && call.site == LOST_SITE {
            let (events, bytes) = chosen::lost(call.size, call.certain);
            maps::lose(LossCause::SitesFull, events, bytes);
        } else if outcome != 0 && call.site != NO_SITE {
            count_allocation(thread, outcome);
        }
    }
}

/// The address that posix_memalign stored; 0 if it failed or is unreadable.
#[inline(always)]
fn aligned_result(status: u32, result: u64, size: u64) -> u64 {
    if status != 0 {
        return 0;
    }
    read::user_word(result).unwrap_or_else(|| {
        maps::lose(LossCause::ResultUnreadable, 1, size);
        0
    })
}

/// Counts the call's block at its site and follows it.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn count_allocation(thread: *mut Thread, address: u64) {
    // SAFETY: the caller's record.
    let (call, image) = unsafe { (&(*thread).call, (*thread).image) };
    let block = call.block();
    chosen::allocated(&block);
    inflight::count_made(BlockKey { address, image }, &block);
}

/// `free` was entered.
#[inline(always)]
pub(crate) fn free(context: &ProbeContext, arguments: Arguments, is_stepped: u64) {
    let address = argument(context, arguments, 0);
    let is_passed_over = burst::is_pause() || !address.is_some_and(chosen::may_be_live);
    if chosen::leaves_out() && is_passed_over {
        cost::hit_in_passing(Kind::Free, is_stepped);
        return;
    }
    let Some(thread) = inflight::calling_thread() else {
        return;
    };
    // SAFETY: the thread's own record.
    unsafe {
        cost::hit_at_entry(thread, Kind::Free, is_stepped);
        if let Some(address) = address
            && address != 0
        {
            let probed = (*context.regs).rip;
            freed(thread, address, slot(context, arguments), probed);
        }
        cost::done(thread);
    }
}

/// The block at `address` is freed by a call whose return address is at `stack`;
/// `probed` is the instruction that was hit.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn freed(thread: *mut Thread, address: u64, stack: u64, probed: u64) {
    // SAFETY: the caller's record.
    unsafe {
        let call = &(*thread).call;
        if call.function != 0 && is_inside(call, stack) {
            return;
        }
        let image = (*thread).image;
        let key = BlockKey { address, image };
        if end(thread, key, stack) {
            return;
        }
        // What a pool gives back below, of what it was never seen to take.
        if !is_same(thread, address, stack) && !is_pools(thread, stack) {
            inherited::count_unknown(key, stack, probed);
        }
    }
}

/// Whether the block at `address` was freed last, and by the same call, which goes on with
/// itself, or with what is below it: `operator delete` with `free`.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn is_same(thread: *const Thread, address: u64, stack: u64) -> bool {
    // SAFETY: the caller's record.
    let last = unsafe { &(*thread).freed };
    last.address == address && stack <= last.stack
}

/// Counts a block as freed by a call whose return address is at `stack`. Whether it was
/// followed.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn end(thread: *mut Thread, key: BlockKey, stack: u64) -> bool {
    // SAFETY: the caller's record.
    unsafe {
        let Some(block) = inherited::take(thread, key) else {
            return false;
        };
        inflight::count_free(&block, inflight::now());
        (*thread).freed = Freed {
            address: key.address,
            stack,
        };
    }
    true
}

/// Whether a `free` at stack pointer `stack` is part of a call by which a pool takes
/// objects back.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn is_pools(thread: *const Thread, stack: u64) -> bool {
    // SAFETY: the caller's record.
    let pool = unsafe { &(*thread).pool };
    pool.slot != 0 && pool.has_within(stack, || read::user_word(pool.slot))
}

/// Whether a `free` at stack pointer `stack` is part of the call in flight:
/// musl's realloc, for example, ends in one.
#[inline(always)]
pub(crate) fn is_inside(in_flight: &Call, stack: u64) -> bool {
    stack <= in_flight.slot
        && read::user_word(in_flight.slot).is_some_and(|word| in_flight.is_active_with(word))
}
