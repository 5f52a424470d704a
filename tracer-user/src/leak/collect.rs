//! Reading the sites: the kernel's sums, the ledgers of mappings, and the
//! ages of what is live.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use tracer_ebpf::block::{Block, BlockKey};
use tracer_ebpf::lifetime;
use tracer_ebpf::limits::LIFETIME_BUCKETS;
use tracer_ebpf::site::{Site, SiteKind};

use super::ledger::{LiveMapping, MappingSums};
use crate::kernel::object::Object;
use crate::report::model::{LifetimeBucket, MemoryKind};
use crate::session::images::{Image, Images};

/// Sums over live blocks of one site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LiveSums {
    /// Blocks that are old enough.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the oldest was allocated, nanoseconds of `CLOCK_MONOTONIC`.
    pub oldest: u64,
}

/// Live blocks by site.
pub type Ages = BTreeMap<u32, LiveSums>;

/// Which live blocks count: those allocated no later than this.
#[derive(Debug, Clone, Copy)]
pub struct Cutoff {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub born_by: u64,
    /// Whether the user asked for one. If not, the sums of the kernel are the
    /// live numbers, and ages only tell the oldest.
    pub asked: bool,
}

/// One site with everything that is counted.
#[derive(Debug, Clone)]
pub struct CollectedSite {
    /// Its index.
    pub index: u32,
    /// The image's id.
    pub image: u64,
    /// What the blocks are.
    pub kind: MemoryKind,
    /// Blocks allocated.
    pub allocated: (u64, u64),
    /// Blocks freed.
    pub freed: (u64, u64),
    /// Live blocks (that are old enough).
    pub live: (u64, u64),
    /// When the oldest of them was allocated.
    pub oldest: Option<u64>,
    /// First and last allocation.
    pub seen: (u64, u64),
    /// Freed blocks by lifetime.
    pub lifetimes: [u64; LIFETIME_BUCKETS],
    /// Blocks that could not be followed.
    pub untracked: u64,
    /// The thread whose path this is, if threads are told apart.
    pub thread: Option<SiteThread>,
    /// Addresses, leaf first.
    pub frames: Vec<u64>,
    /// Why the stack ends; a [`tracer_ebpf::stack::StackEnd`].
    pub end: u32,
}

/// The thread of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteThread {
    /// Its id.
    pub id: u32,
    /// The short name that it had when the site was made.
    pub name: String,
}

impl SiteThread {
    /// The thread of a site, if threads are told apart.
    pub fn of(site: &Site) -> Option<Self> {
        let end = site.thread_name.iter().position(|byte| *byte == 0);
        let name = &site.thread_name[..end.unwrap_or(site.thread_name.len())];
        (site.thread != 0).then(|| Self {
            id: site.thread,
            name: String::from_utf8_lossy(name).into_owned(),
        })
    }
}

impl LiveSums {
    fn add(&mut self, bytes: u64, time: u64) {
        self.oldest = if self.count == 0 {
            time
        } else {
            self.oldest.min(time)
        };
        self.count += 1;
        self.bytes += bytes;
    }
}

/// The ages of live heap blocks, handles and threads, of images by their ids.
///
/// # Errors
/// Fails if the kernel does.
pub fn heap_ages(object: &Object, cutoffs: &HashMap<u64, Cutoff>) -> Result<Ages> {
    let mut ages = Ages::new();
    let mut add = |key: BlockKey, block: Block| {
        if let Some(cutoff) = cutoffs.get(&key.image) {
            ages_add(&mut ages, &block, *cutoff);
        }
    };
    object.for_each_live(&mut add)?;
    object.for_each_in_flight(&mut add)?;
    Ok(ages)
}

/// What was live when images ended.
#[derive(Default)]
pub struct LastHeaps {
    /// The ages at each image's end.
    pub ages: HashMap<u64, Ages>,
    /// The blocks of all.
    pub blocks: Vec<(BlockKey, Block)>,
}

/// The live blocks of ended images, which are in the kernel's map yet.
///
/// # Errors
/// Fails if the kernel does.
pub fn last_heaps(object: &Object, ended: &HashMap<u64, Cutoff>) -> Result<LastHeaps> {
    let mut heaps = LastHeaps::default();
    object.for_each_live(|key, block| {
        if let Some(cutoff) = ended.get(&key.image) {
            heaps.blocks.push((key, block));
            ages_add(heaps.ages.entry(key.image).or_default(), &block, *cutoff);
        }
    })?;
    Ok(heaps)
}

