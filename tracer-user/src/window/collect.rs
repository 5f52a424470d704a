//! Reading the sites: the kernel's sums, the ledgers of mappings, and the
//! ages of what is live.

use std::collections::HashMap;

use anyhow::Result;
use tracer_ebpf::block::{self, Block, BlockKey, PAGE};
use tracer_ebpf::lifetime;
use tracer_ebpf::limits::LIFETIME_BUCKETS;
use tracer_ebpf::site::{Site, SiteKey, SiteKind};
use tracer_ebpf::stated::{self, StatedSite, StatedSums};

use crate::holders::OfSite;
use crate::jvm::frames::Named;
use crate::kernel::object::Object;
use crate::model::{
    CurvePoint, LifetimeBucket, MappedFile, MemoryKind, SiteWindow, StackOwners, Survival,
    TouchedPages,
};
use crate::targets::estimate::{Estimate, Estimates};
use crate::targets::groups::EndedMappings;
use crate::targets::images::{Image, Images};
use crate::targets::ledger::{Account, MappingKind, MappingSums};
use crate::targets::resident::Resident;
use crate::targets::share::{Ages, LiveSums, Shares};
use crate::targets::touched::TouchedSums;

/// What a path may map.
const MAPPING_KINDS: [MappingKind; 3] = [
    MappingKind::Anonymous,
    MappingKind::File,
    MappingKind::Stack,
];

/// Which live blocks count: those allocated no later than this.
#[derive(Debug, Clone, Copy)]
pub struct Cutoff {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub born_by: u64,
    /// Whether the user asked for one. If not, the sums of the kernel are the
    /// live numbers, and ages are told beside them.
    pub asked: bool,
    /// When blocks are looked at, on the same clock: their ages end then.
    pub end: u64,
}

/// One site with everything that is counted.
#[derive(Debug, Clone)]
pub struct CollectedSite {
    /// Its index.
    pub index: u32,
    /// The id of the image that made it.
    pub image: u64,
    /// The group of processes that share it.
    pub group: u64,
    /// Its identity.
    pub key: SiteKey,
    /// What the blocks are.
    pub kind: MemoryKind,
    /// Blocks allocated.
    pub allocated: (u64, u64),
    /// Blocks freed.
    pub freed: (u64, u64),
    /// Live blocks (that are old enough).
    pub live: (u64, u64),
    /// When the oldest of them was allocated, if its process runs.
    pub oldest: Option<u64>,
    /// Who holds them.
    pub shares: Shares,
    /// First and last allocation.
    pub seen: (u64, u64),
    /// Freed blocks by lifetime.
    pub lifetimes: [u64; LIFETIME_BUCKETS],
    /// Blocks that could not be followed.
    pub untracked: u64,
    /// What these numbers were rounded from, if they are estimates.
    pub estimates: Option<Estimates>,
    /// What became of its blocks that were followed in bursts.
    pub survival: Option<Survival>,
    /// The thread whose path this is, if threads are told apart.
    pub thread: Option<SiteThread>,
    /// Words of the frames, leaf first.
    pub frames: Vec<u64>,
    /// Why the stack ends; a [`tracer_ebpf::stack::StackEnd`].
    pub end: u32,
    /// Names of the words, of a site that the kernel does not hold any more.
    pub names: Option<Vec<Option<Named>>>,
    /// What is new of it, if that is asked for.
    pub window: Option<SiteWindow>,
    /// Whether this is no path, but the sum of those that were not kept apart.
    pub is_rest: bool,
    /// What of its mappings is in memory, if anybody has looked.
    pub resident: Option<Resident>,
    /// The files that it maps, each with its live mappings and bytes.
    pub files: Vec<MappedFile>,
    /// Whose its threads' stacks are.
    pub stacks: StackOwners,
    /// Its pages, if it is of pages.
    pub pages: Option<TouchedPages>,
    /// What was live over time.
    pub curve: Vec<CurvePoint>,
    /// Who holds some of its live blocks.
    pub holders: OfSite,
    /// The indices of all sites that were added to it, where holders were looked for.
    pub indices: Vec<u32>,
}

