//! Garbage collections, and how many of them a block has survived.

use std::collections::{BTreeMap, VecDeque};

/// Collections that are remembered; of older ones only the number is kept.
const MAX_REMEMBERED: usize = 4096;

/// Collectors of one virtual machine; it has two or three.
const MAX_COLLECTORS: usize = 16;

/// A collection that ended. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collection {
    /// When it began; 0 if that was before the run.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// Whether it was a pause in which the whole heap was collected.
    pub full: bool,
}

/// A collector, as its management bean names it.
#[derive(Debug, Clone, Default)]
struct Collector {
    /// Each collection is told once for each pool: the pool that counts.
    pool: String,
    began: Option<u64>,
    count: u64,
}

/// All collections.
#[derive(Debug, Default)]
pub struct Collections {
    collectors: BTreeMap<String, Collector>,
    /// By their ends.
    recent: VecDeque<Collection>,
    /// Those that are not in `recent` any more.
    forgotten: u32,
    full: u64,
    pauses: u64,
    full_pauses: u64,
    /// Whether there is a pause, and if so for the whole heap.
    pause: Option<bool>,
}

impl Collections {
    /// A pause begins.
    pub fn pause_begins(&mut self, full: bool) {
        self.pauses += 1;
        self.full_pauses += u64::from(full);
        self.pause = Some(full);
    }

    /// A pause ends.
    pub fn pause_ends(&mut self) {
        self.pause = None;
    }

    /// A collection begins, as told for one pool.
    pub fn begins(&mut self, collector: &str, time: u64) {
        if let Some(collector) = self.collector(collector) {
            collector.began.get_or_insert(time);
        }
    }

    /// A collection ended, as told for one pool.
    pub fn ended(&mut self, collector: &str, pool: &str, time: u64) {
        // A full pause may begin with a collection of the young generation.
        let full = self.pause == Some(true) && !is_young(collector);
        let Some(collector) = self.collector(collector) else {
            return;
        };
        if collector.pool.is_empty() {
            pool.clone_into(&mut collector.pool);
        }
        if collector.pool != pool {
            return;
        }
        collector.count += 1;
        let began = collector.began.take().unwrap_or(0);
        self.full += u64::from(full);
        if self.recent.len() >= MAX_REMEMBERED {
            self.recent.pop_front();
            self.forgotten = self.forgotten.saturating_add(1);
        }
        self.recent.push_back(Collection {
            began,
            ended: time,
            full,
        });
    }

    /// How many collections a block survived that was allocated at a time:
    /// those that began after it and ended.
    pub fn survived(&self, time: u64) -> u32 {
        let after = self.recent.iter().filter(|one| one.began > time).count();
        let after = u32::try_from(after).unwrap_or(u32::MAX);
        let before_all = self.recent.front().is_some_and(|first| time < first.began);
        if before_all {
            after.saturating_add(self.forgotten)
        } else {
            after
        }
    }

    /// Blocks that survived `count` collections by `end` were allocated no
    /// later than this; 0 if none can have.
    pub fn born_by(&self, count: u32, end: u64) -> u64 {
        let mut began: Vec<u64> = self
            .recent
            .iter()
            .filter(|collection| collection.ended <= end)
            .map(|collection| collection.began)
            .collect();
        began.sort_unstable_by_key(|time| std::cmp::Reverse(*time));
        let last = usize::try_from(count).unwrap_or(usize::MAX);
        match last.checked_sub(1) {
            None => end,
            Some(index) => began.get(index).map_or(0, |time| time.saturating_sub(1)),
        }
    }

    /// Each collector, and how many collections it ended.
    pub fn collectors(&self) -> impl Iterator<Item = (&str, u64)> {
        let counted = self.collectors.iter();
        counted.map(|(name, collector)| (name.as_str(), collector.count))
    }

    /// The collections that are remembered, by their ends.
    pub fn recent(&self) -> impl Iterator<Item = &Collection> {
        self.recent.iter()
    }

    /// How many of all collections were of the whole heap, in one pause.
    pub fn full(&self) -> u64 {
        self.full
    }

    /// Pauses, and those for the whole heap among them.
    pub fn pauses(&self) -> (u64, u64) {
        (self.pauses, self.full_pauses)
    }

    fn collector(&mut self, name: &str) -> Option<&mut Collector> {
        if !self.collectors.contains_key(name) {
            if self.collectors.len() >= MAX_COLLECTORS {
                return None;
            }
            self.collectors
                .insert(name.to_owned(), Collector::default());
        }
        self.collectors.get_mut(name)
    }
}

/// Whether a collector looks at new objects only, by the names that HotSpot's
/// management beans have.
fn is_young(collector: &str) -> bool {
    const NAMES: [&str; 4] = ["Copy", "ParNew", "PS Scavenge", "G1 Young Generation"];
    NAMES.contains(&collector) || collector.contains("Minor")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Collections from 10 to 12, from 20 to 22, and so on, of two pools.
    fn collections(count: u64) -> Collections {
        let mut all = Collections::default();
        for time in (1..=count).map(|number| number * 10) {
            all.pause_begins(time == 20);
            for _ in ["Old", "Eden"] {
                all.begins("Whole", time);
            }
            for pool in ["Old", "Eden"] {
                all.ended("Whole", pool, time + 2);
            }
            all.pause_ends();
        }
        all
    }

    #[test]
    fn each_collection_counts_once() {
        let all = collections(3);
        assert_eq!(all.collectors().collect::<Vec<_>>(), [("Whole", 3)]);
        assert_eq!((all.full(), all.pauses()), (1, (3, 1)));
        let first = Collection {
            began: 10,
            ended: 12,
            full: false,
        };
        assert_eq!(all.recent().next(), Some(&first));
    }

    #[test]
    fn a_block_survives_what_begins_after_it() {
        let all = collections(3);
        for (time, survived) in [(0, 3), (9, 3), (10, 2), (11, 2), (19, 2), (20, 1), (30, 0)] {
            assert_eq!(all.survived(time), survived, "{time}");
            // Both questions have the same answer.
            for count in 0..5 {
                let by = all.born_by(count, 100);
                assert_eq!(time <= by && by > 0, count <= survived, "{time} {count}");
            }
        }
        // One that had not ended at that time does not count.
        assert_eq!(all.born_by(1, 31), 19);
        assert_eq!(Collections::default().born_by(1, 100), 0);
    }

    #[test]
    fn a_collection_that_began_before_the_run_is_survived_by_none() {
        let mut all = Collections::default();
        all.ended("Whole", "Old", 5);
        assert_eq!((all.survived(1), all.born_by(1, 100)), (0, 0));
    }

    #[test]
    fn a_young_collection_in_a_full_pause_is_not_full() {
        let mut all = Collections::default();
        all.pause_begins(true);
        all.ended("PS Scavenge", "PS Old Gen", 5);
        all.ended("PS MarkSweep", "PS Old Gen", 6);
        assert_eq!((all.full(), all.recent().count()), (1, 2));
    }

    #[test]
    fn memory_is_bounded() {
        let most = u64::try_from(MAX_REMEMBERED).unwrap();
        let all = collections(most + 7);
        assert_eq!(all.recent().count(), MAX_REMEMBERED);
        assert_eq!(u64::from(all.survived(1)), most + 7);
        let mut many = Collections::default();
        for name in 0..1000 {
            many.ended(&name.to_string(), "Old", 1);
        }
        assert_eq!(many.collectors().count(), MAX_COLLECTORS);
    }
}
