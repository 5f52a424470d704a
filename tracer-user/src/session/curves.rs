//! When and how what is live at each site is looked at.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::Result;
use tracer_ebpf::block::PAGE;
use tracer_ebpf::site::SiteKind;

use super::Session;
use crate::model::{Level, MemoryKind};
use crate::targets::images::is_own;
use crate::targets::ledger::MappingKind;
use crate::window::collect::Counted;
use crate::window::curves::Key;

impl Session {
    /// Looks at what is live, if it is time. Within a budget nothing is spent on that: what
    /// was seen in bursts is no curve. Where pages alone are followed for weeks, snapshots are
    /// the moments.
    pub(super) fn take_curves(&mut self) {
        if !self.options.service {
            self.count_descriptors();
        }
        let begin = Instant::now();
        let has_own_moments = self.budget.is_some() || self.options.service;
        if !has_own_moments && self.curves.is_due(begin) && self.engine.object.is_active() {
            self.look_at_levels();
            self.curves.rest(begin, begin.elapsed());
        }
    }

    /// Looks at what is live now.
    pub(super) fn look_at_levels(&mut self) {
        let mut now = self.levels();
        if self.options.growth && !self.options.service {
            // What cannot be looked at now can be later.
            now.extend(self.levels_of_pages().unwrap_or_default());
        }
        let older = self.untraced_frees();
        self.curves.enter(self.elapsed(), now);
        self.curves.enter_older_frees(older);
    }

    /// What is in memory of what was touched at each site.
    fn levels_of_pages(&self) -> Result<HashMap<Key, Level>> {
        let grown = self.grown_until_now()?;
        let mut bytes: HashMap<u32, u64> = HashMap::new();
        for (index, sums) in grown.sites.into_values().flatten() {
            *bytes.entry(index).or_default() += sums.bytes();
        }
        let mut levels: HashMap<Key, Level> = HashMap::new();
        for (index, bytes) in bytes {
            let Some(site) = self.engine.object.sites.get(index) else {
                continue;
            };
            let counted = Counted::of(&self.engine.object, index, &site);
            let level = levels.entry((site.key, MemoryKind::Page)).or_default();
            level.live_bytes += bytes;
            level.live_count += bytes / PAGE;
            level.allocated_count += counted.allocated.0;
        }
        Ok(levels)
    }

    /// What is live at each site that has anything.
    fn levels(&self) -> HashMap<Key, Level> {
        let mut levels: HashMap<Key, Level> = HashMap::new();
        for (index, site) in self.engine.object.used_sites() {
            if is_own(site.image) || site.is(SiteKind::Page) || site.live_count() == 0 {
                continue;
            }
            let kind = match () {
                () if site.is(SiteKind::Handle) => MemoryKind::JniHandle,
                () if site.is(SiteKind::Thread) => MemoryKind::Thread,
                () => MemoryKind::Heap,
            };
            let counted = Counted::of(&self.engine.object, index, &site);
            let level = levels.entry((site.key, kind)).or_default();
            level.live_bytes += counted.live.1;
            level.live_count += counted.live.0;
            level.allocated_count += counted.allocated.0;
        }
        for ((index, kind), sums) in self.images.iter().flat_map(|image| image.ledger.sums()) {
            let Some(site) = self.engine.object.sites.get(index) else {
                continue;
            };
            let kind = match kind {
                MappingKind::Anonymous => MemoryKind::Mapping,
                MappingKind::File => MemoryKind::FileMapping,
                MappingKind::Stack => MemoryKind::ThreadStack,
            };
            let level = levels.entry((site.key, kind)).or_default();
            level.live_bytes += sums.allocated_bytes - sums.freed_bytes;
            level.live_count += sums.allocated_count - sums.freed_count;
            level.allocated_count += sums.allocated_count;
        }
        levels
    }
}
