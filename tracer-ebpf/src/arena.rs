//! Arenas: pools that let all their objects go at once, as APR's pools do.
//!
//! Each object counts as a block. A pool is used by one thread at a time, and its objects
//! are chained from the one that it handed out last; when it ends, or is cleared, its
//! chain is freed. Its children end by calls of their own.

use aya_ebpf::helpers::generated::bpf_probe_read_user_str;
use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::arguments::Arguments;
use tracer_ebpf::block::{Block, BlockKey, Object};
use tracer_ebpf::call::Function;
use tracer_ebpf::hits::Kind;
use tracer_ebpf::limits::WINDOW_BYTES;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOST_SITE, NO_SITE};
use tracer_ebpf::thread::Thread;

use crate::entry::{argument, slot};
use crate::inflight::{self, now};
use crate::maps::{self, ARENAS, OBJECTS};
use crate::read::user_word;
use crate::{burst, chosen, cost, pool};

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// Objects that are freed at once, at most: as many as there may be in the map, whose
/// default is a million. No loop is too long for a verifier.
const TURNS: u32 = 128;

/// Pieces of a string that are looked at, at most: half a megabyte.
const STRING_PIECES: u32 = 256;

/// An object was handed out, by the call that was in flight.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn returned(thread: *mut Thread, function: Function, result: u64) {
    // SAFETY: the caller's record.
    unsafe {
        if result == 0 || (function == Function::ArenaString && !is_wanted(thread, result)) {
            return;
        }
        let (site, size) = ((*thread).call.site, (*thread).call.size);
        if site == LOST_SITE {
            let (events, bytes) = chosen::lost(size, 0);
            maps::lose(LossCause::SitesFull, events, bytes);
        } else if site != NO_SITE {
            count(thread, result);
        }
    }
}

/// Notes the size of a string. Whether a block of that size counts.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn is_wanted(thread: *mut Thread, string: u64) -> bool {
    let size = string_size(string);
    if size == 0 {
        maps::lose(LossCause::ResultUnreadable, 1, 0);
        return false;
    }
    // SAFETY: the caller's record.
    unsafe { (*thread).call.size = size };
    is_counted(size)
}

/// Bytes of a string with the zero at its end; 0 if it cannot be read, or has no end near.
/// Verified once, on its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn string_size(string: u64) -> u64 {
    let Some(thread) = inflight::record() else {
        return 0;
    };
    let (mut at, mut turn) = (string, 0);
    while turn < STRING_PIECES {
        // SAFETY: the record's window, which holds nothing that is believed from now on;
        // as many bytes as it has.
        let read = unsafe {
            (*thread).window_length.set(0);
            let window = (&raw mut (*thread).window).cast();
            bpf_probe_read_user_str(window, WINDOW_BYTES as u32, at as *const _)
        };
        if read < 0 {
            return 0;
        }
        // Some kernels say 0 of an empty string, which is a byte.
        let read = read.cast_unsigned().max(1);
        at = at.wrapping_add(read);
        // The helper ends what it has cut by a zero of its own.
        if read < WINDOW_BYTES as u64 {
            return at.wrapping_sub(string);
        }
        at = at.wrapping_sub(1);
        turn += 1;
    }
    0
}

/// Whether an object of this size counts, by the options and by chance.
#[inline(always)]
fn is_counted(size: u64) -> bool {
    size >= maps::setting!(min_size) && (!chosen::is_on() || chosen::chooses(size, burst::choice()))
}

/// Counts an object at its site, and follows it.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn count(thread: *mut Thread, address: u64) {
    // SAFETY: the caller's record.
    let (call, image) = unsafe { (&(*thread).call, (*thread).image) };
    let block = call.block();
    chosen::allocated(&block);
    if inflight::count_allocated(&block)
        && let Err(error) = keep(call.argument, BlockKey { address, image }, &block)
    {
        inflight::count_untracked(&block, chosen::lost(block.size, block.certain), error);
    }
}

