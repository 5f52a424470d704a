//! How much kernel memory the maps take, computed from their sizes.

use tracer_ebpf::block::{Block, BlockKey, MAX_FREED_UNKNOWN, Object, hash_entry_bytes};
use tracer_ebpf::class_name::{ClassName, MAX_NAMES};
use tracer_ebpf::file::{FileKey, FileTable};
use tracer_ebpf::java::{self, Freed, Vm};
use tracer_ebpf::kinship::FreedSince;
use tracer_ebpf::limits::{
    CODE_RING_BYTES, EVENT_RING_BYTES, MAX_FILES, MAX_RANGES, MAX_RESERVERS, MAX_RULES, MAX_SPACES,
    PROBE_RING_BYTES,
};
use tracer_ebpf::memo::{MEMO_THREADS, MEMOS, Memo, UNREAD};
use tracer_ebpf::notes::Notes;
use tracer_ebpf::origin::Origins;
use tracer_ebpf::phase::DEATH_RING_BYTES;
use tracer_ebpf::python;
use tracer_ebpf::rule::Rule;
use tracer_ebpf::sample::{FILTER_SLOTS, SampledSite};
use tracer_ebpf::site::{Site, SiteKey};
use tracer_ebpf::stated::StatedSite;
use tracer_ebpf::table::{Range, Row, Space, cached};
use tracer_ebpf::thread::Thread;
use tracer_ebpf::usdt::{MAX_PLACES, Place, PlaceKey};
use tracer_ebpf::v8;

use super::origins::lists;

/// The sizes that the user can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Whether allocations are sampled.
    pub is_sampled: bool,
    /// Whether a budget decides during the run what is followed.
    pub has_budget: bool,
    /// Whether objects of arenas are counted.
    pub has_arenas: bool,
    /// Whether it matters where calls are made from.
    pub has_origins: bool,
    /// Whether calls of allocators are followed at any time.
    pub has_calls: bool,
    /// Whether JVMs tell of themselves by their own probes.
    pub has_told: bool,
    /// Live blocks.
    pub live: u32,
    /// Sites.
    pub sites: u32,
    /// Rows of unwind tables.
    pub rows: u32,
    /// The kernel's own stacks, for benchmarks; 1 is the least.
    pub kernel_stacks: u32,
    /// Functions of JavaScript whose places are kept.
    pub scripts: u32,
    /// Threads, and where that many records are made in advance.
    pub threads: Threads,
}

/// Records of threads (and of processes, which are far smaller).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// How many there can be.
    pub most: u32,
    /// Whether all are made in advance; see [`super::memory`].
    pub in_advance: bool,
}

/// Kernel memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Taken at load, whatever happens.
    pub fixed: u64,
    /// Taken for each thread that allocates.
    pub per_thread: u64,
    /// The most it can be.
    pub bound: u64,
}

/// Blocks that processes have freed since they forked, of which so many are
/// remembered; and where all room for them is made in advance.
const FREED_SINCE: u32 = 1 << 18;
const FREED_SINCE_IN_ADVANCE: u32 = 1 << 16;

/// Sites with samples that processes took themselves, where all room for them is made in
/// advance.
const STATED_IN_ADVANCE: u32 = 1 << 12;

/// Entries of a map that nobody uses, and that keeps those used last: the kernel wants some
/// for each processor.
const FEW: u32 = 1024;

/// Arenas, at most.
const ARENAS: u32 = 1 << 18;

impl Sizes {
    /// How many blocks are remembered that processes have freed since they
    /// forked. Without `--follow` no child is asked about them.
    pub fn freed_since(self, follow: bool) -> u32 {
        match (follow, self.threads.in_advance) {
            (false, _) => 1,
            (true, false) => self.live.min(FREED_SINCE),
            (true, true) => self.live.min(FREED_SINCE_IN_ADVANCE),
        }
    }

    /// How many sites can have samples that processes took themselves.
    pub fn stated(self) -> u32 {
        match self.threads.in_advance {
            // Samplers are left alone then.
            _ if !self.has_calls || self.has_budget => 1,
            true => self.sites.min(STATED_IN_ADVANCE),
            false => self.sites,
        }
    }

