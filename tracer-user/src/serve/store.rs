//! Windows on disk: one file, which a commit changes as a whole or not at all, and whose
//! pages are checksummed. A crash or a full disk loses the open window at most.

mod looks;
pub mod outbox;
mod room;
mod runs;

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use self::outbox::{Gone, OUTBOX, Queue, TOLD};
use self::room::make_room;
use self::runs::{Run, begin_run, note_run};

pub use self::looks::{Base, Kind};
pub use self::runs::Gap;

/// The file in the folder of the state.
const FILE: &str = "windows.redb";
/// The database keeps so much of its file in memory, bytes.
const CACHE: usize = 8 << 20;
/// Nothing that is unpacked is larger.
const MAX_UNPACKED: u64 = 256 << 20;

/// What of a service there was in a window: when that ended, and its numbers as JSON.
const SUMMARIES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("summaries");
/// The profile (pprof, compressed by zstd).
const PROFILES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("profiles");
/// The findings (JSON, compressed by zstd).
const FINDINGS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("findings");
/// Closer looks, and what they had found when a window ended (JSON, compressed by zstd).
const LOOKS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("looks");
/// Their heap profiles (pprof, compressed by zstd).
const HEAPS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("heaps");
/// All windows, oldest first, each with the bytes that it takes.
const ORDER: TableDefinition<'_, (u64, &str), u64> = TableDefinition::new("order");
/// When the tracer ran: when it began, and the rest as JSON.
const RUNS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("runs");

/// How many tables there are, with those of the outbox.
const TABLES: usize = 9;

/// A window of one service, to be kept.
#[derive(Debug)]
pub struct Kept {
    /// The service.
    pub service: String,
    /// Its numbers, JSON.
    pub summary: Vec<u8>,
    /// Its profile: pprof, not compressed.
    pub profile: Vec<u8>,
    /// Its findings, JSON.
    pub findings: Vec<u8>,
}

/// The windows of a state folder.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// None if it could not be opened again after a failure.
    database: RwLock<Option<Database>>,
    /// This run, by its begin.
    began: AtomicU64,
    /// Of destinations that windows go to, or alerts.
    queues: RwLock<Arc<[Arc<Queue>]>>,
}

