//! Lost events, by cause.

/// Why an event was lost. Each is one counter of [`LossCount`] in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum LossCause {
    /// The map of live blocks is full: the block was counted as allocated,
    /// but is not followed. Live numbers are lower bounds.
    LiveFull,
    /// The map of sites is full: allocations from new call paths were not
    /// counted at all.
    SitesFull,
    /// The map of threads is full: allocations of further threads were not
    /// counted at all.
    ThreadsFull,
    /// The map of processes is full: a child was not followed.
    ProcessesFull,
    /// A call was left without a return (`longjmp` out of it, or the kernel
    /// missed the return): its allocation was not counted.
    MissedReturn,
    /// The pointer that `posix_memalign` wrote, or an argument in the target's
    /// memory, could not be read: the call was not counted.
    ResultUnreadable,
    /// An address was allocated again while it was still live: its free was
    /// missed. The old block was counted as freed at that moment.
    MissedFree,
    /// The kernel refused to update a map for another reason than its size:
    /// contention, or no memory. The block was counted as allocated but is not
    /// followed, or the call, the thread or the child is in no number.
    MapBusy,
    /// The event ring was full: a mapping or a lifecycle event was lost.
    RingFull,
    /// A `vfork` child ran into probes that the kernel keeps from it.
    UnseenChild,
    /// The ring of what USDT probes tell was full: a hit was not told.
    ProbeRingFull,
    /// The ring of what JVMs tell of compiled code was full.
    CodeRingFull,
    /// A chain of objects that was given back to a pool at once is longer than is
    /// looked at, or could not be read: the rest of it counts as live.
    ChainCut,
    /// A sampler in a process told of an allocation that cannot be as it said, or whose
    /// arguments could not be read: it is in no number.
    SampleUnusable,
    /// The ring of deaths was full: blocks that died count as live.
    DeathRingFull,
    /// An allocation of a process of whose code user space had not said yet what
    /// `--module` and `--only` mean there: it is in no number.
    OriginUnknown,
}

/// How many causes there are.
pub const LOSS_CAUSES: usize = 16;

impl LossCause {
    /// All causes, in the order of their counters.
    pub const ALL: [Self; LOSS_CAUSES] = [
        Self::LiveFull,
        Self::SitesFull,
        Self::ThreadsFull,
        Self::ProcessesFull,
        Self::MissedReturn,
        Self::ResultUnreadable,
        Self::MissedFree,
        Self::MapBusy,
        Self::RingFull,
        Self::UnseenChild,
        Self::ProbeRingFull,
        Self::CodeRingFull,
        Self::ChainCut,
        Self::SampleUnusable,
        Self::DeathRingFull,
        Self::OriginUnknown,
    ];

    /// The stable name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LiveFull => "live_full",
            Self::SitesFull => "sites_full",
            Self::ThreadsFull => "threads_full",
            Self::ProcessesFull => "processes_full",
            Self::MissedReturn => "missed_return",
            Self::ResultUnreadable => "result_unreadable",
            Self::MissedFree => "missed_free",
            Self::MapBusy => "map_busy",
            Self::RingFull => "ring_full",
            Self::UnseenChild => "unseen_child",
            Self::ProbeRingFull => "probe_ring_full",
            Self::CodeRingFull => "code_ring_full",
            Self::ChainCut => "chain_cut",
            Self::SampleUnusable => "sample_unusable",
            Self::DeathRingFull => "death_ring_full",
            Self::OriginUnknown => "origin_unknown",
        }
    }

    /// What it means for the numbers, and the remedy.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::LiveFull => {
                "blocks allocated while the map of live blocks was full: live numbers are lower bounds; raise --max-live, or trace less with --min-size"
            }
            Self::SitesFull => {
                "allocations from new call paths while the map of sites was full: they are in no number; raise --max-sites"
            }
            Self::ThreadsFull => {
                "calls in threads beyond the 32,768 (on kernels before 6.1 4,096) that are traced at once: they are in no number"
            }
            Self::ProcessesFull => {
                "children beyond the 16,384 (on kernels before 6.1 4,096) processes that are traced at once: they were not followed"
            }
            Self::MissedReturn => {
                "calls whose return was never seen (left by longjmp, or missed by the kernel), with those that seemed a part of them: their allocations are in no number"
            }
            Self::ResultUnreadable => {
                "posix_memalign results, or arguments, that could not be read in the memory of the process: these calls are in no number"
            }
            Self::MissedFree => {
                "addresses allocated again while still live: their free was missed, they were counted as freed when seen again"
            }
            Self::MapBusy => {
                "updates that the kernel refused, under contention or for want of memory: blocks are counted as allocated but not followed, or calls, threads and children are in no number; live numbers are lower bounds"
            }
            Self::RingFull => {
                "mapping or lifecycle events lost in a full ring: numbers of mappings are estimates"
            }
            Self::UnseenChild => {
                "vfork children that called the allocator on their parent's heap, where the kernel hides it: these calls are in no number; --follow shows them"
            }
            Self::ProbeRingFull => {
                "events of a JVM's own probes lost in a full ring: collections, classes and threads in the report are lower bounds; blocks are not concerned"
            }
            Self::CodeRingFull => {
                "events of a JVM's compiled code lost, in a full ring or in memory that was swapped out: Java frames whose code was thrown away at once may have no name; numbers are not concerned"
            }
            Self::ChainCut => {
                "chains of more than 16,384 objects that were given back to a pool at once, or could not be read: the objects behind that count as live"
            }
            Self::SampleUnusable => {
                "samples that a process's own sampler told of with arguments that cannot be, such as a weight that is 512 MiB or more from the block's size, or that could not be read: they are in no number"
            }
            Self::DeathRingFull => {
                "frees of older blocks lost in a full ring: estimates of what is live are too high by what these stand for"
            }
            Self::OriginUnknown => {
                "calls of allocators right after a program was started, before it was known which of its code --module and --only mean: those of them that were meant are in no number; `unfreed run` has the program wait"
            }
        }
    }
}

/// The counter of one cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LossCount {
    /// Events lost.
    pub events: u64,
    /// Bytes that those events asked for, as far as known.
    pub bytes: u64,
}

// SAFETY: repr(C), two u64, no padding.
unsafe impl crate::Record for LossCount {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_stands_at_its_own_counter() {
        for (index, cause) in LossCause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
    }
}