    /// How many objects of arenas are remembered, and arenas.
    pub fn arenas(self) -> [u32; 2] {
        match self.has_arenas {
            true => [self.live, self.live.min(ARENAS)],
            false => [1, 1],
        }
    }

    /// The kernel memory of maps of these sizes, with `--follow` or without.
    pub fn footprint(self, follow: bool) -> Footprint {
        let live = u64::from(self.live)
            * hash_entry_bytes(size_of::<BlockKey>(), size_of::<Block>()) as u64
            + buckets(self.live);
        let index = u64::from(self.sites) * hash_entry_bytes(size_of::<SiteKey>(), 4) as u64
            + buckets(self.sites);
        let sites = u64::from(self.sites) * (size_of::<Site>() + 4) as u64;
        let per_thread = hash_entry_bytes(8, size_of::<Thread>()) as u64;
        let threads = per_thread * u64::from(self.threads.most);
        let [told, compiled] = self.told();
        let rings = [EVENT_RING_BYTES, told, compiled].map(u64::from);
        let rings: u64 = rings.iter().sum();
        let freed = self.freed_since(follow);
        let fixed = places()
            + reservers()
            + unknown_frees(self.unknown_frees())
            + memos()
            + rings
            + self.samples();
        let [objects, arenas] = self.arenas();
        let chains = buckets(objects) + buckets(arenas);
        let stated = self.stated();
        let others = live
            + index
            + sites
            + self.tables()
            + fixed
            + buckets(freed)
            + buckets(stated)
            + chains;
        let entry = hash_entry_bytes(size_of::<BlockKey>(), size_of::<FreedSince>()) as u64;
        let object = hash_entry_bytes(size_of::<BlockKey>(), size_of::<Object>()) as u64;
        let arena = hash_entry_bytes(size_of::<BlockKey>(), 8) as u64;
        let chains = u64::from(objects) * object + u64::from(arenas) * arena;
        let samples = hash_entry_bytes(4, size_of::<StatedSite>()) as u64 * u64::from(stated);
        let on_demand = threads
            + class_names(self.class_names())
            + files()
            + u64::from(freed) * entry
            + chains
            + samples;
        if self.threads.in_advance {
            return Footprint {
                fixed: others + on_demand,
                per_thread: 0,
                bound: others + on_demand,
            };
        }
        Footprint {
            fixed: others,
            per_thread,
            bound: others + on_demand,
        }
    }
}

impl Sizes {
    /// What chosen blocks stand for, the filter that frees go through, and the lists of
    /// code that was asked for.
    fn samples(self) -> u64 {
        let [sites, slots] = self.sampled().map(u64::from);
        let lists = u64::from(lists(self.has_origins)) * size_of::<Origins>() as u64;
        sites * size_of::<SampledSite>() as u64 + slots * 8 + u64::from(self.deaths()) + lists
    }

    /// Rings for what JVMs tell, and of compiled code, bytes: a page each if they are not
    /// asked.
    pub fn told(self) -> [u32; 2] {
        match self.has_told {
            true => [PROBE_RING_BYTES, CODE_RING_BYTES],
            false => [4096; 2],
        }
    }

    /// How many names of classes JVMs may tell of.
    pub fn class_names(self) -> u32 {
        if self.has_told { MAX_NAMES } else { 1 }
    }

    /// How many places are remembered at which unknown blocks were freed.
    pub fn unknown_frees(self) -> u32 {
        if self.has_calls {
            MAX_FREED_UNKNOWN
        } else {
            FEW
        }
    }

    /// Room for deaths that are told one by one, bytes: a page if none are.
    pub fn deaths(self) -> u32 {
        match self.has_budget {
            true => DEATH_RING_BYTES,
            false => 4096,
        }
    }

    /// How many sites are sampled, and counters of the filter: one of each, which none
    /// uses, if none are.
    pub fn sampled(self) -> [u32; 2] {
        let sites = if self.is_sampled { self.sites } else { 1 };
        let is_filtered = self.is_sampled || self.has_origins;
        [sites, if is_filtered { FILTER_SLOTS } else { 1 }]
    }

