//! The kernel side of `--module` and `--only`: lists of code whose calls are followed,
//! and which image has which.
//!
//! A program may be at work with the list of an image, so a list that an image may have
//! is never changed: it gets another, and the old one is used again only when no image
//! has it and every program that may have found it has ended.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use aya::maps::{HashMap as KernelMap, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use tracer_ebpf::origin::{
    EVERYWHERE, FIRST_LIST, IS_NOTED, MAX_LISTS, NOWHERE, Origin, Origins, kind,
};

use super::mapped::MappedArray;
use super::tables::wait_for_programs;

/// The maps.
pub struct OriginMaps {
    lists: MappedArray<Origins>,
    /// By image: the number of its list, with marks.
    of: KernelMap<MapData, u64, u64>,
    elsewhere: PerCpuArray<MapData, u64>,
    /// Numbers that no image has.
    free: Vec<u32>,
    /// What images have, as far as we gave it to them.
    given: HashMap<u64, u64>,
}

impl OriginMaps {
    /// Of `len` lists; of one if they are not used.
    pub(super) fn new(
        lists: MappedArray<Origins>,
        of: KernelMap<MapData, u64, u64>,
        elsewhere: PerCpuArray<MapData, u64>,
    ) -> Result<Self> {
        let mut maps = Self {
            free: (FIRST_LIST..lists.len()).rev().collect(),
            lists,
            of,
            elsewhere,
            given: HashMap::new(),
        };
        if maps.is_used() {
            let everything = Origin {
                start: 0,
                end: u64::MAX,
                kind: kind::ASKED,
                ..Origin::default()
            };
            let list = Origins::new(&[everything]).context("no room for a range")?;
            maps.lists.set(EVERYWHERE, list);
            maps.lists.set(NOWHERE, Origins::EMPTY);
        }
        Ok(maps)
    }

    /// Whether it matters where calls are made from.
    pub fn is_used(&self) -> bool {
        self.lists.len() > 1
    }

    /// Has all calls of an image followed.
    pub(super) fn follow_all(&mut self, image: u64) -> Result<()> {
        self.give(image, EVERYWHERE.into())
    }

    /// Has those calls of an image followed that are made from these ranges, which are
    /// sorted. `is_noted`: see [`IS_NOTED`]. Whether anything is another than before.
    pub(super) fn put(&mut self, image: u64, ranges: &[Origin], is_noted: bool) -> Result<bool> {
        let marks = if is_noted { IS_NOTED } else { 0 };
        let list = Origins::new(ranges).context("too many ranges of code")?;
        let is_it = |word: &u64| {
            let number = u32::try_from(word & !IS_NOTED).unwrap_or(0);
            word & IS_NOTED == marks && self.lists.get(number) == Some(list)
        };
        let given = self.given.get(&image).copied();
        // A forked child has its parent's.
        let has = given.or_else(|| self.of.get(&image, 0).ok());
        if let Some(word) = has.filter(is_it) {
            self.given.insert(image, word);
            return Ok(false);
        }
        let number = match ranges {
            [] => NOWHERE,
            _ => self.take().context("there is no room for more processes")?,
        };
        if number != NOWHERE {
            self.lists.set(number, list);
        }
        self.give(image, u64::from(number) | marks)?;
        Ok(true)
    }

    fn give(&mut self, image: u64, word: u64) -> Result<()> {
        self.of
            .insert(image, word, 0)
            .context("there is no room for more processes")?;
        self.given.insert(image, word);
        Ok(())
    }

    /// A number that no image has, nor a program at work.
    fn take(&mut self) -> Option<u32> {
        if self.free.is_empty() {
            wait_for_programs();
            // Forked children have their parent's, of which we may not know yet.
            let words = self.of.iter().filter_map(|entry| Some(entry.ok()?.1));
            let used: HashSet<u64> = words.map(|word| word & !IS_NOTED).collect();
            let all = FIRST_LIST..self.lists.len();
            self.free = all
                .filter(|number| !used.contains(&u64::from(*number)))
                .collect();
        }
        self.free.pop()
    }

    /// Forgets an image that has ended.
    pub fn forget(&mut self, image: u64) {
        if self.is_used() {
            self.given.remove(&image);
            // It need not be there.
            let _ = self.of.remove(&image);
        }
    }

    /// Forgets the calls from elsewhere. To be called while nothing counts.
    pub(super) fn forget_calls(&mut self) -> Result<()> {
        let none = vec![0; nr_cpus().map_err(|(_, error)| error)?];
        self.elsewhere.set(0, PerCpuValues::try_from(none)?, 0)?;
        Ok(())
    }

    /// Calls of probed functions that were made from elsewhere, and not followed.
    pub fn calls_from_elsewhere(&self) -> u64 {
        let each = self.elsewhere.get(&0, 0);
        each.map_or(0, |each| each.iter().sum())
    }
}

/// How many lists there are; one, which none uses, if it does not matter where calls are
/// made from.
pub(super) const fn lists(is_used: bool) -> u32 {
    if is_used { MAX_LISTS } else { 1 }
}
