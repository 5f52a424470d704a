//! Closer looks that are kept, and profiles of a moment and of the time before it.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{HEAPS, LOOKS, ORDER, PROFILES, RUNS, Store, count, make_room, pack, room, unpack};
use crate::model::Finding;
use crate::serve::gzip;
use crate::serve::look::{Look, Looked, Seen};

/// What a profile tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who touched the memory that came.
    Growth,
    /// Who allocated it.
    Heap,
}

impl Kind {
    fn table(self) -> TableDefinition<'static, (&'static str, u64), &'static [u8]> {
        match self {
            Self::Growth => PROFILES,
            Self::Heap => HEAPS,
        }
    }
}

/// What there was before, of a service.
#[derive(Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing: nobody watched or looked yet.
    Nothing,
    /// This profile, of a window that ended then.
    Kept(u64, Vec<u8>),
    /// What is not kept any more; the oldest window ended then.
    Gone(u64),
}

/// What is kept of a closer look beside its profile.
#[derive(Debug, Serialize, Deserialize)]
struct KeptLook {
    look: Look,
    /// When the look began that has found this.
    began: u64,
    findings: Vec<Finding>,
}

impl Store {
    /// Keeps what a closer look has seen, with the window that ended then; see [`Self::keep`].
    ///
    /// # Errors
    /// Says what failed: then it is not kept.
    pub fn keep_look(&self, looked: &Looked, size: u64, age: Duration) -> Result<()> {
        let Some(seen) = &looked.seen else {
            return Ok(());
        };
        let oldest = room::oldest(seen.at, age);
        self.change(|transaction| {
            enter_look(transaction, looked, seen)?;
            make_room(transaction, size, oldest)
        })
    }

    /// The last look at each service of which one is kept.
    ///
    /// # Errors
    /// Says what failed.
    pub fn last_looks(&self) -> Result<Vec<Looked>> {
        let mut found = Vec::new();
        for service in self.services_in(LOOKS)? {
            let last = self.look(|database| {
                let table = database.begin_read()?.open_table(LOOKS)?;
                let mut all = table.range((service.as_str(), 0)..=(service.as_str(), u64::MAX))?;
                let last = all.next_back().transpose()?;
                Ok(last.map(|(key, kept)| (key.value().1, kept.value().to_vec())))
            })?;
            let Some((at, kept)) = last else {
                continue;
            };
            let kept: KeptLook = serde_json::from_slice(&unpack(&kept)?)?;
            let profile = self.of_kind(Kind::Heap, &service, at)?.unwrap_or_default();
            found.push(Looked {
                look: kept.look,
                seen: Some(Seen {
                    at,
                    began: kept.began,
                    findings: kept.findings,
                    profile: gzip::pack(&profile)?,
                    report: None,
                }),
            });
        }
        Ok(found)
    }

    /// The profile of a window by its end, pprof; `None` if it is not kept.
    ///
    /// # Errors
    /// Says what failed.
    pub fn of_kind(&self, kind: Kind, service: &str, ended: u64) -> Result<Option<Vec<u8>>> {
        self.unpacked(kind.table(), service, ended)
    }

    /// When the windows of a time ended of which a profile of a service is kept, oldest first.
    ///
    /// # Errors
    /// Says what failed.
    pub fn windows(
        &self,
        kind: Kind,
        service: &str,
        time: RangeInclusive<u64>,
    ) -> Result<Vec<u64>> {
        if time.is_empty() {
            return Ok(Vec::new());
        }
        self.look(|database| {
            let table = database.begin_read()?.open_table(kind.table())?;
            let kept = table.range((service, *time.start())..=(service, *time.end()))?;
            kept.map(|entry| Ok(entry?.0.value().1)).collect()
        })
    }

    /// When this run began, milliseconds since 1970.
    pub fn began(&self) -> u64 {
        self.began.load(Ordering::Acquire)
    }

    /// Since when the profile of a window counts: the begin of its run, or of its look.
    ///
    /// # Errors
    /// Says what failed.
    pub fn counts_since(&self, kind: Kind, service: &str, ended: u64) -> Result<u64> {
        if kind == Kind::Heap {
            let kept = self.unpacked(LOOKS, service, ended)?.unwrap_or_default();
            return Ok(serde_json::from_slice::<KeptLook>(&kept)?.began);
        }
        self.look(|database| {
            let table = database.begin_read()?.open_table(RUNS)?;
            let mut runs = table.range(..=ended)?;
            let run = runs.next_back().transpose()?;
            Ok(run.map_or(0, |(began, _)| began.value()))
        })
    }

