//! The ledger of a process' own mappings: ranges that are mapped, cut,
//! moved and unmapped.
//!
//! A mapping is counted as freed when its last byte is unmapped; its bytes
//! are counted as they go. What an operation took away at its entry comes
//! back if it fails.

use std::collections::HashMap;
use std::ops::Range;

use tracer_ebpf::event::{Event, EventKind, MAP_ANONYMOUS, MAP_FAILED, MREMAP_DONTUNMAP};
use tracer_ebpf::lifetime;
use tracer_ebpf::limits::LIFETIME_BUCKETS;
use tracer_ebpf::site::NO_SITE;

use super::mapped_files::MappedFiles;
use super::pieces::{Piece, Pieces};
use super::resident::Resident;
use super::thread_stacks::ThreadStacks;
use super::uncharged::Uncharged;
use crate::process::regions::Region;

const PAGE: u64 = 4096;

/// What is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MappingKind {
    /// Memory without a file.
    Anonymous,
    /// A file, or shared memory, which is one to the kernel.
    File,
    /// A thread's stack, whoever made the mapping.
    Stack,
}

/// A call path and what it maps.
pub type Account = (u32, MappingKind);

/// Sums of one site's mappings of a kind.
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
    pieces: Pieces,
    /// Addresses that are reserved, and have no memory.
    reserved: Pieces,
    /// What is left of each mapping.
    mappings: HashMap<u64, Mapping>,
    next: u64,
    sums: HashMap<Account, MappingSums>,
    resident: HashMap<Account, Resident>,
    /// What operations in flight took away, by thread.
    taken: HashMap<u32, Taken>,
    files: MappedFiles,
    stacks: ThreadStacks,
    uncharged: Uncharged,
}

#[derive(Debug, Clone, Copy)]
struct Mapping {
    site: u32,
    kind: MappingKind,
    time: u64,
    left: u64,
}

impl Mapping {
    const fn account(&self) -> Account {
        (self.site, self.kind)
    }
}

#[derive(Debug, Clone, Default)]
struct Taken {
    pieces: Vec<(u64, Piece)>,
    time: u64,
}

/// A live mapping's size, age and account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveMapping {
    /// Bytes left.
    pub bytes: u64,
    /// When it was made.
    pub time: u64,
    /// Who made it, and what it is.
    pub account: Account,
}

impl Ledger {
    /// Enters one event of this image.
    pub fn apply(&mut self, event: &Event) {
        let (start, end) = range(event.address, event.length);
        match event.kind {
            kind if kind == EventKind::Map as u32 => {
                self.replace(start, end, event.time);
                let kind = match event.flags & MAP_ANONYMOUS {
                    0 => MappingKind::File,
                    _ => MappingKind::Anonymous,
                };
                self.enter((start, end), kind, event);
            }
            kind if kind == EventKind::Reserve as u32 => {
                self.replace(start, end, event.time);
                if start < end {
                    self.reserved.insert(start, Piece { end, mapping: 0 });
                }
            }
            kind if kind == EventKind::Commit as u32 => self.commit(event, start, end),
            kind if kind == EventKind::Attach as u32 => self.files.attached(event),
            kind if kind == EventKind::DetachEnter as u32 => self.detach(event),
            kind if kind == EventKind::UnmapEnter as u32 => {
                self.settle_thread(event.thread);
                // The kernel refuses an address off a page and no length.
                if event.address.is_multiple_of(PAGE) && start < end {
                    self.take_for(event, start, end);
                }
            }
            kind if kind == EventKind::UnmapReturn as u32 => match event.address {
                0 => self.settle_thread(event.thread),
                _ => self.restore(event.thread),
            },
            kind if kind == EventKind::RemapEnter as u32 => {
                self.settle_thread(event.thread);
                self.take_for(event, start, end);
            }
            kind if kind == EventKind::RemapReturn as u32 => self.remapped(event),
            kind if kind == EventKind::AllocatorMap as u32 => {
                self.replace(start, end, event.time);
                self.uncharged.allocators_mapped(start, end);
            }
            kind if kind == EventKind::AllocatorUnmap as u32 => self.uncharged.forget(start, end),
            kind if kind == EventKind::ThreadBorn as u32 => self.thread_born(event),
            kind if kind == EventKind::ThreadEnded as u32 => self.stacks.ended(event.thread),
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

    /// The sums of one site, by what it maps.
    pub fn sums_of(&self, site: u32) -> impl Iterator<Item = (Account, &MappingSums)> {
        self.sums().filter(move |((at, _), _)| *at == site)
    }

    /// Forgets sites of which nothing is live.
    pub fn forget_sites(&mut self, is_it: impl Fn(u32) -> bool) {
        self.sums.retain(|(site, _), _| !is_it(*site));
        self.resident.retain(|(site, _), _| !is_it(*site));
    }

    /// The sums of every account.
    pub fn sums(&self) -> impl Iterator<Item = (Account, &MappingSums)> {
        self.sums.iter().map(|(account, sums)| (*account, sums))
    }

    /// Every mapping that is live, in no order.
    pub fn live(&self) -> impl Iterator<Item = LiveMapping> + '_ {
        self.mappings.values().map(|m| LiveMapping {
            bytes: m.left,
            time: m.time,
            account: m.account(),
        })
    }

    /// What is mapped, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.pieces.iter().map(|(range, _)| range)
    }

