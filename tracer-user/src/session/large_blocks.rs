//! Which large blocks there are. The kernel side does not tell of blocks one by one, so its map of
//! live ones is read, and only when call paths of few and large ones have changed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_ebpf::block::OTHERS;
use tracer_ebpf::site::{Site, SiteKind};

use super::Session;
use crate::targets::images::is_own;
use crate::targets::large_blocks::LARGE;

/// Call paths of more live blocks are not of large ones.
const FEW: u64 = 64;
/// Reading all blocks may take one part in so many of the time.
const SHARE: u32 = 200;

/// The call paths of few and large blocks, when blocks were read last.
#[derive(Debug, Default)]
pub(super) struct LargeSites {
    /// Their indices, and how many blocks they had allocated and freed.
    counts: Vec<(u32, u64, u64)>,
    /// When blocks may be read again.
    next: Option<Instant>,
}

impl Session {
    /// Finds the large blocks of all processes, if some may have come or gone. Where calls are
    /// not followed, or not one by one, nothing is known of single blocks.
    pub(super) fn find_large_blocks(&mut self) {
        let begin = Instant::now();
        let is_partial =
            self.budget.is_some() || self.options.growth || self.engine.object.sampling.is_on();
        if is_partial || self.looks.large.next.is_some_and(|next| begin < next) {
            return;
        }
        let counts = self.large_sites();
        if counts == self.looks.large.counts {
            return;
        }
        // What the kernel cannot tell now it can later.
        if self.read_large_blocks(&counts).is_ok() {
            self.looks.large.counts = counts;
        }
        let rest: Duration = begin.elapsed() * SHARE;
        self.looks.large.next = Some(begin + rest);
    }

    fn large_sites(&self) -> Vec<(u32, u64, u64)> {
        let is_it = |site: &Site| {
            let (count, bytes) = (site.live_count(), site.live_bytes());
            let is_block = !site.is(SiteKind::Page) && !is_own(site.image);
            is_block && (1..=FEW).contains(&count) && bytes / count >= LARGE
        };
        let sites = self.engine.object.used_sites();
        let large = sites.filter(|(_, site)| is_it(site));
        large
            .map(|(index, site)| (index, site.allocated_count, site.freed_count))
            .collect()
    }

    fn read_large_blocks(&mut self, sites: &[(u32, u64, u64)]) -> Result<()> {
        let sites: HashSet<u32> = sites.iter().map(|(index, ..)| *index).collect();
        let mut found = Vec::new();
        if !sites.is_empty() {
            self.engine.object.for_each_block(|key, block| {
                let is_large = block.size >= LARGE && sites.contains(&block.site);
                if is_large && key.address < OTHERS {
                    found.push((key, block));
                }
            })?;
        }
        for index in self.images.running().collect::<Vec<_>>() {
            if let Some(image) = self.images.get_mut(index) {
                image.large.clear();
            }
        }
        for (key, block) in found {
            let index = self.images.index_of(key.image);
            if let Some(image) = index.and_then(|index| self.images.get_mut(index)) {
                image.large.add(key.address, block.size, block.site);
            }
        }
        Ok(())
    }
}