impl CollectedSite {
    /// Adds another site of the same path.
    pub fn add(&mut self, site: &Self) {
        let pair = |a: (u64, u64), b: (u64, u64)| (a.0 + b.0, a.1 + b.1);
        self.allocated = pair(self.allocated, site.allocated);
        self.freed = pair(self.freed, site.freed);
        self.live = pair(self.live, site.live);
        self.shares.merge(&site.shares);
        self.oldest = self.oldest.into_iter().chain(site.oldest).min();
        self.curve = CurvePoint::sum(&self.curve, &site.curve);
        self.holders.add(&site.holders);
        self.indices.extend(&site.indices);
        self.seen = (self.seen.0.min(site.seen.0), self.seen.1.max(site.seen.1));
        self.untracked += site.untracked;
        if let Some(estimates) = &site.estimates {
            let sum = self.estimates.get_or_insert_default();
            sum.add(estimates);
            // Rounded once, not for each summand.
            self.allocated = sum.allocated.whole();
            self.freed = sum.freed.whole();
            self.live = sum.live.whole();
        }
        if let Some(survival) = &site.survival {
            self.survival.get_or_insert_default().add(survival);
        }
        if let (Some(sum), Some(window)) = (&mut self.window, &site.window) {
            sum.add(window);
        }
        for (sum, count) in self.lifetimes.iter_mut().zip(site.lifetimes) {
            *sum += count;
        }
        if let Some(resident) = site.resident {
            self.resident.get_or_insert_default().add(resident);
        }
        MappedFile::merge(&mut self.files, &site.files);
        self.stacks.add(site.stacks);
        if let Some(pages) = &site.pages {
            self.pages.get_or_insert_default().add(pages);
        }
    }

    /// A site without anything.
    pub fn empty() -> Self {
        Self {
            index: 0,
            image: 0,
            group: 0,
            key: SiteKey { high: 0, low: 0 },
            kind: MemoryKind::Heap,
            allocated: (0, 0),
            freed: (0, 0),
            live: (0, 0),
            oldest: None,
            shares: Shares::default(),
            seen: (0, 0),
            lifetimes: [0; LIFETIME_BUCKETS],
            untracked: 0,
            estimates: None,
            survival: None,
            thread: None,
            frames: Vec::new(),
            end: 0,
            names: None,
            window: None,
            is_rest: false,
            resident: None,
            files: Vec::new(),
            stacks: StackOwners::default(),
            pages: None,
            curve: Vec::new(),
            holders: OfSite::default(),
            indices: Vec::new(),
        }
    }
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

/// What was live when images ended.
#[derive(Default)]
pub struct LastHeaps {
    /// The ages at each image's end.
    pub ages: HashMap<u64, Ages>,
    /// The blocks of all that are freed one by one.
    pub blocks: Vec<(BlockKey, Block)>,
}

/// The live blocks of ended images, which are in the kernel's map yet.
///
/// # Errors
/// Fails if the kernel does.
pub fn last_heaps(object: &Object, ended: &HashMap<u64, Cutoff>) -> Result<LastHeaps> {
    let mut blocks = Vec::new();
    let mut ages: HashMap<u64, Ages> = HashMap::new();
    let mut add = |key: BlockKey, block| {
        let cutoff = ended.get(&key.image)?;
        // With its end a process has given back its pages.
        if block::page_of(key.address).is_none() {
            let ages = ages.entry(key.image).or_default();
            add_block(ages, (key, block), *cutoff, object);
        }
        Some((key, block))
    };
    object.for_each_block(|key, block| blocks.extend(add(key, block)))?;
    object.for_each_object(|key, block| {
        add(key, block);
    })?;
    Ok(LastHeaps { ages, blocks })
}

fn add_block(ages: &mut Ages, (key, block): (BlockKey, Block), cutoff: Cutoff, object: &Object) {
    if block.time > cutoff.born_by {
        return;
    }
    let sums = ages.entry(block.site).or_default();
    let (size, time, end) = (block.size, block.time, cutoff.end);
    match key.address < block::OTHERS {
        true if stated::is_word(block.certain) => {
            sums.add_estimate((size, time), end, &Estimate::of_sample(size, block.certain));
        }
        true if object.sampling.is_on() => sums.add_sampled(&block, end, &object.sampling),
        // There may be samples at the same site.
        true if object.samplers.are_used() => {
            sums.add_estimate((size, time), end, &Estimate::of_itself(size));
        }
        _ => sums.add(size, time, end),
    }
}

/// What running images hold of a site now.
#[derive(Default)]
struct Held {
    shares: Shares,
    oldest: Option<u64>,
}

impl Held {
    fn add(&mut self, image: &Image, sums: &LiveSums, now: u64) {
        let end = image.ended.map_or(now, |(time, _)| time);
        let ended = image.ended.is_some();
        self.shares.add(image.pid, ended, sums, end);
        if sums.count > 0 {
            self.oldest = self.oldest.into_iter().chain([sums.oldest]).min();
        }
    }
}

/// Mappings of an account, in all images.
struct Mapped {
    sums: MappingSums,
    held: Held,
    /// Whether all that is live is within a JVM's Java heap.
    in_java_heap: bool,
    resident: Option<Resident>,
    files: Vec<MappedFile>,
    stacks: StackOwners,
}

impl Mapped {
    fn since(first_seen: u64) -> Self {
        Self {
            sums: MappingSums::at(first_seen),
            held: Held::default(),
            in_java_heap: false,
            resident: None,
            files: Vec::new(),
            stacks: StackOwners::default(),
        }
    }

