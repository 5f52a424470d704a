//! Room for windows: the oldest go, and the file is made shorter.

use std::fs;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use anyhow::Result;
use redb::{ReadableTable, WriteTransaction};

use super::{FINDINGS, HEAPS, LOOKS, ORDER, PROFILES, SUMMARIES, Store};

/// From a file that is smaller no room is given back, bytes.
const LEAST_FILE: u64 = 4 << 20;
/// Takes out the oldest windows while there is more than `size` or one ended before `oldest`.
/// What is left, bytes.
pub(super) fn make_room(transaction: &WriteTransaction, size: u64, oldest: u64) -> Result<u64> {
    let mut order = transaction.open_table(ORDER)?;
    let mut kept: u64 = 0;
    for entry in order.iter()? {
        kept += entry?.1.value();
    }
    loop {
        let first = order.first()?;
        let first = first.map(|(key, bytes)| {
            let (ended, service) = key.value();
            (ended, service.to_owned(), bytes.value())
        });
        let Some((ended, service, bytes)) = first else {
            return Ok(kept);
        };
        if kept <= size && ended >= oldest {
            return Ok(kept);
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

impl Store {
    /// Gives room of the file back where most of it is free: `kept` bytes of it are used.
    pub(super) fn compact(&self, kept: u64) -> Result<()> {
        let length = || fs::metadata(&self.path).map_or(0, |file| file.len());
        let (before, last) = (length(), self.compacted.load(Ordering::Relaxed));
        // What it takes beyond what is kept is not given back a second time.
        if before < LEAST_FILE.max(2 * kept).max(last + last / 2) {
            return Ok(());
        }
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = database.as_mut() {
            database.compact()?;
        }
        self.compacted.store(length(), Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{FILE, Kept, Kind};
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn window(bytes: usize) -> Kept {
        Kept {
            service: "a".to_owned(),
            summary: b"{}".to_vec(),
            profile: std::iter::repeat_with(|| fastrand::u8(..))
                .take(bytes)
                .collect(),
            findings: b"[]".to_vec(),
        }
    }

    #[test]
    fn room_of_the_file_is_given_back_when_most_of_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        let length = || fs::metadata(folder.path().join(FILE)).unwrap().len();
        for ended in 1..=12 {
            let kept = [window(1 << 20)];
            store.keep(ended * 1000, &kept, 1 << 30, DAY).unwrap();
        }
        let full = length();
        assert!(full > 12 << 20, "{full}");
        store.keep(13_000, &[], 2 << 20, DAY).unwrap();
        assert!(length() < full / 2, "{} of {full}", length());
        assert!(store.of_kind(Kind::Growth, "a", 12_000).unwrap().is_some());
    }
}
