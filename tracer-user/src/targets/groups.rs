//! Groups of processes whose equal call paths are one: those that run the same
//! program, or a single process image.
//!
//! The kernel side sums up what all of a group allocate and free. What of it was
//! live in processes that have ended is kept here, since their blocks leave the
//! kernel's map.

use std::collections::HashMap;

use super::images::Image;
use super::ledger::{Account, MappingSums};
use super::resident::Resident;
use super::share::{Ages, LiveSums, Shares};

/// A group of processes.
#[derive(Default)]
pub struct Group {
    /// The image that stands for all of them, by its index: the first.
    pub first: usize,
    /// How many images it has had.
    pub images: u64,
    /// What was live when images of it ended, by site.
    held: HashMap<u32, Shares>,
    /// The same of mappings.
    mappings: HashMap<Account, EndedMappings>,
}

/// Mappings of a site in images that have ended.
#[derive(Debug, Clone)]
pub struct EndedMappings {
    /// What was mapped and unmapped.
    pub sums: MappingSums,
    /// What was live when they ended.
    pub live: Shares,
    /// What of it was in memory at the last looks before.
    pub resident: Option<Resident>,
}

impl Group {
    /// A group that begins with an image.
    pub fn new(first: usize) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    /// Keeps what an image leaves behind: `ages` are those of its live blocks at
    /// its end.
    pub fn note_end(&mut self, image: &Image, ages: &Ages) {
        let end = image.ended.map_or(0, |(time, _)| time);
        for (site, sums) in ages {
            let held = self.held.entry(*site).or_default();
            held.add(image.pid, true, sums, end);
        }
        let mut live: HashMap<Account, LiveSums> = HashMap::new();
        for mapping in image.ledger.live() {
            let sums = live.entry(mapping.account).or_default();
            sums.add(mapping.bytes, mapping.time, end);
        }
        for (account, sums) in image.ledger.sums() {
            let live = live.get(&account).copied().unwrap_or_default();
            let ended = self.mappings.entry(account).or_insert(EndedMappings {
                sums: MappingSums::at(sums.first_seen),
                live: Shares::default(),
                resident: None,
            });
            ended.sums.add(sums);
            ended.live.add(image.pid, true, &live, end);
            if let Some(resident) = image.ledger.resident(account) {
                ended.resident.get_or_insert_default().add(resident);
            }
        }
    }

    /// What was live of a site in images that have ended.
    pub fn held(&self, site: u32) -> Shares {
        self.held.get(&site).cloned().unwrap_or_default()
    }

    /// Mappings of images that have ended, by account.
    pub fn mappings(&self) -> impl Iterator<Item = (Account, &EndedMappings)> {
        self.mappings
            .iter()
            .map(|(account, ended)| (*account, ended))
    }

    /// What of mappings of a site there is in images that have ended.
    pub fn mappings_of(&self, site: u32) -> impl Iterator<Item = (Account, &EndedMappings)> {
        self.mappings().filter(move |((at, _), _)| *at == site)
    }

    /// Forgets a site, whose index another will have.
    pub fn forget_site(&mut self, site: u32) {
        self.held.remove(&site);
        self.mappings.retain(|(at, _), _| *at != site);
    }
}