    /// The last profile that a service had at a time, where it counts since `began`.
    ///
    /// # Errors
    /// Says what failed.
    pub fn base(&self, kind: Kind, service: &str, began: u64, time: u64) -> Result<Base> {
        if time <= began {
            return Ok(Base::Nothing);
        }
        let (ended, oldest) = self.look(|database| {
            let read = database.begin_read()?;
            let table = read.open_table(kind.table())?;
            let mut before = table.range((service, began)..=(service, time))?;
            let ended = before.next_back().transpose()?;
            let order = read.open_table(ORDER)?;
            let oldest = order.first()?.map_or(u64::MAX, |(key, _)| key.value().0);
            Ok((ended.map(|(key, _)| key.value().1), oldest))
        })?;
        match ended {
            Some(ended) => {
                let profile = self.of_kind(kind, service, ended)?;
                Ok(profile.map_or(Base::Gone(oldest), |it| Base::Kept(ended, it)))
            }
            None if oldest <= time => Ok(Base::Nothing),
            None => Ok(Base::Gone(oldest)),
        }
    }
}

fn enter_look(transaction: &WriteTransaction, looked: &Looked, seen: &Seen) -> Result<()> {
    let kept = KeptLook {
        look: looked.look.clone(),
        began: seen.began,
        findings: seen.findings.clone(),
    };
    let profile = gzip::unpack(&seen.profile)?;
    let (kept, profile) = (pack(&serde_json::to_vec(&kept)?), pack(&profile));
    let service = looked.look.service.as_str();
    let key = (service, seen.at);
    transaction
        .open_table(LOOKS)?
        .insert(key, kept.as_slice())?;
    transaction
        .open_table(HEAPS)?
        .insert(key, profile.as_slice())?;
    count(transaction, (seen.at, service), kept.len() + profile.len())
}

#[cfg(test)]
mod tests {
    use super::super::Kept;
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const SIZE: u64 = 1 << 20;

    fn looked(at: u64, profile: &[u8]) -> Looked {
        Looked {
            look: Look {
                service: "a".to_owned(),
                began: 1000,
                ..Look::default()
            },
            seen: Some(Seen {
                at,
                began: 1000,
                findings: Vec::new(),
                profile: gzip::pack(profile).unwrap(),
                report: None,
            }),
        }
    }

    #[test]
    fn the_last_look_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        for at in [2000, 3000] {
            let profile = format!("profile of {at}");
            let looked = looked(at, profile.as_bytes());
            store.keep_look(&looked, SIZE, DAY).unwrap();
        }
        drop(store);
        let (store, _) = Store::open(folder.path(), 9000).unwrap();
        let last = store.last_looks().unwrap();
        assert_eq!(last.len(), 1);
        assert_eq!(last[0].seen.as_ref().map(|seen| seen.at), Some(3000));
        let before = store.of_kind(Kind::Heap, "a", 2000).unwrap();
        assert_eq!(before.unwrap(), b"profile of 2000");
        assert_eq!(store.counts_since(Kind::Heap, "a", 2000).unwrap(), 1000);
    }

    #[test]
    fn looks_go_with_the_oldest_windows() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        store.keep_look(&looked(2000, b"1"), SIZE, DAY).unwrap();
        let window = Kept {
            service: "a".to_owned(),
            summary: b"{}".to_vec(),
            profile: b"p".to_vec(),
            findings: b"[]".to_vec(),
        };
        store.keep(2000, &[window], SIZE, DAY).unwrap();
        let second = Duration::from_secs(1);
        store.keep(10_000, &[], SIZE, second).unwrap();
        assert!(store.of_kind(Kind::Heap, "a", 2000).unwrap().is_none());
        assert!(store.of_kind(Kind::Growth, "a", 2000).unwrap().is_none());
        assert!(store.last_looks().unwrap().is_empty());
    }

    #[test]
    fn what_there_was_before_is_kept_or_nothing_or_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        for at in [2000, 3000, 4000] {
            let profile = at.to_string();
            let looked = looked(at, profile.as_bytes());
            store.keep_look(&looked, SIZE, DAY).unwrap();
        }
        let base = |time| store.base(Kind::Heap, "a", 1000, time).unwrap();
        assert_eq!(base(3500), Base::Kept(3000, b"3000".to_vec()));
        assert_eq!(base(900), Base::Nothing);
        assert_eq!(base(1900), Base::Gone(2000));
        // Of another service something older is kept: nothing of this one went.
        let older = Kept {
            service: "b".to_owned(),
            summary: b"{}".to_vec(),
            profile: Vec::new(),
            findings: b"[]".to_vec(),
        };
        store.keep(1500, &[older], SIZE, DAY).unwrap();
        assert_eq!(
            store.base(Kind::Heap, "a", 1000, 1900).unwrap(),
            Base::Nothing
        );
    }
}
