//! What single processes hold of a call path that several have.

use std::collections::BTreeMap;

use tracer_ebpf::sample::Sampling;

use super::estimate::Estimate;
use crate::model::MAX_SHARES;

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
}

/// Live blocks of an image by site.
pub type Ages = BTreeMap<u32, LiveSums>;

impl LiveSums {
    /// Adds a block.
    pub fn add(&mut self, bytes: u64, time: u64) {
        self.oldest = if self.count == 0 {
            time
        } else {
            self.oldest.min(time)
        };
        self.count += 1;
        self.bytes += bytes;
    }

    /// Adds a block that was sampled.
    pub fn add_sampled(&mut self, bytes: u64, time: u64, sampling: &Sampling) {
        self.add(bytes, time);
        self.estimate.add(&Estimate::of_block(bytes, sampling));
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

    /// The live blocks of a process at `end`.
    pub fn of(pid: u32, ended: bool, sums: LiveSums, end: u64) -> Self {
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
    /// The largest of them, largest first.
    pub largest: Vec<Share>,
}

impl Shares {
    /// Adds a process that is in no other share.
    pub fn add(&mut self, share: Share) {
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
        for share in &other.largest {
            self.insert(*share);
        }
    }

    fn insert(&mut self, share: Share) {
        let same = |known: &Share| known.pid == share.pid && known.ended == share.ended;
        if let Some(at) = self.largest.iter().position(same)
            && !share.ended
        {
            // A running process has the path twice.
            let known = self.largest.remove(at);
            self.processes -= 1;
            let mut estimate = known.estimate;
            estimate.add(&share.estimate);
            return self.place(Share {
                estimate,
                count: known.count + share.count,
                bytes: known.bytes + share.bytes,
                age: known.age.max(share.age),
                ..share
            });
        }
        self.place(share);
    }

    fn place(&mut self, share: Share) {
        let at = self
            .largest
            .partition_point(|known| known.held() >= share.held());
        if at < MAX_SHARES {
            self.largest.insert(at, share);
            self.largest.truncate(MAX_SHARES);
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
    fn the_largest_are_kept_and_all_are_counted() {
        let mut shares = Shares::default();
        for pid in 0..100 {
            shares.add(share(pid, u64::from(pid)));
        }
        shares.add(Share {
            count: 0,
            ..share(7, 1)
        });
        assert_eq!(
            (shares.processes, shares.count, shares.bytes),
            (100, 100, 4950)
        );
        assert_eq!(
            shares.ended_bytes,
            (0..50).map(|half| half * 2).sum::<u64>()
        );
        assert_eq!(shares.age, 99);
        let pids: Vec<_> = shares.largest.iter().map(|share| share.pid).collect();
        assert_eq!(pids, (36..100).rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_running_process_is_one_however_often_it_comes() {
        let mut shares = Shares::default();
        shares.add(share(3, 10));
        let mut others = Shares::default();
        others.add(share(3, 5));
        others.add(share(5, 1));
        shares.merge(&others);
        assert_eq!((shares.processes, shares.bytes), (2, 16));
        assert_eq!(shares.largest[0].bytes, 15);
    }
}
