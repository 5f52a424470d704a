//! Pages that were touched, one by one: those that were moved, and those that were given
//! back.

use std::mem::offset_of;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use tracer_ebpf::block::{Block, BlockKey, PAGE, page};
use tracer_ebpf::site::Site;

use super::Object;
use crate::kernel::batch;

const BPF_NOEXIST: u32 = 1;

/// The key of an image's page.
const fn key_of(image: u64, address: u64) -> BlockKey {
    BlockKey {
        address: page(address),
        image,
    }
}

impl Object {
    /// How many pages are followed.
    pub fn page_count(&self) -> u64 {
        self.pages().map(|(_, site)| site.live_count()).sum()
    }

    /// Has a page of an image, touched before `moved` (nanoseconds of
    /// `CLOCK_MONOTONIC`), at another address from now on.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn move_page(&self, image: u64, from: u64, to: u64, moved: u64) -> Result<()> {
        let live = self.live.fd().as_fd();
        let Some(block) = batch::find::<_, Block>(live, &key_of(image, from))? else {
            return Ok(());
        };
        // It was touched anew since.
        if block.time > moved || !batch::remove(live, &key_of(image, from))? {
            return Ok(());
        }
        if let Some(other) = batch::find::<_, Block>(live, &key_of(image, to))? {
            // One that was touched at its new place already is another's.
            if other.time >= moved {
                self.count_given_back(block.site);
                return Ok(());
            }
            self.give_back(image, to, other.site)?;
        }
        batch::insert(live, key_of(image, to), block, BPF_NOEXIST).context("cannot move a page")
    }

    /// Takes out a page of a site that is not in memory any more.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn give_back(&self, image: u64, address: u64, site: u32) -> Result<()> {
        if batch::remove(self.live.fd().as_fd(), &key_of(image, address))? {
            self.count_given_back(site);
        }
        Ok(())
    }

    fn count_given_back(&self, site: u32) {
        let count = |field, amount| self.sites.add(site, field, amount);
        count(offset_of!(Site, freed_count), 1);
        count(offset_of!(Site, freed_bytes), PAGE);
    }
}
