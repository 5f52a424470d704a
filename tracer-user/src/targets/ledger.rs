//! The ledger of a process' own mappings: ranges that are mapped, cut,
//! moved and unmapped.
//!
//! A mapping is counted as freed when its last byte is unmapped; its bytes
//! are counted as they go. What an operation took away at its entry comes
//! back if it fails.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use tracer_ebpf::event::{Event, EventKind, MAP_ANONYMOUS, MAP_FAILED, MREMAP_DONTUNMAP};
use tracer_ebpf::lifetime;
use tracer_ebpf::limits::LIFETIME_BUCKETS;
use tracer_ebpf::site::NO_SITE;

const PAGE: u64 = 4096;

/// Sums of one site's mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappingSums {
    /// Mappings made.
    pub allocated_count: u64,
    /// Their bytes.
    pub allocated_bytes: u64,
    /// Mappings of which nothing is left.
    pub freed_count: u64,
    /// Bytes unmapped, of whole mappings and of parts.
    pub freed_bytes: u64,
    /// First mapping, nanoseconds of `CLOCK_MONOTONIC`.
    pub first_seen: u64,
    /// Last mapping.
    pub last_seen: u64,
    /// Mappings of which nothing is left, by lifetime.
    pub lifetimes: [u64; LIFETIME_BUCKETS],
}

impl MappingSums {
    /// Nothing yet, since `time`.
    pub fn at(time: u64) -> Self {
        Self {
            allocated_count: 0,
            allocated_bytes: 0,
            freed_count: 0,
            freed_bytes: 0,
            first_seen: time,
            last_seen: time,
            lifetimes: [0; LIFETIME_BUCKETS],
        }
    }

    /// Adds those of another image.
    pub fn add(&mut self, other: &Self) {
        self.allocated_count += other.allocated_count;
        self.allocated_bytes += other.allocated_bytes;
        self.freed_count += other.freed_count;
        self.freed_bytes += other.freed_bytes;
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        for (sum, count) in self.lifetimes.iter_mut().zip(other.lifetimes) {
            *sum += count;
        }
    }
}

/// One process image's mappings.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Pieces by their first address.
    pieces: BTreeMap<u64, Piece>,
    /// What is left of each mapping.
    mappings: HashMap<u64, Mapping>,
    next: u64,
    sums: HashMap<u32, MappingSums>,
    /// What operations in flight took away, by thread.
    taken: HashMap<u32, Taken>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    end: u64,
    mapping: u64,
}

#[derive(Debug, Clone, Copy)]
struct Mapping {
    site: u32,
    time: u64,
    left: u64,
}

#[derive(Debug, Clone, Default)]
struct Taken {
    pieces: Vec<(u64, Piece)>,
    time: u64,
}

/// A live mapping's size, age and site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveMapping {
    /// Bytes left.
    pub bytes: u64,
    /// When it was made.
    pub time: u64,
    /// Who made it.
    pub site: u32,
}

impl Ledger {
    /// Enters one event of this image.
    pub fn apply(&mut self, event: &Event) {
        let (start, end) = range(event.address, event.length);
        match event.kind {
            kind if kind == EventKind::Map as u32 => {
                let replaced = self.take(start, end);
                self.settle(replaced, event.time);
                if event.flags & MAP_ANONYMOUS != 0 {
                    self.enter(start, end, event);
                }
            }
            kind if kind == EventKind::UnmapEnter as u32 => {
                self.settle_thread(event.thread);
                // The kernel refuses an address off a page and no length.
                if event.address.is_multiple_of(PAGE) && start < end {
                    let pieces = self.take(start, end);
                    self.taken.insert(
                        event.thread,
                        Taken {
                            pieces,
                            time: event.time,
                        },
                    );
                }
            }
            kind if kind == EventKind::UnmapReturn as u32 => match event.address {
                0 => self.settle_thread(event.thread),
                _ => self.restore(event.thread),
            },
            kind if kind == EventKind::RemapEnter as u32 => {
                self.settle_thread(event.thread);
                let pieces = self.take(start, end);
                self.taken.insert(
                    event.thread,
                    Taken {
                        pieces,
                        time: event.time,
                    },
                );
            }
            kind if kind == EventKind::RemapReturn as u32 => self.remapped(event),
            _ => {}
        }
    }

