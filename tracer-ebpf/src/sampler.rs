//! Samples that a process takes itself; see [`tracer_ebpf::stated`].

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::programs::ProbeContext;
use tracer_ebpf::block::{Block, BlockKey};
use tracer_ebpf::hits::Kind;
use tracer_ebpf::limits::LIFETIME_BUCKETS;
use tracer_ebpf::loss::LossCause;
use tracer_ebpf::site::{LOST_SITE, NO_SITE, SiteKind};
use tracer_ebpf::stated::{self, SamplerPlace, Stated, StatedSums};
use tracer_ebpf::thread::Thread;
use tracer_ebpf::usdt::PlaceKey;
use tracer_ebpf::volatile::opaque;

use crate::allocation;
use crate::cost;
use crate::hit::Here;
use crate::inflight::{self, E2BIG, now};
use crate::inherited;
use crate::maps::{self, NEW_STATED, PLACES, PROCESSES, SAMPLERS, STATED};
use crate::unwind;

const BPF_NOEXIST: u64 = 1;

/// The sums of a site that a sample is added to: of what was allocated.
pub(crate) const ALLOCATED: u32 = 0;
/// Of what was freed.
pub(crate) const FREED: u32 = 1;
/// Of what cannot be followed.
pub(crate) const UNTRACKED: u32 = 2;

/// `alloc(ptr, size, weighted_bytes)`, anywhere in a function. `number` is the place's,
/// if the probe has it.
#[inline(always)]
pub(crate) fn allocated(context: &ProbeContext, number: Option<u64>) {
    let Some(thread) = inflight::thread() else {
        return;
    };
    // SAFETY: the context's registers and the thread's own record.
    unsafe {
        cost::hit(thread, Kind::Entry);
        if let Some(place) = place(context, thread, number) {
            sampled(context, thread, place);
        }
        cost::done(thread);
    }
}

/// `free(ptr)`, of a sample.
#[inline(always)]
pub(crate) fn freed(context: &ProbeContext, number: Option<u64>) {
    let Some(thread) = inflight::thread() else {
        return;
    };
    // SAFETY: the context's registers and the thread's own record.
    unsafe {
        cost::hit(thread, Kind::Free);
        if let Some(place) = place(context, thread, number) {
            unsampled(context, thread, place);
        }
        cost::done(thread);
    }
}

/// The place that was hit.
///
/// # Safety
/// `thread` is the current thread's record.
#[inline(always)]
unsafe fn place(
    context: &ProbeContext,
    thread: *const Thread,
    number: Option<u64>,
) -> Option<*mut SamplerPlace> {
    let number = match number {
        Some(number) => number as u32,
        // SAFETY: the context's registers and the caller's record.
        None => unsafe { number_of((*thread).image, (*context.regs).rip) }?,
    };
    let place = SAMPLERS.get_ptr_mut(number)?;
    // SAFETY: a field of a live map value.
    unsafe { maps::add(&raw mut (*place).hits, 1) };
    Some(place)
}

/// The number of the place at an address of an image, or of one that it is a copy of.
#[inline(always)]
fn number_of(image: u64, ip: u64) -> Option<u32> {
    if let Some(number) = number_in(image, ip) {
        return Some(number);
    }
    let process = PROCESSES.get_ptr((bpf_get_current_pid_tgid() >> 32) as u32)?;
    // SAFETY: a live map value.
    let [first, second, third, fourth] = unsafe { (*process).ancestors };
    number_in(first.image, ip)
        .or_else(|| number_in(second.image, ip))
        .or_else(|| number_in(third.image, ip))
        .or_else(|| number_in(fourth.image, ip))
}

#[inline(never)]
fn number_in(image: u64, ip: u64) -> Option<u32> {
    let place = PLACES.get_ptr(PlaceKey { image, ip })?;
    // SAFETY: a live map value.
    Some(u32::from(unsafe { (*place).probe }))
}

