//! What single processes hold of a call path that several have.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tracer_ebpf::block::Block;
use tracer_ebpf::sample::Sampling;

use super::ages::LiveAges;
use super::estimate::Estimate;
use crate::model::MAX_ENDED_SHARES;

/// Sums over live blocks of one site.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LiveSums {
    /// Blocks that are old enough.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the oldest was allocated, nanoseconds of `CLOCK_MONOTONIC`.
    pub oldest: u64,
    /// What they stand for, if they were sampled.
    pub estimate: Estimate,
    /// How old they are.
    pub ages: LiveAges,
}

/// Live blocks of an image by site.
pub type Ages = BTreeMap<u32, LiveSums>;

impl LiveSums {
    /// Adds a block that was allocated at `time`, and is looked at at `end`; nanoseconds of
    /// `CLOCK_MONOTONIC`.
    pub fn add(&mut self, bytes: u64, time: u64, end: u64) {
        self.count_block(bytes, time);
        self.ages.add(end.saturating_sub(time), 1.0);
    }

    fn count_block(&mut self, bytes: u64, time: u64) {
        self.oldest = if self.count == 0 {
            time
        } else {
            self.oldest.min(time)
        };
        self.count += 1;
        self.bytes += bytes;
    }

    /// Adds a block that was sampled.
    pub fn add_sampled(&mut self, block: &Block, end: u64, sampling: &Sampling) {
        let estimate = Estimate::of_block(block.size, block.certain != 0, sampling);
        self.add_estimate((block.size, block.time), end, &estimate);
    }

    /// The same of a block for which `estimate` stands.
    pub fn add_estimate(&mut self, (bytes, time): (u64, u64), end: u64, estimate: &Estimate) {
        self.count_block(bytes, time);
        self.ages.add(end.saturating_sub(time), estimate.count);
        self.estimate.add(estimate);
    }
}

/// What one process holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// The process.
    pub pid: u32,
    /// Whether it had ended; then this is what it held at its end.
    pub ended: bool,
    /// Blocks.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Age of the oldest, at the process's end or now, nanoseconds.
    pub age: u64,
    /// What they stand for, if they were sampled.
    pub estimate: Estimate,
}

impl Share {
    /// Bytes of all that it holds.
    fn held(&self) -> u64 {
        self.estimate.or_counted((self.count, self.bytes)).1
    }

    /// Adds what the same process holds by the same path in other words.
    fn join(&mut self, other: &Self) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.age = self.age.max(other.age);
        self.estimate.add(&other.estimate);
    }

    /// The live blocks of a process at `end`.
    fn of(pid: u32, ended: bool, sums: &LiveSums, end: u64) -> Self {
        Self {
            pid,
            ended,
            count: sums.count,
            bytes: sums.bytes,
            age: match sums.count {
                0 => 0,
                _ => end.saturating_sub(sums.oldest),
            },
            estimate: sums.estimate,
        }
    }
}

/// What all processes of a group hold of a call path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shares {
    /// How many processes hold something.
    pub processes: u64,
    /// Blocks of all of them.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The part of these bytes that processes held when they ended.
    pub ended_bytes: u64,
    /// Age of the oldest block, nanoseconds.
    pub age: u64,
    /// What all blocks stand for, if they were sampled.
    pub estimate: Estimate,
    /// What those of processes that ended stand for.
    pub ended_estimate: Estimate,
    /// How old all blocks are, at the end of their process or now.
    pub ages: LiveAges,
    /// Those that run, by process: as many as the kernel's map of live blocks tells of.
    running: BTreeMap<u32, Share>,
    /// Of those that have ended, whose number nothing bounds, the largest; largest first.
    ended: Vec<Share>,
}

impl Shares {
    /// Adds the live blocks of a process at `end`, which are in no other share. Whether it
    /// `ended` then.
    pub fn add(&mut self, pid: u32, ended: bool, sums: &LiveSums, end: u64) {
        self.ages.merge(&sums.ages);
        self.add_share(Share::of(pid, ended, sums, end));
    }

    fn add_share(&mut self, share: Share) {
        if share.count == 0 {
            return;
        }
        self.processes += 1;
        self.count += share.count;
        self.bytes += share.bytes;
        self.ended_bytes += if share.ended { share.bytes } else { 0 };
        self.age = self.age.max(share.age);
        self.estimate.add(&share.estimate);
        if share.ended {
            self.ended_estimate.add(&share.estimate);
        }
        self.insert(share);
    }

    /// Adds those of other processes, or of the same path in other words: then
    /// a process may be counted twice.
    pub fn merge(&mut self, other: &Self) {
        self.processes += other.processes;
        self.count += other.count;
        self.bytes += other.bytes;
        self.ended_bytes += other.ended_bytes;
        self.age = self.age.max(other.age);
        self.estimate.add(&other.estimate);
        self.ended_estimate.add(&other.ended_estimate);
        self.ages.merge(&other.ages);
        for share in other.running.values().chain(&other.ended) {
            self.insert(*share);
        }
    }

    /// Each that runs, and of those that have ended the largest 64; largest first.
    pub fn singly(&self) -> Vec<Share> {
        let mut singly: Vec<_> = self.running.values().chain(&self.ended).copied().collect();
        singly.sort_by_key(|share| std::cmp::Reverse(share.held()));
        singly
    }

    fn insert(&mut self, share: Share) {
        if share.ended {
            return self.insert_ended(share);
        }
        match self.running.entry(share.pid) {
            Entry::Vacant(vacant) => {
                vacant.insert(share);
            }
            // A running process has the path twice.
            Entry::Occupied(mut known) => {
                known.get_mut().join(&share);
                self.processes -= 1;
            }
        }
    }

    fn insert_ended(&mut self, share: Share) {
        let at = self
            .ended
            .partition_point(|known| known.held() >= share.held());
        if at < MAX_ENDED_SHARES {
            self.ended.insert(at, share);
            self.ended.truncate(MAX_ENDED_SHARES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(pid: u32, bytes: u64) -> Share {
        Share {
            pid,
            ended: pid.is_multiple_of(2),
            count: 1,
            bytes,
            age: bytes,
            estimate: Estimate::default(),
        }
    }

    #[test]
    fn each_that_runs_is_kept_and_all_are_counted() {
        let mut shares = Shares::default();
        for pid in 0..1000 {
            shares.add_share(share(pid, u64::from(pid)));
        }
        shares.add_share(Share {
            count: 0,
            ..share(7, 1)
        });
        assert_eq!(
            (shares.processes, shares.count, shares.bytes),
            (1000, 1000, 499_500)
        );
        assert_eq!(
            shares.ended_bytes,
            (0..500).map(|half| half * 2).sum::<u64>()
        );
        assert_eq!(shares.age, 999);
        let singly = shares.singly();
        assert!(singly.is_sorted_by_key(|share| std::cmp::Reverse(share.bytes)));
        let (ended, running): (Vec<Share>, Vec<_>) =
            singly.into_iter().partition(|share| share.ended);
        assert_eq!(running.len(), 500);
        let ended: Vec<_> = ended.iter().map(|share| share.pid).collect();
        assert_eq!(
            ended,
            (436..500).rev().map(|half| half * 2).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_running_process_is_one_however_often_it_comes() {
        let mut shares = Shares::default();
        shares.add_share(share(3, 10));
        let mut others = Shares::default();
        others.add_share(share(3, 5));
        others.add_share(share(5, 1));
        shares.merge(&others);
        assert_eq!((shares.processes, shares.bytes), (2, 16));
        assert_eq!(shares.singly()[0].bytes, 15);
    }
}