impl Store {
    /// Opens the store of a folder, which is made if there is none, for a run that begins
    /// `now`, milliseconds since 1970, or right after what is kept if the clock was set back
    /// (see [`Self::began`]). The gap before it is returned, if there was a run.
    ///
    /// # Errors
    /// Says why it cannot be written, or that another tracer has it.
    pub fn open(folder: &Path, now: u64) -> Result<(Self, Option<Gap>)> {
        let path = folder.join(FILE);
        let cannot = || format!("cannot keep windows in {}", path.display());
        fs::create_dir_all(folder).with_context(cannot)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700)).with_context(cannot)?;
        let database = open_file(&path).with_context(cannot)?;
        let (gap, began) = begin_run(&database, now).with_context(cannot)?;
        let store = Self {
            path,
            database: RwLock::new(Some(database)),
            began: AtomicU64::new(began),
            queues: RwLock::default(),
        };
        Ok((store, gap))
    }

    /// Keeps the windows that ended at a time, milliseconds since 1970, all of them or none;
    /// of what was kept before the oldest go, so that no more than so many bytes are left,
    /// and none that is older than `age`.
    ///
    /// # Errors
    /// Says what failed: then none of them is kept, and the next call tries to open the file
    /// anew.
    pub fn keep(&self, ended: u64, windows: &[Kept], size: u64, age: Duration) -> Result<()> {
        let oldest = room::oldest(ended, age);
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let gone = self.change(|transaction| {
            let mut gone = Gone::default();
            for window in windows {
                enter(transaction, ended, window)?;
                gone.enqueue(transaction, &queues, &window.service, ended)?;
            }
            make_room(transaction, size, oldest)?;
            let run = Run {
                last: ended,
                stopped: false,
            };
            note_run(transaction, self.began(), run)?;
            Ok(gone)
        })?;
        gone.count(&queues);
        Ok(())
    }

    fn change<T>(&self, act: impl FnOnce(&WriteTransaction) -> Result<T>) -> Result<T> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            *database = Some(open_file(&self.path)?);
        }
        let changed = database.as_ref().map_or_else(
            || Err(anyhow!("the file is closed")),
            |database| {
                let transaction = database.begin_write()?;
                let done = act(&transaction)?;
                transaction.commit()?;
                Ok(done)
            },
        );
        if changed.is_err() {
            // After a failure of the disk nothing can be done with an open one. What was kept
            // before is read from one that is opened anew, if that can be done.
            *database = None;
            *database = open_file(&self.path).ok();
        }
        changed
    }

    fn look<T>(&self, act: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref();
        act(database.context("the windows cannot be read since the disk failed")?)
    }

    /// The numbers of a service's last windows, oldest first, `most` of them: JSON.
    ///
    /// # Errors
    /// Says what failed.
    pub fn summaries(&self, service: &str, most: usize) -> Result<Vec<Vec<u8>>> {
        self.look(|database| {
            let table = database.begin_read()?.open_table(SUMMARIES)?;
            let range = table.range((service, 0)..=(service, u64::MAX))?;
            let mut found = Vec::new();
            for entry in range.rev().take(most) {
                found.push(entry?.1.value().to_vec());
            }
            found.reverse();
            Ok(found)
        })
    }

    /// The numbers of a service's window by its end, JSON; `None` if it is not kept.
    ///
    /// # Errors
    /// Says what failed.
    pub fn summary(&self, service: &str, ended: u64) -> Result<Option<Vec<u8>>> {
        self.look(|database| {
            let table = database.begin_read()?.open_table(SUMMARIES)?;
            let summary = table.get((service, ended))?;
            Ok(summary.map(|summary| summary.value().to_vec()))
        })
    }

    /// The profile of a window by its end, pprof; `None` if it is not kept.
    ///
    /// # Errors
    /// Says what failed.
    pub fn profile(&self, service: &str, ended: u64) -> Result<Option<Vec<u8>>> {
        self.unpacked(PROFILES, service, ended)
    }

    /// The findings of a window by its end, JSON; `None` if it is not kept.
    ///
    /// # Errors
    /// Says what failed.
    pub fn findings(&self, service: &str, ended: u64) -> Result<Option<Vec<u8>>> {
        self.unpacked(FINDINGS, service, ended)
    }

    fn unpacked(
        &self,
        table: TableDefinition<'_, (&'static str, u64), &'static [u8]>,
        service: &str,
        ended: u64,
    ) -> Result<Option<Vec<u8>>> {
        let packed = self.look(|database| {
            let table = database.begin_read()?.open_table(table)?;
            let packed = table.get((service, ended))?;
            Ok(packed.map(|packed| packed.value().to_vec()))
        })?;
        packed.map(|packed| unpack(&packed)).transpose()
    }

    /// The services of which something is kept.
    ///
    /// # Errors
    /// Says what failed.
    pub fn services(&self) -> Result<Vec<String>> {
        self.services_in(SUMMARIES)
    }

    fn services_in(
        &self,
        table: TableDefinition<'_, (&'static str, u64), &'static [u8]>,
    ) -> Result<Vec<String>> {
        self.look(|database| {
            let table = database.begin_read()?.open_table(table)?;
            let mut found: Vec<String> = Vec::new();
            // From each to the first of the next one.
            loop {
                let last = found.last().cloned().unwrap_or_default();
                let mut rest = table.range((last.as_str(), u64::MAX)..)?;
                let Some(entry) = rest.next() else {
                    return Ok(found);
                };
                found.push(entry?.0.value().0.to_owned());
            }
        })
    }
}

fn open_file(path: &Path) -> Result<Database> {
    let database = Database::builder().set_cache_size(CACHE).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    // Nothing is written that is there: the disk may be full.
    if database.begin_read()?.list_tables()?.count() < TABLES {
        make_tables(&database)?;
    }
    Ok(database)
}

/// Readers find all tables.
fn make_tables(database: &Database) -> Result<()> {
    let transaction = database.begin_write()?;
    transaction.open_table(SUMMARIES)?;
    transaction.open_table(PROFILES)?;
    transaction.open_table(FINDINGS)?;
    transaction.open_table(LOOKS)?;
    transaction.open_table(HEAPS)?;
    transaction.open_table(ORDER)?;
    transaction.open_table(RUNS)?;
    transaction.open_table(OUTBOX)?;
    transaction.open_table(TOLD)?;
    Ok(transaction.commit()?)
}

