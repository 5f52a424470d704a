//! When the tracer ran, and when nobody watched.

use std::sync::atomic::Ordering;

use anyhow::Result;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{RUNS, Store};

/// Runs of which is remembered when they were, at most.
const MAX_RUNS: usize = 1000;

/// How long the tracer ran, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// The end of its last window.
    pub last: u64,
    /// Whether it ended as it should.
    pub stopped: bool,
}

/// A time in which nobody watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// The end of the last window before, milliseconds since 1970.
    pub from: u64,
    /// When the tracer began again, milliseconds since 1970.
    pub to: u64,
    /// Whether the tracer ended without a word: then what it saw after `from` is lost, too.
    pub lost: bool,
}

impl Store {
    /// The run ends as it should.
    ///
    /// # Errors
    /// Says what failed.
    pub fn stop(&self, now: u64) -> Result<()> {
        let run = Run {
            last: now,
            stopped: true,
        };
        self.change(|transaction| note_run(transaction, self.began(), run))
    }

    /// The run ends as it should, and another one begins at once. Returns when that is,
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// Says what failed: then the run goes on.
    pub fn begin_anew(&self, now: u64) -> Result<u64> {
        let ends = Run {
            last: now,
            stopped: true,
        };
        let began = self.change(|transaction| {
            note_run(transaction, self.began(), ends)?;
            let (_, began) = enter_run(transaction, now)?;
            Ok(began)
        })?;
        self.began.store(began, Ordering::Release);
        Ok(began)
    }

    /// The times in which nobody watched, oldest first.
    ///
    /// # Errors
    /// Says what failed.
    pub fn gaps(&self) -> Result<Vec<Gap>> {
        self.look(|database| {
            let table = database.begin_read()?.open_table(RUNS)?;
            let mut gaps = Vec::new();
            let mut before: Option<Run> = None;
            for entry in table.iter()? {
                let (began, run) = entry?;
                gaps.extend(before.map(|before| gap(before, began.value())));
                before = Some(serde_json::from_slice(run.value())?);
            }
            Ok(gaps)
        })
    }
}

fn gap(before: Run, began: u64) -> Gap {
    Gap {
        from: before.last,
        to: began,
        lost: !before.stopped,
    }
}

/// Enters a run of a store that was opened.
pub(super) fn begin_run(database: &Database, now: u64) -> Result<(Option<Gap>, u64)> {
    let transaction = database.begin_write()?;
    let entered = enter_run(&transaction, now)?;
    transaction.commit()?;
    Ok(entered)
}

/// Enters a run. It begins after all that is kept, whatever the clock says: windows are found,
/// and go, in the order in which they were closed.
fn enter_run(transaction: &WriteTransaction, now: u64) -> Result<(Option<Gap>, u64)> {
    let before = {
        let table = transaction.open_table(RUNS)?;
        let last = table.last()?;
        last.map(|(began, run)| {
            let run: Run = serde_json::from_slice(run.value())?;
            Ok::<_, anyhow::Error>((began.value(), run))
        })
        .transpose()?
    };
    let began = before.map_or(now, |(began, run)| now.max(began.max(run.last) + 1));
    let run = Run {
        last: began,
        stopped: false,
    };
    note_run(transaction, began, run)?;
    Ok((before.map(|(_, run)| gap(run, began)), began))
}

/// Enters until when a run goes on.
pub(super) fn note_run(transaction: &WriteTransaction, began: u64, mut run: Run) -> Result<()> {
    let mut table = transaction.open_table(RUNS)?;
    // The clock may have been set back since its last window.
    if let Some(before) = table.get(began)? {
        let before: Run = serde_json::from_slice(before.value())?;
        run.last = run.last.max(before.last);
    }
    table.insert(began, serde_json::to_vec(&run)?.as_slice())?;
    while table.iter()?.count() > MAX_RUNS {
        table.pop_first()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Kind;
    use super::super::tests::window;
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    /// A clock that was ahead and is put right, as at the boot of a machine without one: what
    /// is kept then is neither hidden nor thrown away by what was kept under later times.
    #[test]
    fn a_clock_that_is_set_back_changes_no_order() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), 1_000_000).unwrap();
        store
            .keep(1_060_000, &[window("a", 1000)], 4500, DAY)
            .unwrap();
        drop(store);
        let (store, gap) = Store::open(folder.path(), 5000).unwrap();
        assert_eq!(gap.map(|gap| gap.to), Some(1_060_001));
        assert_eq!(store.began(), 1_060_001);
        for minute in 1..=4 {
            let ended = store.began() + minute * 60_000;
            store.keep(ended, &[window("a", 1000)], 4500, DAY).unwrap();
        }
        // The oldest went, and the profile of a window counts since its own run.
        let kept = store.windows(Kind::Growth, "a", 0..=u64::MAX).unwrap();
        let expected = [1, 2, 3, 4].map(|minute| store.began() + minute * 60_000);
        assert_eq!(kept, expected);
        let since = store.counts_since(Kind::Growth, "a", kept[0]).unwrap();
        assert_eq!(since, store.began());
        // A run that ends has no time before its last window.
        store.stop(9000).unwrap();
        drop(store);
        let (_, gap) = Store::open(folder.path(), 9001).unwrap();
        assert_eq!(gap.map(|gap| gap.from), kept.last().copied());
    }
}
