//! Taking sites back from the kernel side, so that their places can be used
//! again.

use std::collections::HashSet;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use tracer_ebpf::limits::MAX_FRAMES;
use tracer_ebpf::sample::SampledSite;
use tracer_ebpf::site::{Site, SiteHead, SiteKey};
use tracer_ebpf::thread::InFlight;

use super::Object;
use crate::kernel::batch;
use crate::kernel::tables::wait_for_programs;

impl Object {
    /// What all sites in use are, of all kinds.
    pub fn site_heads(&self) -> impl Iterator<Item = (u32, SiteHead)> + '_ {
        let heads = (0..self.sites.len())
            .filter_map(|index| Some((index, self.sites.head::<SiteHead>(index)?)));
        heads.filter(|(_, head)| head.image != 0)
    }

    /// The images that made sites which are theirs alone.
    pub fn local_makers(&self) -> impl Iterator<Item = u64> + '_ {
        let heads = self.site_heads().filter(|(_, head)| head.is_local());
        heads.map(|(_, head)| head.image)
    }

    /// Hides sites from programs, and returns those of them at which nothing
    /// will be counted any more: nothing is live there, and no call is on its way.
    /// Mapping events of them may be in the ring yet. The others are shown again.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn hide_sites(&mut self, sites: &[(u32, SiteKey)]) -> Result<Vec<u32>> {
        let keys: Vec<SiteKey> = sites.iter().map(|(_, key)| *key).collect();
        batch::delete(self.index.fd().as_fd(), &keys)?;
        // What threads remember of their stacks leads to sites too.
        self.site_changes.count(0);
        wait_for_programs();
        // First what is on its way: when it has arrived it is in the map.
        let mut busy = HashSet::new();
        batch::for_each(self.threads.fd().as_fd(), |_: u64, thread: InFlight| {
            busy.extend(thread.sites());
        })?;
        self.for_each_live(|_, block| {
            busy.insert(block.site);
        })?;
        let mut hidden = Vec::new();
        for (index, key) in sites {
            if busy.contains(index) {
                self.show_site(*index, *key);
            } else {
                hidden.push(*index);
            }
        }
        Ok(hidden)
    }

    /// Lets programs find a site again. If they have made another for its path
    /// meanwhile, both stay, and are one in the report.
    pub fn show_site(&mut self, index: u32, key: SiteKey) {
        const BPF_NOEXIST: u32 = 1;
        // See above.
        let _ = batch::insert(self.index.fd().as_fd(), key, index, BPF_NOEXIST);
    }

    /// Gives the place of a hidden site to others.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn free_site(&mut self, index: u32) -> Result<()> {
        self.sites.set(index, EMPTY);
        if let Some(sampled) = &mut self.sampled {
            sampled.set(index, SampledSite::EMPTY);
        }
        self.samplers.forget_site(index);
        self.has_recycled = true;
        self.free_sites
            .push(index, 0)
            .context("cannot give a call path's place to another")
    }
}

/// A place that no site has.
const EMPTY: Site = Site {
    image: 0,
    group: 0,
    key: SiteKey { high: 0, low: 0 },
    depth: 0,
    end: 0,
    thread: 0,
    kind: 0,
    allocated_count: 0,
    allocated_bytes: 0,
    freed_count: 0,
    freed_bytes: 0,
    untracked_count: 0,
    untracked_bytes: 0,
    first_seen: 0,
    last_seen: 0,
    lifetimes: [0; tracer_ebpf::limits::LIFETIME_BUCKETS],
    thread_name: [0; tracer_ebpf::site::THREAD_NAME],
    frames: [0; MAX_FRAMES],
};
