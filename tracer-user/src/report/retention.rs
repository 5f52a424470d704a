//! Memory that no leak explains: what allocators keep, and what is older than the run.

use crate::model::balance::{Balance, PartName, change};
use crate::model::{MemoryKind, Report, Site};
use crate::report::names;

/// Retention below this is not worth a sentence, bytes.
pub const MUCH: u64 = 1 << 20;
/// What an allocator adds to each block, for its header and to round it up, bytes at
/// most; more than that is memory that nobody uses.
const HEADER: u64 = 48;
/// What allocators with classes of sizes round up by besides, at most one part in so many.
const CLASSES: u64 = 4;
/// Processes with less in memory need no advice, bytes.
const LARGE: u64 = 16 << 20;

/// Bytes that a process's allocator keeps of what was freed, if that is why it grew and
/// that is certain: all blocks were seen, and as much was freed during the run.
pub fn kept(report: &Report, balance: &Balance) -> Option<u64> {
    let kept = u64::try_from(balance.part(PartName::KeptByAllocators)).ok()?;
    let growth = u64::try_from(balance.growth).ok()?;
    let sum = |of: fn(&Site) -> u64| {
        let sites = report.sites.iter();
        let heap = |site: &&Site| site.process == balance.process && site.kind == MemoryKind::Heap;
        sites.filter(heap).map(of).fold(0, u64::saturating_add)
    };
    let freed = sum(freed_at_most);
    let free = kept.saturating_sub(sum(|site| site.live_count).saturating_mul(HEADER));
    let settings = &report.settings;
    let is_whole = settings.min_size == 0 && !settings.is_by_caller() && !report.is_sampled();
    let is_known = report.lost_events() == 0 && is_whole;
    let is_why = |free: u64| is_known && free >= MUCH && free > growth / 2 && freed >= free;
    // An allocator's memory is also its metadata, which was never freed: by its books it
    // is known what is free for certain.
    let by_books = balance.books.iter().map(|books| books.free);
    let by_books = by_books.fold(0, u64::saturating_add).min(free);
    match is_why(free) {
        true => Some(kept),
        false => Some(by_books).filter(|free| is_why(*free)),
    }
}

/// What a site's freed blocks have taken, bytes at most.
pub fn freed_at_most(site: &Site) -> u64 {
    let headers = site.freed_count.saturating_mul(HEADER);
    let allocator = site.frames.last().and_then(|frame| frame.module.as_deref());
    let rounded = match allocator {
        Some(file) if !is_of_libc(file) => site.freed_bytes / CLASSES,
        _ => 0,
    };
    site.freed_bytes
        .saturating_add(rounded)
        .saturating_add(headers)
}

/// Whether a file is a C library: its heaps are known by what is in them.
pub fn is_of_libc(file: &str) -> bool {
    let name = names::base(file);
    ["libc.", "libc-", "ld-"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// Bytes in memory of a process that are older than the run, if those are most of it and
/// the blocks of the run are little.
pub fn is_mostly_older(balance: &Balance) -> Option<u64> {
    let end = balance.resident_end;
    // Blocks of this run may lie in pages from before.
    let older = change(0, balance.older).saturating_add(balance.part(PartName::Reused));
    let older = u64::try_from(older).unwrap_or(0);
    let is_most = end >= LARGE && older >= end / 10 * 8;
    let knows = balance.live_resident <= end / 10;
    (is_most && knows).then_some(older)
}
