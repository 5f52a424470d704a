//! What waits for destinations, in the file of the windows: for each destination a queue,
//! in order of numbers, and not of times, which a clock may set back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use anyhow::Result;
use redb::{
    ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use super::Store;

/// What waits for a destination, by a number that goes up: JSON.
pub(super) const OUTBOX: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("outbox");
/// What a destination was told of a finding last, by the finding: JSON.
pub(super) const TOLD: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("told");
/// Findings that are remembered to have been told, of all destinations together.
const MOST_TOLD: u64 = 20_000;

/// One thing that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// A window of a service, by its end, milliseconds since 1970.
    Window {
        /// The service.
        service: String,
        /// When it ended.
        ended: u64,
    },
    /// An alert, as it is sent.
    Alert {
        /// JSON.
        body: String,
    },
}

/// The queue of a destination.
#[derive(Debug)]
pub struct Queue {
    /// The destination.
    pub name: String,
    /// Entries at most.
    pub most: u64,
    /// Whether windows go there as they are kept.
    pub wants_windows: bool,
    /// What became of its entries since the tracer began.
    pub counts: Arc<Counts>,
}

/// What became of entries of a queue.
#[derive(Debug, Default)]
pub struct Counts {
    /// Those that arrived.
    pub sent: AtomicU64,
    /// Attempts that failed; the entry waits for the next.
    pub failed: AtomicU64,
    /// Entries that went since there were too many. One that was under way may have arrived.
    pub full: AtomicU64,
    /// Entries whose window was not kept any more.
    pub expired: AtomicU64,
    /// Entries that the destination will not have.
    pub refused: AtomicU64,
}

/// What a destination was told of a finding last.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// When, milliseconds since 1970.
    pub at: u64,
    /// The forecast that it was told, seconds, if it was near.
    pub near: Option<f64>,
}

impl Queue {
    /// A queue; the counts of that of the same destination go on, if it is among those before.
    pub fn after(before: &[Arc<Self>], name: String, most: u64, wants_windows: bool) -> Arc<Self> {
        let same = before.iter().find(|queue| queue.name == name);
        let counts = same.map_or_else(Arc::default, |queue| Arc::clone(&queue.counts));
        Arc::new(Self {
            name,
            most,
            wants_windows,
            counts,
        })
    }
}

/// Adds to a counter.
pub fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Store {
    /// From now on these queues are filled. What waits for destinations that are no more goes.
    ///
    /// # Errors
    /// Says what failed.
    pub fn set_queues(&self, queues: Vec<Arc<Queue>>) -> Result<()> {
        // Nothing is entered meanwhile for one that is no more.
        let mut filled = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        let is_known = |name: &str| queues.iter().any(|queue| queue.name == name);
        self.change(|transaction| {
            let mut table = transaction.open_table(OUTBOX)?;
            table.retain(|(name, _), _| is_known(name))?;
            let mut told = transaction.open_table(TOLD)?;
            Ok(told.retain(|(name, _), _| is_known(name))?)
        })?;
        *filled = queues.into();
        Ok(())
    }

    /// The queues.
    pub fn queues(&self) -> Arc<[Arc<Queue>]> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&queues)
    }

    /// The oldest entry of a queue, and its number.
    ///
    /// # Errors
    /// Says what failed.
    pub fn next_job(&self, queue: &Queue) -> Result<Option<(u64, Job)>> {
        self.look(|database| {
            let table = database.begin_read()?.open_table(OUTBOX)?;
            let mut range = table.range((queue.name.as_str(), 0)..=(&queue.name, u64::MAX))?;
            let first = range.next().transpose()?;
            first
                .map(|(key, job)| Ok((key.value().1, serde_json::from_slice(job.value())?)))
                .transpose()
        })
    }

    /// An entry waits no more.
    ///
    /// # Errors
    /// Says what failed.
    pub fn job_done(&self, queue: &Queue, number: u64) -> Result<()> {
        self.change(|transaction| {
            let mut table = transaction.open_table(OUTBOX)?;
            table.remove((queue.name.as_str(), number))?;
            Ok(())
        })
    }

    /// How many entries wait.
    ///
    /// # Errors
    /// Says what failed.
    pub fn waiting(&self, queue: &Queue) -> Result<u64> {
        self.look(|database| {
            let table = database.begin_read()?.open_table(OUTBOX)?;
            let ends = ends(&table, &queue.name)?;
            Ok(ends.map_or(0, |(first, last)| last - first + 1))
        })
    }

    /// What a destination was told of a finding last.
    ///
    /// # Errors
    /// Says what failed.
    pub fn told(&self, queue: &Queue, finding: &str) -> Result<Option<Told>> {
        self.look(|database| {
            let table = database.begin_read()?.open_table(TOLD)?;
            let told = table.get((queue.name.as_str(), finding))?;
            let told = told.map(|told| serde_json::from_slice(told.value()));
            Ok(told.transpose()?)
        })
    }

    /// Enters an alert, and what is told by it, at once.
    ///
    /// # Errors
    /// Says what failed.
    pub fn tell(&self, queue: &Queue, finding: &str, told: Told, body: String) -> Result<()> {
        let gone = self.change(|transaction| {
            let value = serde_json::to_vec(&told)?;
            let mut table = transaction.open_table(TOLD)?;
            table.insert((queue.name.as_str(), finding), value.as_slice())?;
            forget_told(&mut table)?;
            enqueue(transaction, queue, &Job::Alert { body })
        })?;
        count(&queue.counts.full, gone);
        Ok(())
    }
}

