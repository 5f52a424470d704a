//! Room for new call paths: the places of those at which nothing is live in any
//! process that runs are given to others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_ebpf::site::{Site, SiteHead, SiteKey, SiteKind};

use super::Session;
use crate::targets::images::is_own;
use crate::window::collect::{CollectedSite, Cutoff, retired_sites};

/// Room is made when less than one part in this many is free.
const LEAST_FREE: u32 = 4;

/// A path that was used within so many nanoseconds is not cold.
const COLD: u64 = 1_000_000_000;

/// How long nothing more is tried when little was found.
const PAUSE: Duration = Duration::from_secs(1);

impl Session {
    /// Makes room for new call paths if it is short.
    pub(super) fn make_room(&mut self) -> Result<()> {
        let total = self.engine.object.sites.len();
        // Places are given out in order, so the last ones tell.
        let is_used = |index| {
            self.engine
                .object
                .sites
                .first_word(index)
                .is_some_and(|word| word != 0)
        };
        if !self.engine.object.has_recycled && !is_used(total - 1 - total / LEAST_FREE) {
            return Ok(());
        }
        let used = u32::try_from(self.engine.object.site_heads().count()).unwrap_or(total);
        let free = total - used;
        if free >= total / LEAST_FREE {
            return Ok(());
        }
        let wanted = (total / 2).saturating_sub(free);
        if self.room_at.is_some_and(|at| at.elapsed() < PAUSE) {
            return Ok(());
        }
        self.settle_ended(true)?;
        let candidates = self.dispensable(wanted);
        if candidates.len() < wanted as usize / 2 {
            // There is little to gain: not at every look.
            self.room_at = Some(Instant::now());
        }
        if candidates.is_empty() {
            return Ok(());
        }
        let hidden = self.engine.object.hide_sites(&candidates)?;
        self.drain_events()?;
        self.retire_sites(&hidden)
    }

    /// Sites at which nothing seems to be live, those of images that are gone
    /// first, then those that were used longest ago.
    fn dispensable(&self, wanted: u32) -> Vec<(u32, SiteKey)> {
        let now = self.now();
        let mut found: Vec<(bool, u64, u32, SiteKey)> = Vec::new();
        for (index, head) in self.engine.object.site_heads() {
            let Some(site) = self.engine.object.sites.get(index) else {
                continue;
            };
            let gone = self.maker_is_gone(&head);
            let is_cold = now.saturating_sub(site.last_seen) > COLD;
            if is_own(head.image) || (!gone && (site.is(SiteKind::Sample) || !is_cold)) {
                continue;
            }
            let held = self.images.group(head.group).map(|group| group.held(index));
            if site.live_count() <= held.map_or(0, |held| held.count) || gone {
                found.push((!gone, site.last_seen, index, head.key));
            }
        }
        found.sort_unstable_by_key(|(here, last_seen, index, _)| (*here, *last_seen, *index));
        let found = found.into_iter().take(wanted as usize);
        found.map(|(_, _, index, key)| (index, key)).collect()
    }

    /// Whether a path was that of one image, which has ended.
    fn maker_is_gone(&self, head: &SiteHead) -> bool {
        let own = self.options.per_process || head.is_local();
        let image = self
            .images
            .index_of(head.image)
            .and_then(|at| self.images.get(at));
        own && image.is_none_or(|image| image.has_left)
    }

    /// Takes hidden sites out of the kernel, with all that is known of them.
    fn retire_sites(&mut self, hidden: &[u32]) -> Result<()> {
        self.note_sites();
        let mapped = self.images.mapped_sites();
        let mut gone = HashMap::new();
        for index in hidden {
            let Some(site) = self.engine.object.sites.get(*index) else {
                continue;
            };
            if mapped.contains(index) {
                self.engine.object.show_site(*index, site.key);
                continue;
            }
            if !site.is(SiteKind::Sample) {
                self.keep_path(*index, &site);
            }
            self.java.names.forget(*index);
            // The image may have been kept for this site.
            let image = self.images.index_of(site.image);
            self.leaving.kept.extend(image.filter(|at| {
                let image = self.images.get(*at);
                image.is_some_and(|image| image.has_left)
            }));
            gone.insert(*index, site.group);
        }
        self.images.forget_sites(&gone);
        gone.keys()
            .try_for_each(|index| self.engine.object.free_site(*index))
    }

    /// Keeps what was counted at a site.
    fn keep_path(&mut self, index: u32, site: &Site) {
        let cutoff = Cutoff {
            born_by: self.now(),
            asked: self.options.older_than.as_nanos() > 0,
            end: self.now(),
        };
        let words = &site.frames[..(site.depth as usize).min(site.frames.len())];
        let seen = (site.first_seen, site.last_seen);
        let names = Some(self.java.names.of(index, words, seen));
        let object = &self.engine.object;
        for path in retired_sites(object, (index, site), &self.images, cutoff) {
            let names = names.clone();
            self.retired.add(site.key, CollectedSite { names, ..path });
        }
    }
}
