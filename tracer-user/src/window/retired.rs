//! Call paths whose places in the kernel were given to others: nothing is live
//! there in any process that runs.

use std::collections::HashMap;

use tracer_ebpf::site::SiteKey;

use super::collect::CollectedSite;
use crate::model::MemoryKind;

/// The call paths that the kernel does not hold any more.
pub struct Retired {
    paths: HashMap<(SiteKey, MemoryKind), CollectedSite>,
    /// How many are kept apart, at most.
    most: usize,
    /// The rest, one for each group and kind of memory.
    others: HashMap<(u64, MemoryKind), CollectedSite>,
    /// How many paths are in the rest.
    not_kept: u64,
}

impl Retired {
    /// Room for so many paths.
    pub fn new(most: usize) -> Self {
        Self {
            paths: HashMap::new(),
            most,
            others: HashMap::new(),
            not_kept: 0,
        }
    }

    /// Adds a site that the kernel does not hold any more.
    pub fn add(&mut self, key: SiteKey, site: CollectedSite) {
        let key = (key, site.kind);
        if let Some(known) = self.paths.get_mut(&key) {
            known.add(&site);
            return;
        }
        if self.paths.len() >= self.most {
            let dispensable = match site.live.0 {
                0 => None,
                _ => self.paths.iter().find(|(_, path)| path.live.0 == 0),
            };
            match dispensable.map(|(key, _)| *key) {
                Some(other) => {
                    if let Some(other) = self.paths.remove(&other) {
                        self.add_to_others(other);
                    }
                }
                None => return self.add_to_others(site),
            }
        }
        self.paths.insert(key, site);
    }

    fn add_to_others(&mut self, site: CollectedSite) {
        self.not_kept += 1;
        let key = (site.group, site.kind);
        match self.others.get_mut(&key) {
            Some(known) => known.add(&site),
            None => {
                let without_path = CollectedSite {
                    frames: Vec::new(),
                    thread: None,
                    names: None,
                    is_rest: true,
                    ..site
                };
                self.others.insert(key, without_path);
            }
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &CollectedSite> {
        self.paths.values().chain(self.others.values())
    }

    /// Forgets the paths of groups that are gone.
    pub fn retain(&mut self, is_there: impl Fn(u64) -> bool) {
        self.paths.retain(|_, site| is_there(site.group));
        self.others.retain(|(group, _), _| is_there(*group));
    }

    /// How many paths were not kept apart.
    pub fn not_kept(&self) -> u64 {
        self.not_kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::estimate::{Estimate, Estimates};

    fn key(number: u64) -> SiteKey {
        SiteKey {
            high: number,
            low: 7,
        }
    }

    fn site(live: u64, allocated: u64) -> CollectedSite {
        CollectedSite {
            live: (live, live * 10),
            allocated: (allocated, allocated * 10),
            frames: vec![1, 2, 3],
            ..CollectedSite::empty()
        }
    }

    /// What was estimated stays as sure as it was, wherever it is kept.
    #[test]
    fn estimates_are_kept_with_their_variances() {
        let estimate = Estimate {
            count: 10.5,
            bytes: 1000.25,
            count_variance: 90.0,
            bytes_variance: 8000.0,
        };
        let sampled = |number| CollectedSite {
            estimates: Some(Estimates {
                samples: 1,
                allocated: estimate,
                freed: estimate,
                ..Estimates::default()
            }),
            ..site(0, number)
        };
        let mut retired = Retired::new(1);
        retired.add(key(1), sampled(10));
        retired.add(key(1), sampled(10));
        retired.add(key(2), sampled(10));
        let mut all = Estimates::default();
        retired
            .iter()
            .filter_map(|site| site.estimates.as_ref())
            .for_each(|site| all.add(site));
        assert_eq!(all.samples, 3);
        assert_eq!(all.allocated.whole(), (32, 3001));
        assert_eq!(all.freed.bytes_variance, 24_000.0);
    }

    #[test]
    fn nothing_is_left_of_a_group_that_is_gone() {
        let mut retired = Retired::new(1);
        for number in 0..4 {
            let group = number % 2;
            retired.add(
                key(number),
                CollectedSite {
                    group,
                    ..site(0, 1)
                },
            );
        }
        retired.retain(|group| group == 1);
        let left: Vec<_> = retired.iter().map(|site| site.group).collect();
        assert!(!left.is_empty() && left.iter().all(|group| *group == 1));
    }

    #[test]
    fn what_there_is_no_room_for_is_in_the_rest() {
        let mut retired = Retired::new(2);
        retired.add(key(1), site(0, 5));
        retired.add(key(2), site(3, 3));
        retired.add(key(1), site(0, 2));
        assert_eq!(retired.not_kept(), 0);
        // An empty one goes to the rest itself; one with live blocks takes the
        // place of an empty one.
        retired.add(key(3), site(0, 11));
        retired.add(key(4), site(1, 1));
        retired.add(key(5), site(1, 1));
        assert_eq!(retired.not_kept(), 3);
        let sum = |of: fn(&CollectedSite) -> u64| retired.iter().map(of).sum::<u64>();
        assert_eq!(sum(|site| site.allocated.0), 5 + 3 + 2 + 11 + 1 + 1);
        assert_eq!(sum(|site| site.live.0), 5);
        let rest: Vec<_> = retired.iter().filter(|site| site.is_rest).collect();
        assert_eq!((rest.len(), rest[0].frames.len()), (1, 0));
    }
}
