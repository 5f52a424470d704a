//! Groups of processes whose equal call paths are one: those that run the same
//! program, or a single process image.
//!
//! The kernel side sums up what all of a group allocate and free. What of it was
//! live in processes that have ended is kept here, since their blocks leave the
//! kernel's map.

use std::collections::HashMap;

use super::images::Image;
use super::ledger::MappingSums;
use super::share::{Ages, Share, Shares};

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
    mappings: HashMap<u32, EndedMappings>,
}

/// Mappings of a site in images that have ended.
#[derive(Debug, Clone)]
pub struct EndedMappings {
    /// What was mapped and unmapped.
    pub sums: MappingSums,
    /// What was live when they ended.
    pub live: Shares,
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
            let share = Share::of(image.pid, true, *sums, end);
            self.held.entry(*site).or_default().add(share);
        }
        let mut live = Ages::new();
        for mapping in image.ledger.live() {
            let sums = live.entry(mapping.site).or_default();
            sums.add(mapping.bytes, mapping.time);
        }
        for (site, sums) in image.ledger.sums() {
            let share = live.get(&site).copied().unwrap_or_default();
            let share = Share::of(image.pid, true, share, end);
            let ended = self.mappings.entry(site).or_insert(EndedMappings {
                sums: MappingSums::at(sums.first_seen),
                live: Shares::default(),
            });
            ended.sums.add(sums);
            ended.live.add(share);
        }
    }

    /// What was live of a site in images that have ended.
    pub fn held(&self, site: u32) -> Shares {
        self.held.get(&site).cloned().unwrap_or_default()
    }

    /// Mappings of images that have ended, by site.
    pub fn mappings(&self) -> impl Iterator<Item = (u32, &EndedMappings)> {
        self.mappings.iter().map(|(site, ended)| (*site, ended))
    }

    /// What of mappings of a site there is in images that have ended.
    pub fn mappings_of(&self, site: u32) -> Option<&EndedMappings> {
        self.mappings.get(&site)
    }

    /// Forgets a site, whose index another will have.
    pub fn forget_site(&mut self, site: u32) {
        self.held.remove(&site);
        self.mappings.remove(&site);
    }
}
