//! What the whole run is like, told from parts of it in which allocations were followed
//! (`--overhead`): plain data and arithmetic.

mod coverage;
mod flows;
mod schedule;

pub use self::flows::{Late, Seen};
pub use self::schedule::{Schedule, Spell, Standing, Work};

use tracer_ebpf::site::SiteKey;

use std::collections::HashMap;

use self::coverage::Coverage;
use self::flows::Flows;
use crate::model::budget::Survival;
use crate::targets::estimate::Estimates;

/// Groups that bursts are dealt out to; see [`Flows`].
const GROUPS: usize = 16;

/// What was seen at all sites.
#[derive(Debug, Default)]
pub struct Duty {
    /// When allocations were followed.
    pub schedule: Schedule,
    sites: HashMap<SiteKey, Flows>,
}

impl Duty {
    /// Adds what was seen at a site in the spell that has ended last.
    pub fn see(&mut self, key: SiteKey, seen: &Seen, standing: Standing) {
        let flows = self.sites.entry(key).or_default();
        flows.add(seen, standing, &self.schedule);
    }

    /// Adds a death that was seen then; without one, the block died at another moment.
    pub fn lose(&mut self, key: SiteKey, late: Option<&Late>, standing: Standing) {
        let flows = self.sites.entry(key).or_default();
        match late {
            Some(late) => flows.lose(late, standing, &self.schedule),
            None => flows.find_gone(),
        }
    }

    /// What the run until `now` is like, by site.
    pub fn estimates(&self, now: u64) -> HashMap<SiteKey, (Estimates, Survival)> {
        let coverage = Coverage::of(&self.schedule, now);
        let sites = self.sites.iter();
        sites
            .map(|(key, flows)| {
                let estimates = flows.estimates(&self.schedule, &coverage);
                (*key, (estimates, flows.survival(&self.schedule, now)))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
