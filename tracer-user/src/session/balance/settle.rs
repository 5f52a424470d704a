//! From two looks at a process to its balance: a function over plain data.
//!
//! Each page that came into memory or left it belongs to one region, and each region
//! to one part, so the parts of a whole look are exact.

mod grown;

use std::collections::BTreeMap;
use std::ops::Range;

use self::grown::{Grown, variables_of};
use super::look::Look;
use crate::model::balance::{
    AllocatorBooks, Balance, GrownMapping, KeptSource, Kinds, Part, PartName, change,
};
use crate::model::sampling::rounded;
use crate::process::account::Account;
use crate::process::books::Books;
use crate::process::mappings::{Mapping, MappingKind};
use crate::process::pagemap::PAGE;
use crate::process::resident::{PageSet, Residents};

/// All addresses.
const EVERYWHERE: Range<u64> = 0..u64::MAX;
/// Mappings that are told, at most.
const MAX_GROWN: usize = 4;
/// Names that allocators give to their memory (`PR_SET_VMA_ANON_NAME`).
const ALLOCATORS: [&str; 3] = ["malloc", "mimalloc", "scudo"];

/// The file in memory that HotSpot's ZGC has its Java heap in.
const ZGC: &str = "/memfd:java_heap";

/// A live block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LiveBlock {
    /// Where it begins.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// How many it stands for: more than one if it was chosen for a sample.
    pub stands_for: f64,
}

/// What a balance is made of.
pub struct Facts<'a> {
    /// The look at the start; none if the process began during the run.
    pub before: Option<&'a Look>,
    /// The look at the end.
    pub after: &'a Look,
    /// What the program mapped during the run, in order.
    pub mapped: Vec<Range<u64>>,
    /// What allocators mapped during the run, in order.
    pub allocators: Vec<Range<u64>>,
    /// Where a JVM keeps its Java heap.
    pub java_heap: Option<Range<u64>>,
    /// Where a JVM keeps compiled code.
    pub java_code: Vec<Range<u64>>,
    /// Live blocks of this run, in the order of their addresses.
    pub blocks: Vec<LiveBlock>,
    /// Whether there are others, since they were chosen by chance.
    pub is_sampled: bool,
    /// Whether there are blocks that were not followed, by chance or by where they were asked for.
    pub leaves_out: bool,
    /// The look at the start at the process that it was forked from during the run,
    /// whose pages it has.
    pub parent: Option<&'a Look>,
    /// Whether it was forked during the run.
    pub is_forked: bool,
}

/// What happened to the pages of a part.
#[derive(Default)]
struct Sums {
    parts: BTreeMap<PartName, i64>,
    /// Bytes that were in memory and are not, in mappings that are there.
    lost: u64,
}

impl Sums {
    fn add(&mut self, name: PartName, bytes: i64) {
        *self.parts.entry(name).or_default() += bytes;
    }
}

/// The balance, without its process.
pub fn settle(facts: &Facts<'_>) -> Balance {
    let mut balance = of_accounts(facts.before, facts.after);
    let nothing = Residents::nothing();
    let before = match facts.before.or(facts.parent) {
        Some(look) => look.pages.as_ref(),
        None => Some(&nothing),
    };
    let parts = match (before, &facts.after.pages) {
        (Some(before), Some(after)) => {
            if !before.is_whole || !after.is_whole {
                let problem =
                    "not all pages could be looked at in the time and the memory that there are";
                balance.problem = Some(problem.to_owned());
            }
            let accounts = Accounts {
                facts,
                before,
                after,
            };
            accounts.fill(&mut balance)
        }
        _ => BTreeMap::new(),
    };
    balance.explain(parts.into_iter().map(|(name, bytes)| Part { name, bytes }));
    balance
}