/// The oldest of too many goes: should its finding be there still, it is told again.
fn forget_told(table: &mut redb::Table<'_, (&str, &str), &[u8]>) -> Result<()> {
    if table.len()? <= MOST_TOLD {
        return Ok(());
    }
    let mut oldest: Option<(u64, String, String)> = None;
    for entry in table.iter()? {
        let (key, told) = entry?;
        let told: Told = serde_json::from_slice(told.value())?;
        if oldest.as_ref().is_none_or(|(at, ..)| told.at < *at) {
            let (name, finding) = key.value();
            oldest = Some((told.at, name.to_owned(), finding.to_owned()));
        }
    }
    if let Some((_, name, finding)) = oldest {
        table.remove((name.as_str(), finding.as_str()))?;
    }
    Ok(())
}

/// How many entries of each queue went since there were too many, until it is known that
/// the change is kept.
#[derive(Debug, Default)]
pub(super) struct Gone(Vec<u64>);

impl Gone {
    /// Enters a window into the queues that want it.
    pub(super) fn enqueue(
        &mut self,
        transaction: &WriteTransaction,
        queues: &[Arc<Queue>],
        service: &str,
        ended: u64,
    ) -> Result<()> {
        self.0.resize(queues.len(), 0);
        for (gone, queue) in self.0.iter_mut().zip(queues) {
            if queue.wants_windows {
                let service = service.to_owned();
                *gone += enqueue(transaction, queue, &Job::Window { service, ended })?;
            }
        }
        Ok(())
    }

    /// The change is kept.
    pub(super) fn count(&self, queues: &[Arc<Queue>]) {
        for (gone, queue) in self.0.iter().zip(queues) {
            count(&queue.counts.full, *gone);
        }
    }
}

/// Enters what waits at the end, and takes out the oldest if there are too many: how many.
fn enqueue(transaction: &WriteTransaction, queue: &Queue, job: &Job) -> Result<u64> {
    let mut table = transaction.open_table(OUTBOX)?;
    let name = queue.name.as_str();
    let (first, next) = match ends(&table, name)? {
        Some((first, last)) => (first, last + 1),
        None => (0, 0),
    };
    table.insert((name, next), serde_json::to_vec(job)?.as_slice())?;
    let kept = (next + 1).saturating_sub(queue.most).max(first);
    for old in first..kept {
        table.remove((name, old))?;
    }
    Ok(kept - first)
}