/// A sample was taken.
///
/// # Safety
/// The context's registers, the current thread's record and a live map value.
#[inline(always)]
unsafe fn sampled(context: &ProbeContext, thread: *mut Thread, place: *mut SamplerPlace) {
    let here = Here(context.regs);
    let (mut address, mut size, mut weighted) = (0, 0, 0);
    // SAFETY: only the other fields of a place change.
    let is_known = unsafe {
        let operands = &(*place).operands;
        operands[0].evaluate_into(&here, &mut address)
            & operands[1].evaluate_into(&here, &mut size)
            & operands[2].evaluate_into(&here, &mut weighted)
    };
    let word = stated::word(size, weighted).unwrap_or(0);
    if !is_known || !stated::is_word(word) {
        maps::lose(LossCause::SampleUnusable, 1, 0);
        return;
    }
    if size < maps::setting!(min_size) {
        return;
    }
    // (A sampler that counts intervals says more of small ones.)
    let excess = weighted.saturating_sub(size);
    let time = now();
    // SAFETY: the caller's values.
    unsafe {
        // Two threads may do so at once: it is for an estimate.
        if excess > 0 && ((*place).excess == 0 || size < (*place).size) {
            (*place).excess = excess;
            (*place).size = size;
        }
        let walk = unwind::capture(context.regs, unwind::Place::Inside, 0, thread);
        let site = inflight::site_of(&walk, SiteKind::Memory, thread, time, size);
        let image = (*thread).image;
        let block = Block {
            size,
            time,
            site,
            certain: word,
        };
        enter(BlockKey { address, image }, &block);
    }
}

/// Counts a sample at its site, and follows it.
#[inline(always)]
fn enter(key: BlockKey, block: &Block) {
    if block.site == NO_SITE {
        return;
    }
    let is_counted =
        block.site != LOST_SITE && count(block.site, block.size, block.certain, ALLOCATED, 0) != 0;
    if !is_counted {
        let (events, bytes) = lost(block.size, block.certain);
        maps::lose(LossCause::SitesFull, events, bytes);
        return;
    }
    if key.address != 0 {
        inflight::count_made(key, block);
    } else if inflight::count_allocated(block) {
        // Ours had no room to follow it.
        inflight::count_untracked(block, lost(block.size, block.certain), E2BIG);
    }
}

/// A sample was freed.
///
/// # Safety
/// See [`sampled`].
#[inline(always)]
unsafe fn unsampled(context: &ProbeContext, thread: *mut Thread, place: *const SamplerPlace) {
    let mut address = 0;
    // SAFETY: the caller's values; only the other fields of a place change.
    unsafe {
        let here = Here(context.regs);
        if !(*place).operands[0].evaluate_into(&here, &mut address) || address == 0 {
            maps::lose(LossCause::SampleUnusable, 1, 0);
            return;
        }
        let image = (*thread).image;
        let key = BlockKey { address, image };
        let (stack, ip) = ((*context.regs).rsp, (*context.regs).rip);
        if !allocation::end(thread, key, stack) {
            inherited::count_unknown(key, 0, ip);
        }
    }
}

/// How many events, and bytes, a lost sample stands for.
#[inline(always)]
pub(crate) fn lost(size: u64, word: u32) -> (u64, u64) {
    let stands = Stated::of(size, word);
    ((stands.count + (1 << 15)) >> 16, stands.bytes)
}

/// Adds a sample to one of the sums of its site. Whether there is room. Verified once, on
/// its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_stated(index: u32, size: u64, word: u32, which: u32, bucket: u32) -> u64 {
    if STATED.get_ptr(index).is_none()
        && let Some(none) = NEW_STATED.get(0)
    {
        // Another thread may be faster.
        let _ = STATED.insert(index, none, BPF_NOEXIST);
    }
    let Some(site) = STATED.get_ptr_mut(index) else {
        return 0;
    };
    let stands = Stated::of(size, word);
    let bucket = opaque(bucket as usize);
    // SAFETY: fields of a live map value.
    unsafe {
        if which == FREED && bucket < LIFETIME_BUCKETS {
            let lifetimes = (&raw mut (*site).lifetimes).cast::<u64>();
            maps::add(lifetimes.add(bucket), stands.count);
        }
        let sums = match which {
            ALLOCATED => &raw mut (*site).allocated,
            FREED => &raw mut (*site).freed,
            _ => &raw mut (*site).untracked,
        };
        add(sums, &stands.words(size));
    }
    1
}

#[inline(always)]
pub(crate) fn count(index: u32, size: u64, word: u32, which: u32, bucket: u32) -> u64 {
    count_stated(index, size, word, which, bucket)
}

/// Adds to the words of sums.
///
/// # Safety
/// `sums` points into a live map value.
#[inline(always)]
unsafe fn add(sums: *mut StatedSums, words: &[u64; 8]) {
    let sums = sums.cast::<u64>();
    let [samples, sample_bytes, count, bytes, ..] = *words;
    let [.., count_low, count_high, bytes_low, bytes_high] = *words;
    // SAFETY: the caller's value has eight words.
    unsafe {
        maps::add(sums, samples);
        maps::add(sums.add(1), sample_bytes);
        maps::add(sums.add(2), count);
        maps::add(sums.add(3), bytes);
        maps::add(sums.add(4), count_low);
        maps::add(sums.add(5), count_high);
        maps::add(sums.add(6), bytes_low);
        maps::add(sums.add(7), bytes_high);
    }
}