    /// The run or the image is over: what is still in flight has not happened
    /// in it.
    pub fn finish(&mut self) {
        for thread in self.taken.keys().copied().collect::<Vec<_>>() {
            self.restore(thread);
        }
    }

    /// The sums of one site, if it made mappings.
    pub fn sums_of(&self, site: u32) -> Option<&MappingSums> {
        self.sums.get(&site)
    }

    /// Forgets sites of which nothing is live.
    pub fn forget_sites(&mut self, is_it: impl Fn(u32) -> bool) {
        self.sums.retain(|site, _| !is_it(*site));
    }

    /// The sums of every site.
    pub fn sums(&self) -> impl Iterator<Item = (u32, &MappingSums)> {
        self.sums.iter().map(|(site, sums)| (*site, sums))
    }

    /// Every mapping that is live, in no order.
    pub fn live(&self) -> impl Iterator<Item = LiveMapping> + '_ {
        self.mappings.values().map(|m| LiveMapping {
            bytes: m.left,
            time: m.time,
            site: m.site,
        })
    }

    /// What is mapped, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.pieces.iter().map(|(start, piece)| *start..piece.end)
    }

    /// Whether something of a site is live, and all of it within a range.
    pub fn is_within(&self, site: u32, range: &Range<u64>) -> bool {
        let of_site = |piece: &Piece| {
            let mapping = self.mappings.get(&piece.mapping);
            mapping.is_some_and(|mapping| mapping.site == site)
        };
        let mut live = self.pieces.iter().filter(|(_, piece)| of_site(piece));
        let inside =
            |(start, piece): (&u64, &Piece)| *start >= range.start && piece.end <= range.end;
        live.next().is_some_and(inside) && live.all(inside)
    }

    fn enter(&mut self, start: u64, end: u64, event: &Event) {
        if event.site == NO_SITE || start >= end {
            return;
        }
        let id = self.next;
        self.next += 1;
        self.pieces.insert(start, Piece { end, mapping: id });
        self.mappings.insert(
            id,
            Mapping {
                site: event.site,
                time: event.time,
                left: end - start,
            },
        );
        let sums = self.sums.entry(event.site);
        let sums = sums.or_insert(MappingSums::at(event.time));
        sums.allocated_count += 1;
        sums.allocated_bytes += end - start;
        sums.last_seen = event.time;
    }

    fn remapped(&mut self, event: &Event) {
        if event.address == MAP_FAILED {
            self.restore(event.thread);
            return;
        }
        let taken = self.taken.remove(&event.thread).unwrap_or_default();
        let (start, end) = range(event.address, event.length);
        if event.flags & MREMAP_DONTUNMAP != 0 {
            self.put_back(taken.pieces.clone());
        } else {
            self.settle(taken.pieces.clone(), taken.time);
        }
        let replaced = self.take(start, end);
        self.settle(replaced, event.time);
        // Memory of before the trace, or of a file, is not ours to count.
        if !taken.pieces.is_empty() {
            self.enter(start, end, event);
        }
    }

    /// Cuts `start..end` out of the pieces and returns what was there.
    fn take(&mut self, start: u64, end: u64) -> Vec<(u64, Piece)> {
        if start >= end {
            return Vec::new();
        }
        self.cut(start);
        self.cut(end);
        let taken: Vec<_> = self
            .pieces
            .range(start..end)
            .map(|(at, piece)| (*at, *piece))
            .collect();
        for (at, _) in &taken {
            self.pieces.remove(at);
        }
        taken
    }

    /// Makes `address` a border between pieces.
    fn cut(&mut self, address: u64) {
        if let Some((_, piece)) = self.pieces.range_mut(..address).next_back()
            && piece.end > address
        {
            let upper = *piece;
            piece.end = address;
            self.pieces.insert(address, upper);
        }
    }

    fn put_back(&mut self, pieces: Vec<(u64, Piece)>) {
        self.pieces.extend(pieces);
    }

    fn restore(&mut self, thread: u32) {
        if let Some(taken) = self.taken.remove(&thread) {
            self.put_back(taken.pieces);
        }
    }

    fn settle_thread(&mut self, thread: u32) {
        if let Some(taken) = self.taken.remove(&thread) {
            self.settle(taken.pieces, taken.time);
        }
    }

    /// Counts pieces as unmapped.
    fn settle(&mut self, pieces: Vec<(u64, Piece)>, time: u64) {
        for (start, piece) in pieces {
            let Some(mapping) = self.mappings.get_mut(&piece.mapping) else {
                continue;
            };
            let bytes = piece.end - start;
            mapping.left = mapping.left.saturating_sub(bytes);
            let (site, left, made) = (mapping.site, mapping.left, mapping.time);
            if left == 0 {
                self.mappings.remove(&piece.mapping);
            }
            if let Some(sums) = self.sums.get_mut(&site) {
                sums.freed_bytes += bytes;
                if left == 0 {
                    sums.freed_count += 1;
                    sums.lifetimes[lifetime::bucket(time.saturating_sub(made))] += 1;
                }
            }
        }
    }
}

