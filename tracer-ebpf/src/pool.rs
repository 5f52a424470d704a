//! Pools that free single objects, or a chain of them.
//!
//! Each object counts as a block. What a pool takes from below, within a call by which
//! it hands out an object, is no block of its own (only the outermost call counts);
//! so what it gives back below, within a call by which it takes an object, is none.

use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::block::BlockKey;
use tracer_ebpf::hits::Kind;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::thread::{PoolFree, Thread};

use crate::allocation::{end, is_inside, is_same};
use crate::cost;
use crate::entry::{argument, slot};
use crate::inflight;
use crate::inherited;
use crate::maps;
use crate::read::user_word;

/// Objects of a chain that are looked at, at most: parts, and objects of a part.
const PARTS: u32 = 128;
const PART: u32 = 128;

/// Notes a call at `stack` by which a pool takes objects back, unless it is part of an
/// allocating one, whether it is not, or of another such call: what is freed below after
/// it has returned is the pool's, too.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn begin(thread: *mut Thread, stack: u64) -> bool {
    // SAFETY: the caller's record.
    unsafe {
        let call = &(*thread).call;
        if call.function != 0 && is_inside(call, stack) {
            return false;
        }
        let pool = &mut (*thread).pool;
        if pool.slot != 0 && pool.has_within(stack, || user_word(pool.slot)) {
            return true;
        }
        *pool = PoolFree {
            slot: stack,
            back: user_word(stack).unwrap_or(0),
            next: 0,
            link: 0,
        };
    }
    true
}

/// A function was entered that frees one of its arguments, whose number counts from 0:
/// `g_slice_free1(size, block)` the second, which is 1.
#[inline(always)]
pub(crate) fn free<const BLOCK: usize>(
    context: &ProbeContext,
    arguments: Arguments,
    is_stepped: u64,
) {
    let Some(thread) = inflight::calling_thread() else {
        return;
    };
    let stack = slot(context, arguments);
    // SAFETY: the context's registers and the thread's own record.
    unsafe {
        cost::hit_at_entry(thread, Kind::Free, is_stepped);
        if let Some(address) = argument(context, arguments, BLOCK)
            && address != 0
            && begin(thread, stack)
        {
            free_object(thread, address, stack, (*context.regs).rip);
        }
        cost::done(thread);
    }
}

/// A function was entered that frees its second argument, and what it leads to: the
/// third says where in each object the next one's address is
/// (`g_slice_free_chain_with_offset`).
#[inline(always)]
pub(crate) fn free_chain(context: &ProbeContext, arguments: Arguments, is_stepped: u64) {
    free_linked::<true>(context, arguments, is_stepped);
}

/// The same of objects that begin with the next one's address
/// (`apr_allocator_free(allocator, nodes)`).
#[inline(always)]
pub(crate) fn free_list(context: &ProbeContext, arguments: Arguments, is_stepped: u64) {
    free_linked::<false>(context, arguments, is_stepped);
}

#[inline(always)]
fn free_linked<const IS_TOLD: bool>(context: &ProbeContext, arguments: Arguments, is_stepped: u64) {
    let Some(thread) = inflight::calling_thread() else {
        return;
    };
    let stack = slot(context, arguments);
    // SAFETY: the context's registers and the thread's own record.
    unsafe {
        cost::hit_at_entry(thread, Kind::Free, is_stepped);
        if let Some(first) = argument(context, arguments, 1)
            && let Some(link) = link::<IS_TOLD>(context, arguments)
            && first != 0
            && begin(thread, stack)
        {
            (*thread).pool.next = first;
            (*thread).pool.link = link;
            free_parts(stack, (*context.regs).rip);
        }
        cost::done(thread);
    }
}

/// Where in each object of a chain the next one's address is.
#[inline(always)]
fn link<const IS_TOLD: bool>(context: &ProbeContext, arguments: Arguments) -> Option<u64> {
    match IS_TOLD {
        true => argument(context, arguments, 2),
        false => Some(0),
    }
}

/// Frees all objects of a chain that are looked at.
#[inline(always)]
fn free_parts(stack: u64, probed: u64) {
    let mut part = 0;
    while part < PARTS {
        if free_part(stack, probed) == 0 {
            return;
        }
        part += 1;
    }
    maps::lose(LossCause::ChainCut, 1, 0);
}

/// Frees the next objects of a chain. Whether there are more. Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn free_part(stack: u64, probed: u64) -> u64 {
    let mut count = 0;
    while count < PART {
        if free_next(stack, probed) == 0 {
            return 0;
        }
        count += 1;
    }
    1
}

/// Frees the next object of a chain. Whether there is one more. Verified once, on its
/// own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn free_next(stack: u64, probed: u64) -> u64 {
    let Some(thread) = inflight::record() else {
        return 0;
    };
    // SAFETY: the current thread's record.
    let (address, link) = unsafe { ((*thread).pool.next, (*thread).pool.link) };
    if address == 0 {
        return 0;
    }
    let Some(next) = user_word(address.wrapping_add(link)) else {
        maps::lose(LossCause::ChainCut, 1, 0);
        return 0;
    };
    // SAFETY: as above.
    unsafe {
        (*thread).pool.next = next;
        free_object(thread, address, stack, probed);
    }
    u64::from(next != 0)
}

/// An object is given back.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn free_object(thread: *mut Thread, address: u64, stack: u64, probed: u64) {
    // SAFETY: the caller's record.
    unsafe {
        let image = (*thread).image;
        let key = BlockKey { address, image };
        if !end(thread, key, stack) && !is_same(thread, address, stack) {
            inherited::count_unknown(key, stack, probed);
        }
    }
}