/// The first and the last number of a queue. They go in their order, so there are no gaps.
fn ends(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    name: &str,
) -> Result<Option<(u64, u64)>> {
    let mut range = table.range((name, 0)..=(name, u64::MAX))?;
    let first = range.next().transpose()?.map(|(key, _)| key.value().1);
    let last = range.next_back().transpose()?.map(|(key, _)| key.value().1);
    Ok(first.map(|first| (first, last.unwrap_or(first))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Kept;
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn window(service: &str) -> Kept {
        Kept {
            service: service.to_owned(),
            summary: b"{}".to_vec(),
            profile: Vec::new(),
            findings: b"[]".to_vec(),
        }
    }

    fn number(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    fn ends(store: &Store, queue: &Queue) -> Vec<u64> {
        let mut all = Vec::new();
        while let Some((number, job)) = store.next_job(queue).unwrap() {
            if let Job::Window { ended, .. } = job {
                all.push(ended);
            }
            store.job_done(queue, number).unwrap();
        }
        all
    }

    #[test]
    fn what_waits_outlives_a_kill_and_goes_in_its_order_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let queues = || vec![Queue::after(&[], "a".to_owned(), 10, true)];
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        store.set_queues(queues()).unwrap();
        for ended in [5000, 6000] {
            store.keep(ended, &[window("s")], 1 << 20, DAY).unwrap();
        }
        drop(store);
        let (store, _) = Store::open(folder.path(), 100).unwrap();
        let queues = queues();
        store.set_queues(queues.clone()).unwrap();
        assert_eq!(store.waiting(&queues[0]).unwrap(), 2);
        // The clock was set back.
        store.keep(200, &[window("s")], 1 << 20, DAY).unwrap();
        assert_eq!(ends(&store, &queues[0]), [5000, 6000, 200]);
        assert_eq!(store.waiting(&queues[0]).unwrap(), 0);
    }

    #[test]
    fn a_queue_is_bounded_and_what_goes_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        let small = Queue::after(&[], "small".to_owned(), 3, true);
        let other = Queue::after(&[], "other".to_owned(), 100, false);
        let both = vec![Arc::clone(&small), Arc::clone(&other)];
        store.set_queues(both).unwrap();
        for ended in 1..=10 {
            store.keep(ended, &[window("s")], 1 << 20, DAY).unwrap();
        }
        assert_eq!(number(&small.counts.full), 7);
        assert_eq!(store.waiting(&small).unwrap(), 3);
        assert_eq!(ends(&store, &small), [8, 9, 10]);
        assert_eq!(store.next_job(&other).unwrap(), None);
        // A destination that is no more leaves nothing.
        store.keep(11, &[window("s")], 1 << 20, DAY).unwrap();
        store.set_queues(vec![other]).unwrap();
        assert_eq!(store.next_job(&small).unwrap(), None);
    }

    #[test]
    fn a_destination_that_stays_is_counted_on() {
        let small = Queue::after(&[], "small".to_owned(), 3, true);
        count(&small.counts.sent, 5);
        let before = [small];
        let larger = Queue::after(&before, "small".to_owned(), 9, true);
        assert_eq!((larger.most, number(&larger.counts.sent)), (9, 5));
        let other = Queue::after(&before, "other".to_owned(), 9, true);
        assert_eq!(number(&other.counts.sent), 0);
    }

    #[test]
    fn what_was_told_is_remembered_with_the_alert() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        let queue = Queue::after(&[], "alert".to_owned(), 3, false);
        store.set_queues(vec![Arc::clone(&queue)]).unwrap();
        assert_eq!(store.told(&queue, "f").unwrap(), None);
        let told = Told {
            at: 7,
            near: Some(60.0),
        };
        store.tell(&queue, "f", told, "{}".to_owned()).unwrap();
        assert_eq!(store.told(&queue, "f").unwrap(), Some(told));
        let body = "{}".to_owned();
        assert_eq!(
            store.next_job(&queue).unwrap(),
            Some((0, Job::Alert { body }))
        );
    }
}
