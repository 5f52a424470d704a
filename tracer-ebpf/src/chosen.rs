//! Sampling (`--sample`, `--overhead`): the choice, the filter that frees go through, and
//! the sums of what chosen blocks stand for.
//!
//! All of it hangs on a setting that the verifier knows: where every allocation counts,
//! it takes this out of the programs.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use tracer_ebpf::block::{Block, OTHERS};
use tracer_ebpf::call::Function;
use tracer_ebpf::limits::LIFETIME_BUCKETS;
use tracer_ebpf::phase::Choice;
use tracer_ebpf::sample::{self, Sampling, Weight, Weighted, filter_slot};
use tracer_ebpf::site::{Site, SiteKind};
use tracer_ebpf::stated;
use tracer_ebpf::volatile::opaque;

use crate::elsewhere;
use crate::maps::{self, FILTER, SAMPLED};
use crate::sampler;

/// Whether allocations are sampled.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    sampling().is_on()
}

#[inline(always)]
fn sampling() -> Sampling {
    Sampling {
        interval: maps::setting!(sampling.interval),
        scale: maps::setting!(sampling.scale),
        certain: maps::setting!(sampling.certain),
    }
}

/// Whether a block that is followed by a choice stands for itself.
#[inline(always)]
pub(crate) fn is_certain(choice: u64) -> u32 {
    u32::from(choice == Choice::All as u64)
}

/// Whether a call is chosen that was just entered and asks for `size` bytes. All are
/// without sampling, and so are those that change mappings, and such whose size is not
/// known yet ([`chooses`] decides when it is).
#[inline(always)]
pub(crate) fn is_chosen(function: Function, size: u64, choice: u64) -> bool {
    let is_known_later = matches!(function, Function::ArenaString | Function::ArenaMake);
    if !is_on() || is_known_later || function.changes_mappings() {
        return true;
    }
    chooses(size, choice)
}

/// Whether a block of `size` bytes is chosen; see [`is_chosen`].
#[inline(always)]
pub(crate) fn chooses(size: u64, choice: u64) -> bool {
    if choice != Choice::Sample as u64 {
        return choice == Choice::All as u64;
    }
    // SAFETY: the helper has no preconditions.
    let random = unsafe { bpf_get_prandom_u32() };
    sampling().chooses(size, random, |ratio| chosen_probability(ratio))
}

/// Verified once, on its own: it has 512 ways through it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn chosen_probability(ratio: u64) -> u64 {
    sample::probability(ratio)
}

/// Whether calls are left out whose blocks are freed all the same: by chance, or since
/// they are made from elsewhere.
#[inline(always)]
pub(crate) fn leaves_out() -> bool {
    is_on() || elsewhere::is_on()
}

/// Whether a block at this address may be in the live map. If no call is left out any
/// may.
#[inline(always)]
pub(crate) fn may_be_live(address: u64) -> bool {
    if !leaves_out() {
        return true;
    }
    match FILTER.get_ptr(filter_slot(address)) {
        // SAFETY: a live map value, which others write meanwhile.
        Some(count) => unsafe { count.read_volatile() != 0 },
        None => true,
    }
}

/// An address is about to be entered into the live map.
#[inline(always)]
pub(crate) fn note_live(address: u64) {
    if is_filtered(address) {
        add_to_filter(address, 1);
    }
}

/// An address has left the live map, or was not entered into it.
#[inline(always)]
pub(crate) fn note_gone(address: u64) {
    if is_filtered(address) {
        add_to_filter(address, u64::MAX);
    }
}

/// Whether a word of the live map is looked for through the filter: those of pages,
/// handles and threads are not.
#[inline(always)]
fn is_filtered(address: u64) -> bool {
    leaves_out() && address < OTHERS
}

#[inline(always)]
fn add_to_filter(address: u64, amount: u64) {
    if let Some(count) = FILTER.get_ptr_mut(filter_slot(address)) {
        // SAFETY: a live map value.
        unsafe { maps::add(count, amount) };
    }
}

/// How many events, and bytes, a lost allocation of `size` bytes stands for. What
/// tells of it has passed the choice.
#[inline(always)]
pub(crate) fn lost(size: u64, certain: u32) -> (u64, u64) {
    if !is_on() || certain != 0 {
        return (1, size);
    }
    let weight = weigh(size, certain);
    ((weight.count + (1 << 15)) >> 16, weight.bytes >> 8)
}

/// The same of a block that cannot be followed.
#[inline(always)]
pub(crate) fn lost_block(block: &Block) -> (u64, u64) {
    match stated::is_word(block.certain) {
        true => sampler::lost(block.size, block.certain),
        false => lost(block.size, block.certain),
    }
}

/// A chosen block was allocated.
#[inline(always)]
pub(crate) fn allocated(block: &Block) {
    if is_on()
        && let Some(site) = SAMPLED.get_ptr_mut(block.site)
    {
        // SAFETY: fields of a live map value.
        unsafe {
            let weight = weigh(block.size, block.certain);
            add(&raw mut (*site).allocated, &weight);
        }
    }
}

/// A block of a site was freed, after a time of this bucket. Only blocks of memory are
/// chosen.
///
/// # Safety
/// `of` is a live map value, the site.
#[inline(always)]
pub(crate) unsafe fn freed(of: *const Site, block: &Block, bucket: usize) {
    if stated::is_word(block.certain) {
        sampler::count(
            block.site,
            block.size,
            block.certain,
            sampler::FREED,
            bucket as u32,
        );
        return;
    }
    if is_on()
        // SAFETY: the caller's site.
        && unsafe { (*of).is(SiteKind::Memory) }
        && let Some(site) = SAMPLED.get_ptr_mut(block.site)
    {
        let weight = weigh(block.size, block.certain);
        let bucket = opaque(bucket);
        // SAFETY: fields of a live map value.
        unsafe {
            add(&raw mut (*site).freed, &weight);
            if bucket < LIFETIME_BUCKETS {
                let lifetimes = (&raw mut (*site).lifetimes).cast::<u64>();
                maps::add(lifetimes.add(bucket), weight.count);
            }
        }
    }
}

/// A block of a site was allocated, and cannot be followed.
///
/// # Safety
/// See [`freed`].
#[inline(always)]
pub(crate) unsafe fn untracked(of: *const Site, block: &Block) {
    if stated::is_word(block.certain) {
        sampler::count(block.site, block.size, block.certain, sampler::UNTRACKED, 0);
        return;
    }
    if is_on()
        // SAFETY: the caller's site.
        && unsafe { (*of).is(SiteKind::Memory) }
        && let Some(site) = SAMPLED.get_ptr_mut(block.site)
    {
        // SAFETY: fields of a live map value.
        unsafe {
            let weight = weigh(block.size, block.certain);
            add(&raw mut (*site).untracked, &weight);
        }
    }
}

/// What a chosen block stands for.
#[inline(always)]
fn weigh(size: u64, certain: u32) -> Weight {
    if certain != 0 {
        return Weight::of_one(size);
    }
    let sampling = sampling();
    sampling.weight_by(size, chosen_probability(sampling.ratio(size)))
}

/// Adds a weight to sums.
///
/// # Safety
/// `sums` points into a live map value.
#[inline(always)]
unsafe fn add(sums: *mut Weighted, weight: &Weight) {
    let sums = sums.cast::<u64>();
    let [count, bytes, low, high, variance] = weight.words();
    // SAFETY: the caller's value has these words.
    unsafe {
        maps::add(sums, count);
        maps::add(sums.add(1), bytes);
        maps::add(sums.add(2), low);
        maps::add(sums.add(3), high);
        maps::add(sums.add(4), variance);
    }
}
