//! How the resident set of a process grew, and what explains it: a part of the
//! report's schema.

use serde::{Deserialize, Serialize};

use super::descriptors::DescriptorBalance;

/// The resident set of one process at the run's start and end. `growth` is the
/// sum of `parts` and `unexplained`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// Index into [`super::Report::processes`].
    pub process: usize,
    /// Process id in the tracer's pid namespace.
    pub pid: u32,
    /// Bytes in memory when the run began; 0 if the process began later.
    pub resident_start: u64,
    /// Bytes in memory at the end.
    pub resident_end: u64,
    /// By how much they differ.
    pub growth: i64,
    /// What explains it, none of them 0.
    pub parts: Vec<Part>,
    /// What is left.
    pub unexplained: i64,
    /// The kinds of memory at the start.
    pub kinds_start: Kinds,
    /// The kinds of memory at the end.
    pub kinds_end: Kinds,
    /// Bytes that were in memory at the start and still are.
    #[serde(default)]
    pub older: u64,
    /// Bytes of live blocks of this run that are in memory: a block can be larger
    /// than what was written to.
    #[serde(default)]
    pub live_resident: u64,
    /// Bytes that it shared with relatives since a fork and has copied by writing to them: in its
    /// resident set before and after, and so in no part.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub copied: u64,
    /// Where it grew most, of what is no allocator's memory that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grown: Vec<GrownMapping>,
    /// glibc's arenas, if it has any but the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arenas: Option<u64>,
    /// Bytes that these arenas have free by their own lists, which were read while the
    /// program ran on; of memory from before the run too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_in_arenas: Option<u64>,
    /// Bytes in memory that `malloc_trim(0)` would give back of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trimmable: Option<u64>,
    /// What other allocators have free by their own books, read in the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub books: Vec<AllocatorBooks>,
    /// Where what is said of memory that allocators keep comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_source: Option<KeptSource>,
    /// What it holds by its descriptors, which is in no resident set; none where that was not
    /// looked at, or nothing grew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptors: Option<DescriptorBalance>,
    /// Why nothing, or not everything, could be explained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Memory of a process by kind, bytes, as the kernel accounts it: the first three
/// add up to the resident set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kinds {
    /// Its own: heaps, stacks, and written copies of files' pages.
    pub anonymous: u64,
    /// Pages of files.
    pub file: u64,
    /// Shared memory: tmpfs, memfd, System V.
    pub shared: u64,
    /// In swap space; not in memory.
    pub swap: u64,
    /// Page tables, which are the kernel's, and in no resident set.
    pub page_tables: u64,
}

/// Where knowledge of what allocators keep comes from. The part of the balance is always
/// of pages, so that the parts add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptSource {
    /// An allocator's own books were read too: `free_in_arenas` or `books`.
    Books,
    /// The pages in memory of allocators, less the live blocks in them, are all that is
    /// known.
    Pages,
}

/// What one allocator has free by its own books.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocatorBooks {
    /// Its name: `jemalloc` or `tcmalloc`.
    pub allocator: String,
    /// Arenas that it has made, if it has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arenas: Option<u64>,
    /// Bytes of whole pages that are free and not given back to the kernel, of memory
    /// from before the run too. What it gives back when asked is as much, less pages that
    /// were never touched.
    pub free: u64,
}

/// One explanation of a growth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it is.
    pub name: PartName,
    /// By how many bytes of memory it grew, or shrank.
    pub bytes: i64,
}