/// A balance with the kernel's accounts, and no parts.
pub fn of_accounts(before: Option<&Look>, after: &Look) -> Balance {
    let start = before.map(|look| look.account).unwrap_or_default();
    let end = after.account;
    Balance {
        resident_start: start.resident,
        resident_end: end.resident,
        growth: change(start.resident, end.resident),
        kinds_start: kinds(&start),
        kinds_end: kinds(&end),
        copied: before.map_or(0, |look| end.copied_since(&look.account).unwrap_or(0)),
        ..Balance::default()
    }
}

fn kinds(account: &Account) -> Kinds {
    Kinds {
        anonymous: account.anonymous,
        file: account.file,
        shared: account.shared,
        swap: account.swap,
        page_tables: account.page_tables,
    }
}

struct Accounts<'a> {
    facts: &'a Facts<'a>,
    before: &'a Residents,
    after: &'a Residents,
}

impl Accounts<'_> {
    fn fill(&self, balance: &mut Balance) -> BTreeMap<PartName, i64> {
        balance.older = self.before.present.with(&self.after.present, &EVERYWHERE);
        let arenas = self.facts.after.arenas.count;
        balance.arenas = (arenas > 0).then_some(arenas + 1);
        let free = self.facts.after.arenas.free;
        balance.free_in_arenas = free.map(|lists| lists.free);
        balance.trimmable = free.map(|lists| lists.trimmable);
        balance.books = self.facts.after.books.iter().map(told).collect();
        balance.kept_source = Some(match free.is_some() || !balance.books.is_empty() {
            true => KeptSource::Books,
            false => KeptSource::Pages,
        });
        let mut sums = Sums::default();
        let live = if self.facts.is_forked && self.facts.parent.is_none() {
            let problem = "it was forked during the run: what it has from its parent, and shares with it, is in its resident set too";
            balance.problem = Some(problem.to_owned());
            let live = self.live_in(&EVERYWHERE);
            sums.add(PartName::LiveBlocks, signed(live.0));
            live
        } else {
            let mut grown = Vec::new();
            let live = self.regions(&mut sums, &mut grown);
            grown.sort_by_key(|mapping: &GrownMapping| std::cmp::Reverse(mapping.growth));
            grown.truncate(MAX_GROWN);
            balance.grown = grown;
            if self.facts.is_forked {
                sums.add(PartName::Inherited, signed(balance.older));
            } else {
                self.unmapped(&mut sums);
            }
            live
        };
        balance.live_resident = live.0 + live.1;
        sums.parts
    }

    /// Goes through all regions of all mappings. Returns the bytes of live blocks in
    /// pages that are new in memory, and in others.
    fn regions(&self, sums: &mut Sums, grown: &mut Vec<GrownMapping>) -> (u64, u64) {
        let edges = self.edges();
        let mut all_live = (0, 0);
        let mut last: Option<&Mapping> = None;
        for mapping in &self.facts.after.mappings {
            let range = &mapping.range;
            let inner = edges.partition_point(|edge| *edge <= range.start)
                ..edges.partition_point(|edge| *edge < range.end);
            let inner = edges.get(inner).unwrap_or_default();
            let starts = [range.start].into_iter().chain(inner.iter().copied());
            let ends = inner.iter().copied().chain([range.end]);
            let mut current: Option<Grown> = None;
            for region in starts.zip(ends).map(|(start, end)| start..end) {
                if mapping.kind == MappingKind::Kernel {
                    continue;
                }
                let name = self.part_of(mapping, last, &region);
                let change = self.region(sums, name, &region);
                let nothing = PageSet::default();
                let resident = self.after.present.without(&nothing, &region);
                if name == PartName::KeptByAllocators {
                    let live = self.live_in(&region);
                    all_live = (all_live.0 + live.0, all_live.1 + live.1);
                    sums.add(PartName::LiveBlocks, signed(live.0 + live.1));
                    sums.add(PartName::Reused, -signed(live.1));
                    sums.add(PartName::KeptByAllocators, -signed(live.0));
                }
                // The kernel joins mappings: what is older, and what is not, are two.
                match &mut current {
                    Some(one) if one.name == name => {
                        one.range.end = region.end;
                        one.bytes += change;
                        one.resident += resident;
                    }
                    _ => {
                        grown.extend(current.and_then(|one| one.mapping(mapping, last)));
                        current = Some(Grown {
                            name,
                            is_older: self.is_older(&region),
                            range: region,
                            bytes: change,
                            resident,
                        });
                    }
                }
            }
            grown.extend(current.and_then(|one| one.mapping(mapping, last)));
            last = Some(mapping);
        }
        all_live
    }

    /// Enters what changed in a region; returns by how much it grew.
    fn region(&self, sums: &mut Sums, name: PartName, region: &Range<u64>) -> i64 {
        let gained = self.after.present.without(&self.before.present, region);
        if self.facts.is_forked {
            // What its parent had is no loss of its own.
            sums.add(name, signed(gained));
            return signed(gained);
        }
        let lost = self.before.present.without(&self.after.present, region);
        let swapped = self.after.swapped.with(&self.before.present, region);
        let swapped = swapped.min(lost);
        let grown = signed(gained) - signed(lost - swapped);
        sums.add(name, grown);
        sums.add(PartName::Swapped, -signed(swapped));
        sums.lost += lost;
        grown
    }

    /// What was in memory and is not mapped any more.
    fn unmapped(&self, sums: &mut Sums) {
        let all = self
            .before
            .present
            .without(&self.after.present, &EVERYWHERE);
        let gone = all.saturating_sub(sums.lost);
        // The heap ends earlier: the allocator gave that back.
        let heap = |look: &Look| {
            let mut heaps = look.mappings.iter();
            let heap = heaps.find(|mapping| mapping.kind == MappingKind::Heap);
            heap.map(|heap| heap.range.clone())
        };
        let given_back = match (self.facts.before.and_then(heap), heap(self.facts.after)) {
            (Some(before), Some(after)) if after.end < before.end => {
                let end = after.end.max(before.start)..before.end;
                self.before.present.without(&self.after.present, &end)
            }
            _ => 0,
        };
        let given_back = given_back.min(gone);
        sums.add(PartName::KeptByAllocators, -signed(given_back));
        sums.add(PartName::Unmapped, -signed(gone - given_back));
    }

    /// Where one region ends and another begins.
    fn edges(&self) -> Vec<u64> {
        let facts = self.facts;
        let ranges = self
            .mappings_before()
            .iter()
            .map(|mapping| &mapping.range)
            .chain(&facts.mapped)
            .chain(&facts.allocators)
            .chain(&facts.java_heap)
            .chain(&facts.java_code)
            .chain(&facts.after.arenas.heaps);
        let mut edges: Vec<_> = ranges.flat_map(|range| [range.start, range.end]).collect();
        edges.sort_unstable();
        edges.dedup();
        edges
    }

    /// What was mapped at the start, by the process or by the one that it was forked
    /// from.
    fn mappings_before(&self) -> &[Mapping] {
        let before = self.facts.before.or(self.facts.parent);
        before.map_or(&[], |look| look.mappings.as_slice())
    }

    /// `last` is the mapping below this one.
    fn part_of(&self, mapping: &Mapping, last: Option<&Mapping>, region: &Range<u64>) -> PartName {
        let facts = self.facts;
        let is_in = |ranges: &[Range<u64>]| {
            let mut ranges = ranges.iter();
            ranges.any(|range| range.contains(&region.start))
        };
        let has_name = |name: &&str| mapping.name.contains(*name);
        match mapping.kind {
            _ if is_in(facts.java_heap.as_slice()) => PartName::JavaHeap,
            _ if is_in(&facts.java_code) => PartName::JavaCode,
            MappingKind::Heap => PartName::KeptByAllocators,
            MappingKind::Stack => PartName::Stacks,
            MappingKind::File | MappingKind::Kernel => PartName::Files,
            // ZGC has no one range, but a file of its own in memory.
            MappingKind::Shared if mapping.name.starts_with(ZGC) => PartName::JavaHeap,
            MappingKind::Shared => PartName::SharedMemory,
            MappingKind::Anonymous => match () {
                () if is_in(&facts.after.arenas.heaps) => PartName::KeptByAllocators,
                () if facts.after.stacks.iter().any(|at| region.contains(at)) => PartName::Stacks,
                () if self.has_block(region) || ALLOCATORS.iter().any(has_name) => {
                    PartName::KeptByAllocators
                }
                () if in_order(&facts.allocators, region) => PartName::KeptByAllocators,
                () if in_order(&facts.mapped, region) => PartName::Mappings,
                () if self.is_older(region) => PartName::OlderMappings,
                // Variables of a file that begin as zeros.
                () if variables_of(mapping, last).is_some() => PartName::Files,
                // An allocator's, none of whose blocks was followed.
                () if facts.leaves_out => PartName::KeptByAllocators,
                () => PartName::UnseenMappings,
            },
        }
    }

    fn has_block(&self, region: &Range<u64>) -> bool {
        let blocks = &self.facts.blocks;
        let first = blocks.partition_point(|block| block.address < region.start);
        blocks
            .get(first)
            .is_some_and(|block| block.address < region.end)
    }

    /// Whether something was mapped there at the start.
    fn is_older(&self, region: &Range<u64>) -> bool {
        let before = self.mappings_before();
        let next = before.partition_point(|mapping| mapping.range.end <= region.start);
        before
            .get(next)
            .is_some_and(|mapping| mapping.range.start < region.end)
    }

    /// Bytes of live blocks that begin in a region: in pages that are new in memory,
    /// and in those that were there before. Of a sample, what it stands for.
    fn live_in(&self, region: &Range<u64>) -> (u64, u64) {
        let blocks = &self.facts.blocks;
        let first = blocks.partition_point(|block| block.address < region.start);
        let end = blocks.partition_point(|block| block.address < region.end);
        let blocks = blocks.get(first..end).unwrap_or_default();
        let mut live = (0, 0);
        let mut estimate = (0.0, 0.0);
        for block in blocks {
            // It may go on in the next region, which is the allocator's too.
            let own = self.parts_of(block.address..block.address.saturating_add(block.size));
            live = (live.0 + own.0, live.1 + own.1);
            estimate.0 += own.0 as f64 * block.stands_for;
            estimate.1 += own.1 as f64 * block.stands_for;
        }
        match self.facts.is_sampled {
            true => (rounded(estimate.0), rounded(estimate.1)),
            false => live,
        }
    }

    /// Bytes of a block in pages that are new in memory, and in those that were there
    /// before.
    fn parts_of(&self, block: Range<u64>) -> (u64, u64) {
        let mut live = (0, 0);
        let (before, after) = (&self.before.present, &self.after.present);
        add_live(&mut live, block, before, after);
        live
    }
}

/// Books as a report has them.
fn told(books: &Books) -> AllocatorBooks {
    AllocatorBooks {
        allocator: books.allocator.to_owned(),
        arenas: (books.arenas > 0).then_some(books.arenas),
        free: books.free,
    }
}

fn add_live(live: &mut (u64, u64), block: Range<u64>, before: &PageSet, after: &PageSet) {
    let mut at = block.start;
    while at < block.end {
        let next = (at / PAGE + 1) * PAGE;
        let bytes = next.min(block.end) - at;
        if after.has(at) {
            if before.has(at) {
                live.1 += bytes;
            } else {
                live.0 += bytes;
            }
        }
        at = next;
    }
}

/// Whether a region lies in one of several ranges that are in order.
fn in_order(ranges: &[Range<u64>], region: &Range<u64>) -> bool {
    let next = ranges.partition_point(|range| range.end <= region.start);
    ranges
        .get(next)
        .is_some_and(|range| range.start <= region.start)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "settle/tests.rs"]
mod tests;