fn ages_add(ages: &mut Ages, block: &Block, cutoff: Cutoff) {
    if block.time <= cutoff.born_by {
        ages.entry(block.site)
            .or_default()
            .add(block.size, block.time);
    }
}

/// Every site that allocated anything. Images without a cutoff are left out.
///
/// # Errors
/// Fails if the kernel does.
pub fn collect(
    object: &Object,
    images: &Images,
    cutoffs: &HashMap<u64, Cutoff>,
) -> Result<Vec<CollectedSite>> {
    let mut ages = heap_ages(object, cutoffs)?;
    for image in images.iter() {
        ages.extend(
            image
                .last_live
                .iter()
                .flatten()
                .map(|(site, sums)| (*site, *sums)),
        );
    }
    let mut sites = Vec::new();
    for (index, site) in object.followed_sites() {
        let Some(image) = images.index_of(site.image).and_then(|at| images.get(at)) else {
            continue;
        };
        let Some(&cutoff) = cutoffs.get(&site.image) else {
            continue;
        };
        if site.allocated_count > 0 {
            sites.push(block_site(index, &site, ages.get(&index).copied(), cutoff));
        }
        if let Some(sums) = image.ledger.sums_of(index) {
            sites.push(mapping_site(&site, sums, image, index, cutoff));
        }
    }
    Ok(sites)
}

/// Lifetimes in seconds, without empty buckets.
pub fn lifetime_buckets(counts: &[u64; LIFETIME_BUCKETS]) -> Vec<LifetimeBucket> {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    (0..LIFETIME_BUCKETS)
        .filter(|bucket| counts[*bucket] > 0)
        .map(|bucket| LifetimeBucket {
            below: lifetime::upper_bound(bucket).map(seconds),
            count: counts[bucket],
        })
        .collect()
}

fn block_site(index: u32, site: &Site, live: Option<LiveSums>, cutoff: Cutoff) -> CollectedSite {
    let aged = live.unwrap_or_default();
    let live = if cutoff.asked {
        (aged.count, aged.bytes)
    } else {
        (site.live_count(), site.live_bytes())
    };
    CollectedSite {
        kind: match () {
            () if site.is(SiteKind::Handle) => MemoryKind::JniHandle,
            () if site.is(SiteKind::Thread) => MemoryKind::Thread,
            () => MemoryKind::Heap,
        },
        allocated: (site.allocated_count, site.allocated_bytes),
        freed: (site.freed_count, site.freed_bytes),
        live,
        oldest: (aged.count > 0).then_some(aged.oldest),
        seen: (site.first_seen, site.last_seen),
        lifetimes: site.lifetimes,
        untracked: site.untracked_count,
        ..bare(index, site)
    }
}

fn mapping_site(
    site: &Site,
    sums: &MappingSums,
    image: &Image,
    index: u32,
    cutoff: Cutoff,
) -> CollectedSite {
    let mut aged = LiveSums::default();
    let old_enough =
        |mapping: &LiveMapping| mapping.site == index && mapping.time <= cutoff.born_by;
    for mapping in image.ledger.live().filter(old_enough) {
        aged.add(mapping.bytes, mapping.time);
    }
    let heap = image.java_heap.as_ref();
    let kind = match heap.is_some_and(|heap| image.ledger.is_within(index, heap)) {
        true => MemoryKind::JavaHeap,
        false => MemoryKind::Mapping,
    };
    CollectedSite {
        kind,
        allocated: (sums.allocated_count, sums.allocated_bytes),
        freed: (sums.freed_count, sums.freed_bytes),
        live: (aged.count, aged.bytes),
        oldest: (aged.count > 0).then_some(aged.oldest),
        seen: (sums.first_seen, sums.last_seen),
        lifetimes: sums.lifetimes,
        untracked: 0,
        ..bare(index, site)
    }
}

fn bare(index: u32, site: &Site) -> CollectedSite {
    CollectedSite {
        index,
        image: site.image,
        kind: MemoryKind::Heap,
        allocated: (0, 0),
        freed: (0, 0),
        live: (0, 0),
        oldest: None,
        seen: (0, 0),
        lifetimes: [0; LIFETIME_BUCKETS],
        untracked: 0,
        thread: SiteThread::of(site),
        frames: site
            .frames
            .iter()
            .take(site.depth as usize)
            .copied()
            .collect(),
        end: site.end,
    }
}