/// What explains growth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartName {
    /// What a process that was forked during the run has in memory where its parent had
    /// memory when the run began.
    Inherited,
    /// Pages that came into memory when they were touched (`--growth`).
    FirstTouched,
    /// Pages that came in around such a page: of a huge page, or of a file
    /// (`--growth`).
    BroughtAlong,
    /// Pages whose coming into memory was not told of: those that a program asked for
    /// ahead, or that the kernel wrote to without a fault (`--growth`).
    Untold,
    /// Pages that came into memory while page faults were not followed, to keep a budget,
    /// and those that came in around pages that were touched: which of both, is not known
    /// then (`--growth` with `--overhead`).
    NotFollowed,
    /// Negative: pages that were in memory when the run began, and are not (`--growth`).
    GivenBack,
    /// Live blocks of this run, as far as they are in memory.
    LiveBlocks,
    /// Negative: the part of the live blocks that lies in pages which were in
    /// memory before the run.
    Reused,
    /// Pages of pools that hand out objects of their own.
    Pools,
    /// Pages of allocators that came into memory, less the live blocks in them and
    /// less those that were given back: free lists, gaps, headers.
    KeptByAllocators,
    /// Mappings that the program made during the run.
    Mappings,
    /// Stacks of threads.
    Stacks,
    /// A JVM's Java heap.
    JavaHeap,
    /// A JVM's compiled code.
    JavaCode,
    /// Mapped files, and the data of programs and libraries.
    Files,
    /// Shared memory: tmpfs, memfd, System V.
    SharedMemory,
    /// Mappings from before the run, in which more was touched, or less is left.
    OlderMappings,
    /// Mappings that were made during the run by calls that were not seen.
    UnseenMappings,
    /// Negative: what was in memory before the run and is unmapped now.
    Unmapped,
    /// Negative: what went to swap space.
    Swapped,
}

impl PartName {
    /// All, in the order in which they are told.
    #[cfg(test)]
    pub const ALL: [Self; 20] = [
        Self::Inherited,
        Self::FirstTouched,
        Self::BroughtAlong,
        Self::Untold,
        Self::NotFollowed,
        Self::GivenBack,
        Self::LiveBlocks,
        Self::Reused,
        Self::Pools,
        Self::KeptByAllocators,
        Self::Mappings,
        Self::Stacks,
        Self::JavaHeap,
        Self::JavaCode,
        Self::Files,
        Self::SharedMemory,
        Self::OlderMappings,
        Self::UnseenMappings,
        Self::Unmapped,
        Self::Swapped,
    ];

    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Inherited => "had by its parent at the start",
            Self::FirstTouched => "first touched during the run",
            Self::BroughtAlong => "brought in around what was touched",
            Self::Untold => "brought in without a page fault",
            Self::NotFollowed => "not followed, to keep the budget",
            Self::GivenBack => "given back since the start",
            Self::LiveBlocks => "live blocks of this run",
            Self::Reused => "  less what reuses older memory",
            Self::Pools => "held by pools",
            Self::KeptByAllocators => "kept by allocators",
            Self::Mappings => "mappings of this run",
            Self::Stacks => "stacks of threads",
            Self::JavaHeap => "Java heap",
            Self::JavaCode => "Java's compiled code",
            Self::Files => "mapped files, data of libraries",
            Self::SharedMemory => "shared memory",
            Self::OlderMappings => "mappings from before the run",
            Self::UnseenMappings => "mappings whose making was not seen",
            Self::Unmapped => "unmapped since the start",
            Self::Swapped => "moved to swap space",
        }
    }
}

/// A mapping that grew in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrownMapping {
    /// Its first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
    /// By how many bytes of memory it grew.
    pub growth: u64,
    /// Bytes of it that were in memory at the end; 0 if that was not looked at.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub resident: u64,
    /// What the kernel calls it; empty if it has no name.
    pub name: String,
    /// Whether it was there when the run began.
    pub is_older: bool,
    /// Whether it was seen to be mapped during the run: sites have the call paths.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_traced: bool,
    /// The file whose data has most pointers into it: most likely its allocator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// A control group's own account (cgroup v2), and what of its growth is in none of
