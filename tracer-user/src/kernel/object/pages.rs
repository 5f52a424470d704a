//! Pages that were touched, one by one: those that were moved, and those that were given
//! back.

use std::mem::offset_of;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use tracer_ebpf::block::{Block, BlockKey, page};
use tracer_ebpf::site::Site;

use super::Object;
use crate::kernel::batch;

const BPF_NOEXIST: u32 = 1;

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
        let key = |address| BlockKey {
            address: page(address),
            image,
        };
        let (from, to) = (key(from), key(to));
        let live = self.live.fd().as_fd();
        let Some(block) = batch::find::<_, Block>(live, &from)? else {
            return Ok(());
        };
        // It was touched anew since.
        if block.time > moved || !batch::remove(live, &from)? {
            return Ok(());
        }
        if let Some(stale) = batch::find::<_, Block>(live, &to)? {
            // One that was touched at its new place already is another's.
            let gone = if stale.time < moved { &stale } else { &block };
            if stale.time < moved {
                batch::remove(live, &to)?;
            }
            self.count_given_back(gone);
            if stale.time >= moved {
                return Ok(());
            }
        }
        batch::insert(live, to, block, BPF_NOEXIST).context("cannot move a page")
    }

    /// Takes out a page that is not in memory any more.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn give_back(&self, key: &BlockKey, block: &Block) -> Result<()> {
        if batch::remove(self.live.fd().as_fd(), key)? {
            self.count_given_back(block);
        }
        Ok(())
    }

    fn count_given_back(&self, block: &Block) {
        let count = |field, amount| self.sites.add(block.site, field, amount);
        count(offset_of!(Site, freed_count), 1);
        count(offset_of!(Site, freed_bytes), block.size);
    }
}