    /// What is mapped and charged to nobody: by allocators, and by others.
    pub fn uncharged(&self) -> &Uncharged {
        &self.uncharged
    }

    /// What was in memory of an account at the last look; `None` if nobody has
    /// looked since it has mappings.
    pub fn resident(&self, account: Account) -> Option<Resident> {
        self.resident.get(&account).copied()
    }

    /// Looks at what is in memory: `of` tells it of a range, or nothing if it cannot
    /// be told, which ends the look and keeps what was known.
    pub fn look(&mut self, mut of: impl FnMut(&Range<u64>) -> Option<u64>) {
        let mut found: HashMap<Account, u64> = HashMap::new();
        for (range, mapping) in self.pieces.iter() {
            let Some(mapping) = self.mappings.get(&mapping) else {
                continue;
            };
            let Some(bytes) = of(&range) else {
                return;
            };
            *found.entry(mapping.account()).or_default() += bytes;
        }
        Resident::enter(&mut self.resident, &found);
    }

    /// Whether the process's mappings have to be read to know what is mapped.
    pub fn wants_regions(&self) -> bool {
        self.files.wants_regions()
    }

    /// Takes the names of files from the process's mappings as they are now, and
    /// the lengths of segments that were attached.
    pub fn name_files(&mut self, regions: &[Region]) {
        for event in self.files.lengths(regions) {
            let (start, end) = range(event.address, event.length);
            self.replace(start, end, event.time);
            self.enter((start, end), MappingKind::File, &event);
        }
        let pieces = &self.pieces;
        self.files
            .name(regions, |address| Some(pieces.at(address)?.mapping));
    }

    /// The files that an account maps, each with its live mappings and bytes, those
    /// with most bytes first.
    pub fn files_of(&self, account: Account) -> Vec<(String, u64, u64)> {
        let own = self.mappings.iter();
        let own = own.filter(|(_, mapping)| mapping.account() == account);
        self.files
            .sums(own.map(|(id, mapping)| (*id, mapping.left)))
    }

    /// The stacks of ended threads, and where the kernel wrote that they ended.
    pub fn ended_stacks(&self) -> Vec<(u64, u64)> {
        self.stacks.ended_unjoined()
    }

    /// A thread whose stack is that mapping was joined.
    pub fn joined(&mut self, mapping: u64) {
        self.stacks.joined(mapping);
    }

    /// How many of an account's stacks are whose: of threads that run, that ended
    /// and were not joined, and of joined ones.
    pub fn stacks_of(&self, account: Account) -> [u64; 3] {
        let own = self.mappings.iter();
        let own = own.filter(|(_, mapping)| mapping.account() == account);
        self.stacks.count(own.map(|(id, _)| *id))
    }

    /// Whether something of an account is live, and all of it within a range.
    pub fn is_within(&self, account: Account, range: &Range<u64>) -> bool {
        let of_account = |mapping: &u64| {
            let mapping = self.mappings.get(mapping);
            mapping.is_some_and(|mapping| mapping.account() == account)
        };
        let mut live = self.pieces.iter().filter(|(_, piece)| of_account(piece));
        let inside =
            |(piece, _): (Range<u64>, u64)| piece.start >= range.start && piece.end <= range.end;
        live.next().is_some_and(inside) && live.all(inside)
    }

    fn enter(&mut self, (start, end): (u64, u64), kind: MappingKind, event: &Event) {
        if start >= end {
            return;
        }
        if event.site == NO_SITE {
            self.uncharged.others_mapped(start, end);
            return;
        }
        let id = self.next;
        self.next += 1;
        self.pieces.insert(start, Piece { end, mapping: id });
        let mapping = Mapping {
            site: event.site,
            kind,
            time: event.time,
            left: end - start,
        };
        self.mappings.insert(id, mapping);
        if kind == MappingKind::File {
            self.files.mapped(start, id);
        }
        self.count_made(mapping);
    }