/// its processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupBalance {
    /// Its path below the root of the hierarchy.
    pub path: String,
    /// Bytes charged to it at the start (`memory.current`).
    pub start: u64,
    /// Bytes charged at the end.
    pub end: u64,
    /// By how much they differ.
    pub growth: i64,
    /// By how much the anonymous memory of its processes grew.
    pub processes: i64,
    /// tmpfs, memfd and other shared memory.
    pub shared: i64,
    /// Files in the page cache.
    pub page_cache: i64,
    /// The kernel's own memory: sockets, page tables, slabs, stacks.
    pub kernel: i64,
    /// Its processes at the end that are not traced, to which its growth may be due as well: the
    /// tracer is one of them if it is in it.
    #[serde(default)]
    pub untraced: u64,
}

impl CgroupBalance {
    /// What grew and is in no process's anonymous memory.
    pub fn outside(&self) -> i64 {
        self.growth.saturating_sub(self.processes)
    }
}

impl Balance {
    /// Enters parts; what they leave is unexplained.
    pub fn explain(&mut self, parts: impl IntoIterator<Item = Part>) {
        self.parts = parts.into_iter().filter(|part| part.bytes != 0).collect();
        self.parts.sort_by_key(|part| part.name);
        self.unexplained = self.growth.saturating_sub(self.sum());
    }

    /// Takes bytes of a part for another one's, as far as the part has as many.
    pub fn hand_over(&mut self, from: PartName, to: PartName, bytes: u64) {
        let had = self.part(from);
        let bytes = change(0, bytes).min(had);
        if bytes <= 0 {
            return;
        }
        let moved = [(from, had - bytes), (to, self.part(to) + bytes)];
        let mut parts = std::mem::take(&mut self.parts);
        parts.retain(|part| part.name != from && part.name != to);
        self.explain(
            parts
                .into_iter()
                .chain(moved.map(|(name, bytes)| Part { name, bytes })),
        );
    }

    /// Whether it adds up.
    pub fn adds_up(&self) -> bool {
        let growth = change(self.resident_start, self.resident_end);
        growth == self.growth && self.sum().checked_add(self.unexplained) == Some(growth)
    }

    /// The bytes of a part; 0 if it is not there.
    pub fn part(&self, name: PartName) -> i64 {
        let mut parts = self.parts.iter();
        parts
            .find(|part| part.name == name)
            .map_or(0, |part| part.bytes)
    }

    fn sum(&self) -> i64 {
        self.parts
            .iter()
            .fold(0, |sum, part| sum.saturating_add(part.bytes))
    }
}

/// By how much a number of bytes changed.
pub fn change(from: u64, to: u64) -> i64 {
    let of = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    of(to) - of(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_the_rest_add_up() {
        let mut balance = Balance {
            resident_start: 1000,
            resident_end: 700,
            growth: change(1000, 700),
            ..Balance::default()
        };
        let part = |name, bytes| Part { name, bytes };
        balance.explain([
            part(PartName::Stacks, 0),
            part(PartName::Unmapped, -400),
            part(PartName::LiveBlocks, 90),
        ]);
        assert_eq!((balance.unexplained, balance.parts.len()), (10, 2));
        assert_eq!(balance.part(PartName::Unmapped), -400);
        assert!(balance.adds_up());
        balance.parts[0].bytes += 1;
        assert!(!balance.adds_up());
    }

    #[test]
    fn a_part_gives_what_it_has() {
        let mut balance = Balance {
            growth: 100,
            resident_end: 100,
            ..Balance::default()
        };
        let part = |name, bytes| Part { name, bytes };
        balance.explain([part(PartName::Mappings, 70), part(PartName::Stacks, 20)]);
        let (from, to) = (PartName::Mappings, PartName::Pools);
        balance.hand_over(from, to, 30);
        assert_eq!((balance.part(from), balance.part(to)), (40, 30));
        balance.hand_over(from, to, 50);
        assert_eq!((balance.part(from), balance.part(to)), (0, 70));
        assert_eq!(
            (balance.part(PartName::Stacks), balance.unexplained),
            (20, 10)
        );
        assert!(balance.adds_up());
    }

    #[test]
    fn every_part_has_its_place() {
        let mut sorted = PartName::ALL;
        sorted.sort();
        assert_eq!(sorted, PartName::ALL);
    }
}