    /// Those that stacks are unwound by.
    fn tables(self) -> u64 {
        let bytes = |len: u32, size: usize| u64::from(len) * size as u64;
        bytes(self.rows, size_of::<Row>())
            + bytes(MAX_RULES, size_of::<Rule>())
            + bytes(MAX_RANGES, size_of::<Range>())
            + bytes(MAX_SPACES, size_of::<Space>())
            + bytes(cached::ENTRIES, size_of::<cached::Entry>())
            + bytes(
                MAX_FILES,
                size_of::<FileTable>() + size_of::<python::Layout>() + size_of::<v8::Layout>(),
            )
            + scripts(self.scripts)
            + bytes(java::MAX_VMS, size_of::<Vm>() + size_of::<Freed>())
            + bytes(java::cached::ENTRIES, size_of::<u64>())
    }
}

/// Where functions of JavaScript were.
fn scripts(most: u32) -> u64 {
    let entry = hash_entry_bytes(size_of::<v8::Key>(), size_of::<v8::Function>()) as u64;
    u64::from(most) * entry
}

/// Where unknown blocks were freed.
fn unknown_frees(most: u32) -> u64 {
    let entry = hash_entry_bytes(size_of::<BlockKey>(), size_of::<u64>()) as u64;
    u64::from(most) * entry + buckets(most)
}

/// The places of USDT probes.
fn places() -> u64 {
    let entry = hash_entry_bytes(size_of::<PlaceKey>(), size_of::<Place>()) as u64;
    u64::from(MAX_PLACES) * entry + buckets(MAX_PLACES)
}

/// What threads remember of their stacks, which of that nobody has, and what walks go by.
fn memos() -> u64 {
    let notes = u64::from(MEMO_THREADS + UNREAD) * size_of::<Notes>() as u64;
    notes + u64::from(MEMO_THREADS) * (u64::from(MEMOS) * size_of::<Memo>() as u64 + 4)
}

/// The images that have reserved addresses.
fn reservers() -> u64 {
    u64::from(MAX_RESERVERS) * hash_entry_bytes(8, 8) as u64 + buckets(MAX_RESERVERS)
}

/// The numbers of files, if all are there.
fn files() -> u64 {
    u64::from(MAX_FILES) * hash_entry_bytes(size_of::<FileKey>(), 4) as u64
}

/// The names of classes, if all are there.
fn class_names(most: u32) -> u64 {
    u64::from(most) * hash_entry_bytes(8, size_of::<ClassName>()) as u64
}

/// A bucket head of 16 bytes for each entry, rounded up to a power of two.
fn buckets(entries: u32) -> u64 {
    u64::from(entries).next_power_of_two() * 16
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::limits::MAX_THREADS;

    use super::*;

    #[test]
    fn the_default_sizes_stay_below_160_mib() {
        let sizes = Sizes {
            is_sampled: false,
            has_budget: false,
            has_arenas: false,
            has_origins: false,
            has_calls: true,
            has_told: true,
            live: 1 << 20,
            sites: 1 << 14,
            rows: 1 << 20,
            kernel_stacks: 1,
            scripts: v8::MAX_FUNCTIONS,
            threads: Threads {
                most: MAX_THREADS,
                in_advance: false,
            },
        };
        let alone = sizes.footprint(false);
        assert!(alone.fixed < 160 << 20, "{alone:?}");
        let is_sampled = true;
        let sampled = Sizes {
            is_sampled,
            ..sizes
        }
        .footprint(false);
        assert!(sampled.fixed < alone.fixed + (9 << 20), "{sampled:?}");
        // Objects of arenas take memory when they are made.
        let has_arenas = true;
        let looking = Sizes {
            has_arenas,
            ..sizes
        }
        .footprint(false);
        assert!(looking.fixed < alone.fixed + (24 << 20), "{looking:?}");
        assert!(looking.bound > alone.bound + (100 << 20), "{looking:?}");
        let has_origins = true;
        let asked = Sizes {
            has_origins,
            ..sizes
        }
        .footprint(false);
        assert!(asked.fixed < alone.fixed + (6 << 20), "{asked:?}");
        // What children may free of their parents' blocks is kept too.
        let followed = sizes.footprint(true);
        assert!(followed.fixed < 165 << 20, "{followed:?}");
    }
}