/// Enters an object into the map, as the first of its arena's chain.
#[inline(always)]
fn keep(arena: u64, key: BlockKey, block: &Block) -> Result<(), i32> {
    let image = key.image;
    let of = BlockKey {
        address: arena,
        image,
    };
    let first = ARENAS.get_ptr_mut(of);
    let object = Object {
        block: *block,
        arena,
        // SAFETY: a live map value.
        next: first.map_or(0, |first| unsafe { *first }),
    };
    if OBJECTS.insert(key, object, BPF_NOEXIST).is_err() {
        settle_old(key, block.time);
        OBJECTS.insert(key, object, BPF_ANY)?;
    }
    match first {
        // SAFETY: a live map value.
        Some(first) => unsafe { *first = key.address },
        None => {
            if let Err(error) = ARENAS.insert(of, key.address, BPF_ANY) {
                // Nothing would lead to it.
                let _ = OBJECTS.remove(key);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// An object is at the address of another, whose end was not seen.
#[inline(never)]
fn settle_old(key: BlockKey, time: u64) {
    let Some(object) = OBJECTS.get_ptr(key) else {
        return;
    };
    // SAFETY: a live map value.
    let old = unsafe { (*object).block };
    if old.site != NO_SITE {
        maps::lose(LossCause::MissedFree, 1, old.size);
        inflight::count_free(&old, time);
    }
}

/// A function was entered by which its first argument, an arena, lets all objects go.
#[inline(always)]
pub(crate) fn ended(context: &ProbeContext, arguments: Arguments, is_stepped: u64) {
    let Some(thread) = inflight::calling_thread() else {
        return;
    };
    let stack = slot(context, arguments);
    // SAFETY: the context's registers and the thread's own record.
    unsafe {
        cost::hit_at_entry(thread, Kind::Free, is_stepped);
        if let Some(arena) = argument(context, arguments, 0)
            && arena != 0
        {
            // What it gives back below is its own, whatever call this is part of.
            pool::begin(thread, stack);
            end(thread, arena);
        }
        cost::done(thread);
    }
}

/// An arena was made. What there is of one at its address is left from another's end:
/// what ran then had got it.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
pub(crate) unsafe fn made(thread: *mut Thread) {
    // SAFETY: the caller's record.
    unsafe {
        if let Some(arena) = user_word((*thread).call.argument)
            && arena != 0
        {
            end(thread, arena);
        }
    }
}

/// Frees all objects of an arena.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn end(thread: *mut Thread, arena: u64) {
    // SAFETY: the caller's record.
    unsafe {
        let image = (*thread).image;
        let key = BlockKey {
            address: arena,
            image,
        };
        let Some(first) = ARENAS.get_ptr_mut(key) else {
            return;
        };
        (*thread).pool.next = *first;
        (*thread).pool.link = now();
        // If the kernel refuses, it is an arena without objects.
        *first = 0;
        let _ = ARENAS.remove(key);
    }
    free_objects(arena);
}

/// Frees the objects of a chain, however many. Verified once, on its own, as are those
/// below.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn free_objects(arena: u64) -> u64 {
    let mut turn = 0;
    while turn < TURNS {
        if free_many(arena) == 0 {
            return 0;
        }
        turn += 1;
    }
    maps::lose(LossCause::ChainCut, 1, 0);
    1
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn free_many(arena: u64) -> u64 {
    let mut turn = 0;
    while turn < TURNS {
        if free_some(arena) == 0 {
            return 0;
        }
        turn += 1;
    }
    1
}

/// Frees the next objects of a chain. Whether there are more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn free_some(arena: u64) -> u64 {
    let mut turn = 0;
    while turn < TURNS {
        if free_next_of(arena) == 0 {
            return 0;
        }
        turn += 1;
    }
    1
}

/// Frees the next object of a chain. Whether there is one more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn free_next_of(arena: u64) -> u64 {
    let Some(thread) = inflight::record() else {
        return 0;
    };
    // SAFETY: the current thread's record.
    let (address, ended, image) =
        unsafe { ((*thread).pool.next, (*thread).pool.link, (*thread).image) };
    if address == 0 {
        return 0;
    }
    let key = BlockKey { address, image };
    // An object that took another's address is of another chain.
    // SAFETY: a live map value.
    let found = OBJECTS
        .get_ptr_mut(key)
        .filter(|it| unsafe { (**it).arena } == arena);
    let Some(object) = found else {
        maps::lose(LossCause::ChainCut, 1, 0);
        return 0;
    };
    // SAFETY: a live map value, and the current thread's record.
    unsafe {
        let next = (*object).next;
        let block = (*object).block;
        (*thread).pool.next = next;
        if OBJECTS.remove(key).is_err() {
            // See `inflight::take`.
            (*object).block.site = NO_SITE;
            (*object).arena = 0;
        }
        if block.site != NO_SITE {
            inflight::count_free(&block, ended);
        }
        u64::from(next != 0)
    }
}