fn enter(transaction: &WriteTransaction, ended: u64, window: &Kept) -> Result<()> {
    let key = (window.service.as_str(), ended);
    let (profile, findings) = (pack(&window.profile), pack(&window.findings));
    let bytes = window.summary.len() + profile.len() + findings.len();
    transaction
        .open_table(SUMMARIES)?
        .insert(key, window.summary.as_slice())?;
    transaction
        .open_table(PROFILES)?
        .insert(key, profile.as_slice())?;
    transaction
        .open_table(FINDINGS)?
        .insert(key, findings.as_slice())?;
    count(transaction, (ended, &window.service), bytes)
}

/// Enters that so many bytes are kept of a service at a time.
fn count(transaction: &WriteTransaction, key: (u64, &str), bytes: usize) -> Result<()> {
    let mut order = transaction.open_table(ORDER)?;
    let before = order.get(key)?.map_or(0, |bytes| bytes.value());
    order.insert(key, before + bytes as u64)?;
    Ok(())
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    StreamingDecoder::new(packed)
        .map_err(|error| anyhow!("a window that was kept cannot be unpacked: {error}"))?
        .take(MAX_UNPACKED)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    /// A window that takes so many bytes, whoever packs it.
    pub fn window(service: &str, bytes: usize) -> Kept {
        let random = std::iter::repeat_with(|| fastrand::u8(..));
        Kept {
            service: service.to_owned(),
            summary: format!("\"{service}\"").into_bytes(),
            profile: random.take(bytes).collect(),
            findings: b"[]".to_vec(),
        }
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_and_the_gap_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (store, gap) = Store::open(folder.path(), 1000).unwrap();
        assert_eq!(gap, None);
        let kept = [window("a", 5000), window("b", 10)];
        store.keep(2000, &kept, 1 << 20, DAY).unwrap();
        assert!(Store::open(folder.path(), 2500).is_err(), "two have it");
        // Killed.
        drop(store);
        let (store, gap) = Store::open(folder.path(), 5000).unwrap();
        let lost = Gap {
            from: 2000,
            to: 5000,
            lost: true,
        };
        assert_eq!(gap.as_ref(), Some(&lost));
        assert_eq!(store.services().unwrap(), ["a", "b"]);
        assert_eq!(
            store.of_kind(Kind::Growth, "a", 2000).unwrap().unwrap(),
            kept[0].profile
        );
        assert_eq!(store.findings("b", 2000).unwrap().unwrap(), b"[]");
        assert_eq!(store.of_kind(Kind::Growth, "a", 2001).unwrap(), None);
        store.stop(6000).unwrap();
        drop(store);
        let (store, gap) = Store::open(folder.path(), 7000).unwrap();
        assert_eq!(gap.map(|gap| gap.lost), Some(false));
        assert_eq!(store.gaps().unwrap()[0], lost);
    }

    #[test]
    fn the_oldest_go_when_there_is_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        for ended in 1..=10 {
            let kept = [window("a", 1000)];
            store.keep(ended * 1000, &kept, 4500, DAY).unwrap();
        }
        let left = store.summaries("a", 100).unwrap().len();
        assert_eq!(left, 4);
        assert!(store.of_kind(Kind::Growth, "a", 6000).unwrap().is_none());
        assert!(store.of_kind(Kind::Growth, "a", 7000).unwrap().is_some());
        let second = Duration::from_secs(1);
        store.keep(11_000, &[], 4500, second).unwrap();
        assert_eq!(store.summaries("a", 100).unwrap().len(), 1);
    }

    /// What a full disk does: a write fails in the middle. What was kept before stays, and
    /// once there is room it goes on.
    #[test]
    fn a_write_that_fails_takes_nothing_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        store.keep(1000, &[window("a", 10)], 1 << 20, DAY).unwrap();
        let failed: Result<()> = store.change(|transaction| {
            enter(transaction, 2000, &window("a", 10))?;
            Err::<(), _>(anyhow!("no space is left"))
        });
        assert!(failed.is_err());
        store.keep(3000, &[window("a", 10)], 1 << 20, DAY).unwrap();
        assert!(store.of_kind(Kind::Growth, "a", 2000).unwrap().is_none());
        assert!(store.of_kind(Kind::Growth, "a", 1000).unwrap().is_some());
        assert!(store.of_kind(Kind::Growth, "a", 3000).unwrap().is_some());
    }
}
