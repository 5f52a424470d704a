//! What the whole run is like, told from parts of it in which allocations were followed
//! (`--overhead`): plain data and arithmetic.

mod coverage;
mod flows;
mod pace;
mod schedule;

pub use self::flows::{Late, Seen};
pub use self::pace::{Pace, Part};
pub use self::schedule::{Schedule, Spell, Standing, Work};

use tracer_ebpf::site::SiteKey;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use self::coverage::Coverage;
use self::flows::Flows;
use crate::model::budget::Survival;
use crate::targets::estimate::Estimates;

/// Groups that bursts are dealt out to; see [`Flows`].
const GROUPS: usize = 16;

/// What was seen at all sites.
#[derive(Debug)]
pub struct Duty {
    /// When allocations were followed.
    pub schedule: Schedule,
    sites: HashMap<SiteKey, Flows>,
    /// Sites that are kept, at most.
    most: usize,
    /// Blocks that are followed, or more.
    followed: u64,
}

impl Duty {
    /// Room for so many sites.
    pub fn new(most: usize) -> Self {
        Self {
            schedule: Schedule::default(),
            sites: HashMap::new(),
            most,
            followed: 0,
        }
    }

    /// How many blocks are followed, or fewer.
    pub fn followed(&self) -> u64 {
        self.followed
    }

    /// Of all blocks that were followed so many are left.
    pub fn recount(&mut self, followed: u64) {
        self.followed = followed;
    }

    /// What was seen at a site, if there is room for it.
    fn site(&mut self, key: SiteKey) -> Option<&mut Flows> {
        let is_full = self.sites.len() >= self.most;
        match self.sites.entry(key) {
            Entry::Occupied(site) => Some(site.into_mut()),
            Entry::Vacant(_) if is_full => None,
            Entry::Vacant(room) => Some(room.insert(Flows::default())),
        }
    }

    /// Adds what was seen at a site in the spell that has ended last.
    pub fn see(&mut self, key: SiteKey, seen: &Seen, standing: Standing) {
        self.followed += seen.kept;
        let watched = self.schedule.watched();
        if let Some(site) = self.site(key) {
            site.add(seen, standing, watched);
        }
    }

    /// Adds a death that was seen then; without one, the block died at another moment.
    pub fn lose(&mut self, key: SiteKey, late: Option<&Late>, standing: Standing) {
        self.followed = self.followed.saturating_sub(1);
        let born = late.map(|late| self.schedule.standing(late.spell));
        match (self.site(key), late, born) {
            (Some(site), Some(late), Some(born)) => site.lose(late, born, standing),
            (Some(site), ..) => site.find_gone(),
            (None, ..) => {}
        }
    }

    /// What the run until `now` is like, by site.
    pub fn estimates(&self, now: u64) -> HashMap<SiteKey, (Estimates, Survival)> {
        let coverage = Coverage::of(&self.schedule, now);
        let sites = self.sites.iter();
        sites
            .map(|(key, flows)| {
                let estimates = flows.estimates(&self.schedule, &coverage, now);
                (*key, (estimates, flows.survival(&self.schedule, now)))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