/// The pages that a length covers; empty if that overflows.
fn range(address: u64, length: u64) -> (u64, u64) {
    let end = length
        .checked_next_multiple_of(PAGE)
        .and_then(|length| address.checked_add(length));
    (address, end.unwrap_or(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, address: u64, length: u64, flags: u64) -> Event {
        Event {
            kind: kind as u32,
            thread: 1,
            image: 1,
            time: 5,
            address,
            length,
            flags,
            other: 0,
            site: 7,
            padding: 0,
        }
    }

    fn map(ledger: &mut Ledger, address: u64, length: u64) {
        ledger.apply(&event(EventKind::Map, address, length, MAP_ANONYMOUS));
    }

    fn enter_unmap(ledger: &mut Ledger, address: u64, length: u64) {
        ledger.apply(&event(EventKind::UnmapEnter, address, length, 0));
    }

    fn unmap(ledger: &mut Ledger, address: u64, length: u64) {
        enter_unmap(ledger, address, length);
        ledger.apply(&event(EventKind::UnmapReturn, 0, 0, 0));
    }

    /// (live mappings, live bytes, mappings freed, bytes freed)
    fn state(ledger: &mut Ledger) -> (usize, u64, u64, u64) {
        ledger.finish();
        let sums = ledger.sums[&7];
        let live = ledger.live().count();
        let bytes = ledger.live().map(|mapping| mapping.bytes).sum();
        assert_eq!(
            sums.allocated_bytes - sums.freed_bytes,
            bytes,
            "the sums agree with the pieces"
        );
        assert_eq!(sums.allocated_count - sums.freed_count, live as u64);
        assert_eq!(
            ledger
                .pieces
                .iter()
                .map(|(at, piece)| piece.end - at)
                .sum::<u64>(),
            bytes
        );
        (live, bytes, sums.freed_count, sums.freed_bytes)
    }

    #[test]
    fn lengths_are_rounded_up_to_pages() {
        let mut ledger = Ledger::default();
        map(&mut ledger, 0x10000, 0x1001);
        assert_eq!(state(&mut ledger), (1, 0x2000, 0, 0));
        unmap(&mut ledger, 0x10000, 0x1001);
        assert_eq!(state(&mut ledger), (0, 0, 1, 0x2000));
    }

    #[test]
    fn head_tail_and_middle_can_go_one_by_one() {
        let mut ledger = Ledger::default();
        map(&mut ledger, 0x10000, 0x5000);
        unmap(&mut ledger, 0x10000, 0x1000);
        unmap(&mut ledger, 0x14000, 0x1000);
        unmap(&mut ledger, 0x12000, 0x1000);
        assert_eq!(state(&mut ledger), (1, 0x2000, 0, 0x3000));
        unmap(&mut ledger, 0x10000, 0x5000);
        assert_eq!(state(&mut ledger), (0, 0, 1, 0x5000));
    }

    #[test]
    fn one_munmap_can_span_several_mappings_and_holes() {
        let mut ledger = Ledger::default();
        map(&mut ledger, 0x10000, 0x2000);
        map(&mut ledger, 0x14000, 0x2000);
        unmap(&mut ledger, 0x11000, 0x4000);
        assert_eq!(state(&mut ledger), (2, 0x2000, 0, 0x2000));
    }

    #[test]
    fn a_munmap_counts_once_it_returned() {
        let mut ledger = Ledger::default();
        map(&mut ledger, 0x10000, 0x2000);
        enter_unmap(&mut ledger, 0x10000, 0x2000);
        let freed = |ledger: &Ledger| ledger.sums().map(|(_, sums)| sums.freed_bytes).sum::<u64>();
        assert_eq!(freed(&ledger), 0);
        ledger.apply(&event(EventKind::UnmapReturn, 0, 0, 0));
        assert_eq!(freed(&ledger), 0x2000);
    }

    #[test]
    fn what_is_in_flight_at_the_end_has_not_happened() {
        let mut ledger = Ledger::default();
        map(&mut ledger, 0x10000, 0x2000);
        enter_unmap(&mut ledger, 0x10000, 0x2000);
        assert_eq!(state(&mut ledger), (1, 0x2000, 0, 0));
        ledger.apply(&event(EventKind::RemapEnter, 0x10000, 0x2000, 1));
        assert_eq!(state(&mut ledger), (1, 0x2000, 0, 0));
    }

    #[test]
    fn a_failed_munmap_loses_nothing() {
        let mut ledger = Ledger::default();
        map(&mut ledger, 0x10000, 0x2000);
        enter_unmap(&mut ledger, 0x10000, 0x1000);
        ledger.apply(&event(EventKind::UnmapReturn, 0xffff_ffff, 0, 0));
        enter_unmap(&mut ledger, 0x10001, 0x1000);
        assert_eq!(state(&mut ledger), (1, 0x2000, 0, 0));
    }

    #[test]
    fn a_fixed_mapping_replaces_what_was_there() {
        let mut ledger = Ledger::default();
        map(&mut ledger, 0x10000, 0x4000);
        map(&mut ledger, 0x11000, 0x1000);
        assert_eq!(state(&mut ledger), (2, 0x4000, 0, 0x1000));
        // A file over part of it.
        ledger.apply(&event(EventKind::Map, 0x12000, 0x1000, 0x10));
        assert_eq!(state(&mut ledger), (2, 0x3000, 0, 0x2000));
    }

    #[test]
    fn a_moving_mremap_frees_the_old_and_makes_the_new() {
        let mut ledger = Ledger::default();
        map(&mut ledger, 0x10000, 0x2000);
        ledger.apply(&event(EventKind::RemapEnter, 0x10000, 0x2000, 1));
        map_elsewhere(&mut ledger);
        ledger.apply(&event(EventKind::RemapReturn, 0x50000, 0x4000, 1));
        assert_eq!(state(&mut ledger), (2, 0x5000, 1, 0x2000));
    }

    /// Another thread gets the old address before the mremap's return is seen.
    fn map_elsewhere(ledger: &mut Ledger) {
        let mut other = event(EventKind::Map, 0x10000, 0x1000, MAP_ANONYMOUS);
        other.thread = 2;
        ledger.apply(&other);
    }

    #[test]
    fn a_failed_mremap_loses_nothing() {
        let mut ledger = Ledger::default();
        map(&mut ledger, 0x10000, 0x2000);
        ledger.apply(&event(EventKind::RemapEnter, 0x10000, 0x2000, 1));
        ledger.apply(&event(EventKind::RemapReturn, MAP_FAILED, 0x8000, 1));
        assert_eq!(state(&mut ledger), (1, 0x2000, 0, 0));
    }

    #[test]
    fn mremap_of_memory_from_before_the_trace_is_not_counted() {
        let mut ledger = Ledger::default();
        map(&mut ledger, 0x10000, 0x1000);
        ledger.apply(&event(EventKind::RemapEnter, 0x90000, 0x2000, 1));
        ledger.apply(&event(EventKind::RemapReturn, 0xa0000, 0x4000, 1));
        assert_eq!(state(&mut ledger), (1, 0x1000, 0, 0));
    }

    #[test]
    fn a_shrinking_mremap_keeps_the_rest() {
        let mut ledger = Ledger::default();
        map(&mut ledger, 0x10000, 0x4000);
        ledger.apply(&event(EventKind::RemapEnter, 0x10000, 0x4000, 0));
        ledger.apply(&event(EventKind::RemapReturn, 0x10000, 0x1000, 0));
        assert_eq!(state(&mut ledger), (1, 0x1000, 1, 0x4000));
    }

    #[test]
    fn hostile_lengths_do_nothing() {
        let mut ledger = Ledger::default();
        map(&mut ledger, 0x10000, 0x1000);
        unmap(&mut ledger, 0x1000, u64::MAX);
        unmap(&mut ledger, u64::MAX - 0xfff, 0x2000);
        map(&mut ledger, 0x20000, u64::MAX - 5);
        assert_eq!(state(&mut ledger), (1, 0x1000, 0, 0));
    }
}