    fn count_made(&mut self, mapping: Mapping) {
        let sums = self.sums.entry(mapping.account());
        let sums = sums.or_insert(MappingSums::at(mapping.time));
        sums.allocated_count += 1;
        sums.allocated_bytes += mapping.left;
        sums.last_seen = mapping.time;
    }

    /// What was reserved becomes memory where it is made accessible.
    fn commit(&mut self, event: &Event, start: u64, end: u64) {
        let mut parts: Vec<(u64, u64)> = Vec::new();
        for (at, piece) in self.reserved.take(start, end) {
            match parts.last_mut() {
                Some(last) if last.1 == at => last.1 = piece.end,
                _ => parts.push((at, piece.end)),
            }
        }
        for part in parts {
            self.enter(part, MappingKind::Anonymous, event);
        }
    }

    /// `shmdt` takes what is left of one segment.
    fn detach(&mut self, event: &Event) {
        self.settle_thread(event.thread);
        self.files.detached(event.address);
        let Some(piece) = self.pieces.at(event.address) else {
            return;
        };
        let is_file = self.mappings.get(&piece.mapping);
        if is_file.is_some_and(|mapping| mapping.kind == MappingKind::File) {
            let own = self.pieces.iter().filter(|(_, it)| *it == piece.mapping);
            let end = own.map(|(range, _)| range.end).max().unwrap_or(piece.end);
            self.take_for(event, event.address, end);
        }
    }

    /// A stack is charged to who started the thread that has it now: who made the
    /// mapping may have done so for another.
    fn thread_born(&mut self, event: &Event) {
        let top = self.pieces.at(event.address.wrapping_sub(1));
        let Some(id) = top.map(|piece| piece.mapping) else {
            return;
        };
        let Some(mapping) = self.mappings.get_mut(&id) else {
            return;
        };
        if event.site == NO_SITE {
            return;
        }
        let before = *mapping;
        *mapping = Mapping {
            site: event.site,
            kind: MappingKind::Stack,
            time: event.time,
            ..before
        };
        let now = *mapping;
        if let Some(sums) = self.sums.get_mut(&before.account()) {
            if before.kind == MappingKind::Stack {
                sums.freed_count += 1;
                sums.freed_bytes += before.left;
                let lived = event.time.saturating_sub(before.time);
                sums.lifetimes[lifetime::bucket(lived)] += 1;
            } else {
                // As if the thread's starter had made it.
                sums.allocated_count -= 1;
                sums.allocated_bytes -= before.left;
            }
        }
        self.sums.retain(|_, sums| sums.allocated_count > 0);
        self.count_made(now);
        self.stacks.born(id, event.thread, event.other);
    }

    fn remapped(&mut self, event: &Event) {
        if event.address == MAP_FAILED {
            self.restore(event.thread);
            return;
        }
        let taken = self.taken.remove(&event.thread).unwrap_or_default();
        let (start, end) = range(event.address, event.length);
        let first = taken.pieces.first();
        let kind = first.and_then(|(_, piece)| Some(self.mappings.get(&piece.mapping)?.kind));
        if event.flags & MREMAP_DONTUNMAP != 0 {
            self.pieces.put_back(taken.pieces);
        } else {
            self.settle(taken.pieces, taken.time);
        }
        self.replace(start, end, event.time);
        // Memory of before the trace is not ours to count.
        if let Some(kind) = kind {
            self.enter((start, end), kind, event);
        }
    }

    /// Something else is mapped there now.
    fn replace(&mut self, start: u64, end: u64, time: u64) {
        self.reserved.take(start, end);
        self.uncharged.forget(start, end);
        let replaced = self.pieces.take(start, end);
        self.settle(replaced, time);
    }

    /// Takes a range away until the thread's call has returned.
    fn take_for(&mut self, event: &Event, start: u64, end: u64) {
        self.reserved.take(start, end);
        self.uncharged.forget(start, end);
        let taken = Taken {
            pieces: self.pieces.take(start, end),
            time: event.time,
        };
        self.taken.insert(event.thread, taken);
    }

    fn restore(&mut self, thread: u32) {
        if let Some(taken) = self.taken.remove(&thread) {
            self.pieces.put_back(taken.pieces);
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
            let (account, left, made) = (mapping.account(), mapping.left, mapping.time);
            if left == 0 {
                self.mappings.remove(&piece.mapping);
                self.files.forget(piece.mapping);
                self.stacks.forget(piece.mapping);
            }
            if let Some(sums) = self.sums.get_mut(&account) {
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
#[path = "ledger_tests.rs"]
mod tests;
