//! Room for windows: the oldest go, and what they took of the disk.

use std::fs;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Result;
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};

use super::{FINDINGS, HEAPS, LOOKS, ORDER, PROFILES, SUMMARIES, Store};

/// A file of windows takes up to so many times what is kept, since the database gives a profile
/// two to the power of something in pages; and so many bytes more, which are used again.
const TIMES: u64 = 3;
const SPARE: u64 = 64 << 20;

impl Store {
    /// Keeps no more than so many bytes, and nothing that is older than `age`; and makes the
    /// file smaller if it is much larger than that takes, as after a retention was lowered.
    /// That moves what is kept, and takes its time: nobody should have to wait for it.
    /// Returns the sizes of the file before and after, if they differ.
    ///
    /// # Errors
    /// Says what failed. What is kept is there still.
    pub fn fit(&self, size: u64, age: Duration) -> Result<Option<(u64, u64)>> {
        let oldest = oldest(self.began(), age);
        self.change(|transaction| make_room(transaction, size, oldest))?;
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(open) = database.as_mut() else {
            return Ok(None);
        };
        let table = open.begin_read()?.open_table(ORDER)?;
        let kept = bytes(&table)?;
        drop(table);
        let before = fs::metadata(&self.path)?.len();
        if before <= TIMES * kept + SPARE {
            return Ok(None);
        }
        if let Err(error) = open.compact() {
            *database = None;
            return Err(error.into());
        }
        Ok(Some((before, fs::metadata(&self.path)?.len())))
    }
}

/// What ended before this is older than `age`, milliseconds since 1970.
pub(super) fn oldest(now: u64, age: Duration) -> u64 {
    now.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// Bytes of all windows that are kept.
fn bytes(order: &impl ReadableTable<(u64, &'static str), u64>) -> Result<u64> {
    let mut kept: u64 = 0;
    for entry in order.iter()? {
        kept += entry?.1.value();
    }
    Ok(kept)
}

/// Takes out the oldest windows while there is more than `size` or one ended before `oldest`.
pub(super) fn make_room(transaction: &WriteTransaction, size: u64, oldest: u64) -> Result<()> {
    let mut order = transaction.open_table(ORDER)?;
    let mut kept = bytes(&order)?;
    loop {
        let first = order.first()?;
        let first = first.map(|(key, bytes)| {
            let (ended, service) = key.value();
            (ended, service.to_owned(), bytes.value())
        });
        let Some((ended, service, bytes)) = first else {
            return Ok(());
        };
        if kept <= size && ended >= oldest {
            return Ok(());
        }
        kept = kept.saturating_sub(bytes);
        order.remove((ended, service.as_str()))?;
        let key = (service.as_str(), ended);
        transaction.open_table(SUMMARIES)?.remove(key)?;
        transaction.open_table(PROFILES)?.remove(key)?;
        transaction.open_table(FINDINGS)?.remove(key)?;
        transaction.open_table(LOOKS)?.remove(key)?;
        transaction.open_table(HEAPS)?.remove(key)?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::window;
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn a_file_that_is_much_too_large_gets_smaller_before_anybody_reads() {
        const WINDOWS: u64 = 60;
        const WINDOW: usize = 1_500_000;
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        let window = [window("a", WINDOW)];
        for ended in 1..=WINDOWS {
            store.keep(ended, &window, u64::MAX, DAY).unwrap();
        }
        // What is kept takes no more than it may.
        assert_eq!(store.fit(u64::MAX, DAY).unwrap(), None);
        let kept = 3 * WINDOW as u64 + 100_000;
        let (before, after) = store.fit(kept, DAY).unwrap().unwrap();
        assert!(before > WINDOWS * WINDOW as u64, "{before}");
        assert!(after <= TIMES * kept + SPARE / 4, "{after}");
        assert_eq!(store.fit(kept, DAY).unwrap(), None);
        drop(store);
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        let left: Vec<_> = (1..=WINDOWS)
            .filter(|ended| store.summary("a", *ended).unwrap().is_some())
            .collect();
        assert_eq!(left, [58, 59, 60]);
        assert_eq!(store.summary("a", 59).unwrap().unwrap(), window[0].summary);
    }
}