    fn add_ended(&mut self, ended: &EndedMappings) {
        self.sums.add(&ended.sums);
        self.held.shares.merge(&ended.live);
        self.add_resident(ended.resident);
    }

    fn add_resident(&mut self, resident: Option<Resident>) {
        if let Some(resident) = resident {
            self.resident.get_or_insert_default().add(resident);
        }
    }
}

/// What each image has brought into memory, by site.
pub type PagesOfImages = HashMap<u64, HashMap<u32, TouchedSums>>;

/// Every site that allocated anything, at `now`.
///
/// # Errors
/// Fails if the kernel does.
pub fn collect(
    object: &Object,
    images: &Images,
    cutoffs: &HashMap<u64, Cutoff>,
    pages: &PagesOfImages,
    now: u64,
) -> Result<Vec<CollectedSite>> {
    let mut touched = touched(images, pages, now);
    let mut blocks = held_blocks(object, images, cutoffs, now)?;
    let mut mapped = mapped(images, cutoffs, now);
    let large = large(images);
    let asked = cutoffs.values().any(|cutoff| cutoff.asked);
    let mut sites = Vec::new();
    for (index, site) in object.followed_sites() {
        let Some(group) = images.group(site.group) else {
            continue;
        };
        if site.is(SiteKind::Page) {
            let held = touched.remove(&index).unwrap_or_default();
            sites.push(page_site(index, &site, held));
        } else if site.allocated_count > 0 {
            let mut held = blocks.remove(&index).unwrap_or_default();
            held.shares.merge(&group.held(index));
            sites.push(CollectedSite {
                resident: large.get(&index).copied(),
                ..block_site(object, index, &site, held, asked)
            });
        }
        for kind in MAPPING_KINDS {
            if let Some(mapped) = mapped.remove(&(index, kind)) {
                sites.push(mapping_site(index, &site, kind, mapped));
            }
        }
    }
    Ok(sites)
}

/// What there is to keep of a site at which nothing is live but what images held
/// when they ended.
pub fn retired_sites(
    object: &Object,
    (index, site): (u32, &Site),
    images: &Images,
    cutoff: Cutoff,
) -> Vec<CollectedSite> {
    let group = images.group(site.group);
    let mut sites = Vec::new();
    if site.is(SiteKind::Page) {
        return vec![page_site(index, site, HeldPages::default())];
    }
    if site.allocated_count > 0 {
        let held = Held {
            shares: group.map(|group| group.held(index)).unwrap_or_default(),
            oldest: None,
        };
        sites.push(block_site(object, index, site, held, cutoff.asked));
    }
    let mut mapped: HashMap<Account, Mapped> = HashMap::new();
    for (account, ended) in group.iter().flat_map(|group| group.mappings_of(index)) {
        let first = ended.sums.first_seen;
        let mapped = mapped.entry(account).or_insert(Mapped::since(first));
        mapped.add_ended(ended);
    }
    for (account, sums) in images.unmapped_of(index) {
        let mapped = mapped.entry(account);
        mapped
            .or_insert(Mapped::since(sums.first_seen))
            .sums
            .add(&sums);
    }
    for ((_, kind), mapped) in mapped {
        sites.push(mapping_site(index, site, kind, mapped));
    }
    sites
}

/// What images that are known hold of each site.
fn held_blocks(
    object: &Object,
    images: &Images,
    cutoffs: &HashMap<u64, Cutoff>,
    now: u64,
) -> Result<HashMap<u32, Held>> {
    let mut ages: HashMap<u64, Ages> = HashMap::new();
    let mut add = |key: BlockKey, block: Block| {
        if let Some(cutoff) = cutoffs.get(&key.image)
            && block::page_of(key.address).is_none()
        {
            let ages = ages.entry(key.image).or_default();
            add_block(ages, (key, block), *cutoff, object);
        }
    };
    object.for_each_live(&mut add)?;
    object.for_each_in_flight(&mut add)?;
    let mut held: HashMap<u32, Held> = HashMap::new();
    for (image, ages) in ages {
        let Some(image) = images.index_of(image).and_then(|at| images.get(at)) else {
            continue;
        };
        for (site, sums) in ages {
            held.entry(site).or_default().add(image, &sums, now);
        }
    }
    Ok(held)
}

/// What is in memory of large blocks, by site.
fn large(images: &Images) -> HashMap<u32, Resident> {
    let mut all: HashMap<u32, Resident> = HashMap::new();
    for (site, resident) in images.iter().flat_map(|image| image.large.resident()) {
        all.entry(site).or_default().add(resident);
    }
    all
}

/// What images that run have brought into memory, by site.
fn touched(images: &Images, pages: &PagesOfImages, now: u64) -> HashMap<u32, HeldPages> {
    let mut all: HashMap<u32, HeldPages> = HashMap::new();
    for (image, sites) in pages {
        let Some(image) = images.index_of(*image).and_then(|at| images.get(at)) else {
            continue;
        };
        for (site, sums) in sites {
            let live = LiveSums {
                count: sums.bytes() / PAGE,
                bytes: sums.bytes(),
                oldest: sums.oldest,
                ..LiveSums::default()
            };
            let held = all.entry(*site).or_default();
            held.held.add(image, &live, now);
            held.pages.add(&sums.pages());
        }
    }
    all
}

/// Pages of a site that running images have in memory.
#[derive(Default)]
struct HeldPages {
    held: Held,
    pages: TouchedPages,
}

/// The mappings of each account.
fn mapped(images: &Images, cutoffs: &HashMap<u64, Cutoff>, now: u64) -> HashMap<Account, Mapped> {
    let mut all: HashMap<Account, Mapped> = HashMap::new();
    for (_, group) in images.groups() {
        for (account, ended) in group.mappings() {
            let mapped = all.entry(account);
            let mapped = mapped.or_insert_with(|| Mapped::since(ended.sums.first_seen));
            mapped.add_ended(ended);
        }
    }
    for image in images.iter().filter(|image| !image.has_left) {
        let Some(cutoff) = cutoffs.get(&image.id) else {
            continue;
        };
        let mut ages: HashMap<Account, LiveSums> = HashMap::new();
        for mapping in image.ledger.live() {
            if mapping.time <= cutoff.born_by {
                let sums = ages.entry(mapping.account).or_default();
                sums.add(mapping.bytes, mapping.time, cutoff.end);
            }
        }
        for (account, sums) in image.ledger.sums() {
            let mapped = all.entry(account);
            let mapped = mapped.or_insert_with(|| Mapped::since(sums.first_seen));
            mapped.sums.add(sums);
            let live = ages.get(&account).copied().unwrap_or_default();
            mapped.held.add(image, &live, now);
            let heap = image.java_heap.as_ref();
            mapped.in_java_heap |= heap.is_some_and(|heap| image.ledger.is_within(account, heap));
            mapped.add_resident(image.ledger.resident(account));
            add_what(mapped, image, account);
        }
    }
    all
}

/// Adds what is mapped: which files, and whose stacks.
fn add_what(mapped: &mut Mapped, image: &Image, account: Account) {
    match account.1 {
        MappingKind::Anonymous => {}
        MappingKind::File => {
            let files = image.ledger.files_of(account).into_iter();
            let files: Vec<_> = files
                .map(|(name, mappings, bytes)| MappedFile {
                    name,
                    mappings,
                    bytes,
                })
                .collect();
            MappedFile::merge(&mut mapped.files, &files);
        }
        MappingKind::Stack => {
            let [running, ended, joined] = image.ledger.stacks_of(account);
            mapped.stacks.add(StackOwners {
                running,
                ended,
                joined,
            });
        }
    }
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

/// What was counted at a site: what was allocated, freed and is live, each as blocks
/// and their bytes, and what these numbers are rounded from if they are estimates.
pub struct Counted {
    /// Blocks allocated.
    pub allocated: (u64, u64),
    /// Blocks freed.
    pub freed: (u64, u64),
    /// Live blocks.
    pub live: (u64, u64),
    /// Freed blocks by lifetime.
    pub lifetimes: [u64; LIFETIME_BUCKETS],
    /// What the others are rounded from.
    pub estimates: Option<Estimates>,
}

impl Counted {
    /// What the kernel has of a site.
    pub fn of(object: &Object, index: u32, site: &Site) -> Self {
        let exact = Self {
            allocated: (site.allocated_count, site.allocated_bytes),
            freed: (site.freed_count, site.freed_bytes),
            live: (site.live_count(), site.live_bytes()),
            lifetimes: site.lifetimes,
            estimates: None,
        };
        if !site.is(SiteKind::Memory) {
            return exact;
        }
        let stated = object.samplers.stated(index);
        let own = match &stated {
            Some(stated) => exact.without(stated),
            None => exact,
        };
        let rounded = |count: u64| (count + (1 << 15)) >> 16;
        let (mut estimates, lifetimes) = match object.sampled.as_ref().and_then(|it| it.get(index))
        {
            Some(sampled) => {
                let samples = (own.allocated.0, own.live.0);
                let estimates = Estimates::of(&sampled, samples, &object.sampling);
                (estimates, sampled.lifetimes.map(rounded))
            }
            None if stated.is_none() => return own,
            None => {
                let estimates = Estimates::of_counted(own.allocated, own.freed, own.live);
                (estimates, own.lifetimes)
            }
        };
        let mut sum = lifetimes;
        if let Some(stated) = &stated {
            estimates.add(&Estimates::of_stated(stated));
            let all = sum.iter_mut().zip(stated.lifetimes);
            all.for_each(|(sum, count)| *sum += rounded(count));
        }
        Self {
            lifetimes: sum,
            ..Self::estimated(estimates)
        }
    }

    /// What is left of all that was counted without samples that processes took
    /// themselves. Their lifetimes are not among the site's.
    fn without(self, stated: &StatedSite) -> Self {
        let less = |all: (u64, u64), (samples, bytes): (u64, u64)| {
            (all.0.saturating_sub(samples), all.1.saturating_sub(bytes))
        };
        let of = |sums: &StatedSums| (sums.samples, sums.sample_bytes);
        let [allocated, freed, untracked] =
            [&stated.allocated, &stated.freed, &stated.untracked].map(of);
        Self {
            allocated: less(self.allocated, allocated),
            freed: less(self.freed, freed),
            live: less(self.live, less(less(allocated, freed), untracked)),
            ..self
        }
    }

    fn estimated(estimates: Estimates) -> Self {
        Self {
            allocated: estimates.allocated.whole(),
            freed: estimates.freed.whole(),
            live: estimates.live.whole(),
            lifetimes: [0; LIFETIME_BUCKETS],
            estimates: Some(estimates),
        }
    }

    /// With other live blocks, such as are old enough.
    fn with_live(self, shares: &Shares) -> Self {
        match self.estimates {
            None => Self {
                live: (shares.count, shares.bytes),
                ..self
            },
            Some(estimates) => Self {
                live: shares.estimate.whole(),
                estimates: Some(Estimates {
                    live: shares.estimate,
                    live_samples: shares.count,
                    ..estimates
                }),
                ..self
            },
        }
    }
}

fn block_site(object: &Object, index: u32, site: &Site, held: Held, asked: bool) -> CollectedSite {
    let mut counted = Counted::of(object, index, site);
    if asked {
        counted = counted.with_live(&held.shares);
    }
    CollectedSite {
        kind: match () {
            () if site.is(SiteKind::Handle) => MemoryKind::JniHandle,
            () if site.is(SiteKind::Thread) => MemoryKind::Thread,
            () => MemoryKind::Heap,
        },
        allocated: counted.allocated,
        freed: counted.freed,
        live: counted.live,
        estimates: counted.estimates,
        oldest: held.oldest,
        shares: held.shares,
        seen: (site.first_seen, site.last_seen),
        lifetimes: counted.lifetimes,
        untracked: site.untracked_count,
        ..bare(index, site)
    }
}

/// A site of pages: what was touched and is not in memory any more was given back.
fn page_site(index: u32, site: &Site, HeldPages { held, pages }: HeldPages) -> CollectedSite {
    let live = (held.shares.count, held.shares.bytes);
    let around = pages.around_bytes;
    let allocated = (
        site.allocated_count + around / PAGE,
        site.allocated_bytes + around,
    );
    CollectedSite {
        kind: MemoryKind::Page,
        allocated,
        freed: (
            allocated.0.saturating_sub(live.0),
            allocated.1.saturating_sub(live.1),
        ),
        live,
        oldest: held.oldest,
        shares: held.shares,
        seen: (site.first_seen, site.last_seen),
        untracked: site.untracked_count,
        pages: Some(pages),
        ..bare(index, site)
    }
}

fn mapping_site(index: u32, site: &Site, kind: MappingKind, mapped: Mapped) -> CollectedSite {
    let Mapped { sums, held, .. } = mapped;
    CollectedSite {
        kind: match kind {
            MappingKind::Anonymous if mapped.in_java_heap => MemoryKind::JavaHeap,
            MappingKind::Anonymous => MemoryKind::Mapping,
            MappingKind::File => MemoryKind::FileMapping,
            MappingKind::Stack => MemoryKind::ThreadStack,
        },
        resident: mapped.resident,
        files: mapped.files,
        stacks: mapped.stacks,
        allocated: (sums.allocated_count, sums.allocated_bytes),
        freed: (sums.freed_count, sums.freed_bytes),
        live: (held.shares.count, held.shares.bytes),
        oldest: held.oldest,
        shares: held.shares,
        seen: (sums.first_seen, sums.last_seen),
        lifetimes: sums.lifetimes,
        untracked: 0,
        ..bare(index, site)
    }
}

fn bare(index: u32, site: &Site) -> CollectedSite {
    let frames = site.frames.iter().take(site.depth as usize);
    CollectedSite {
        index,
        image: site.image,
        group: site.group,
        key: site.key,
        thread: SiteThread::of(site),
        frames: frames.copied().collect(),
        end: site.end,
        ..CollectedSite::empty()
    }
}
