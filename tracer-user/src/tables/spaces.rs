//! Address spaces in the kernel: numbers and parts of the array of ranges.
//!
//! A program may be at work with whatever it can find through an image's
//! number. So nothing that was found once is changed: an address space that
//! changes gets another number and another part of the array. The old ones are
//! used again only when no image has the number and every program that may
//! have read it has ended.

use std::collections::HashSet;

use anyhow::{Context, Result, bail};
use tracer_ebpf::limits::{MAX_RANGES, MAX_RANGES_OF_ONE, MAX_SPACES};
use tracer_ebpf::table::{Range, Space};

use super::extents::{Extent, Extents};
use crate::kernel::tables::{TableMaps, wait_for_programs};

/// So many address spaces may be out of use before their room is reclaimed.
const MAX_RETIRED: usize = 1024;

/// An address space in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its number.
    pub number: u32,
    /// The number that the kernel side goes on with when code is replaced.
    pub spare: u32,
    /// Its ranges.
    pub extent: Extent,
}

/// Which numbers and ranges are in use.
pub struct Spaces {
    numbers: Vec<u32>,
    ranges: Extents,
    retired: Vec<Placed>,
}

impl Spaces {
    /// All are free, but number 0, which means none.
    pub fn new() -> Self {
        Self {
            numbers: (1..MAX_SPACES).rev().collect(),
            ranges: Extents::new(MAX_RANGES),
            retired: Vec::new(),
        }
    }

    /// Puts ranges, sorted by address, into the kernel, of a process whose JavaScript the
    /// file of number `v8` runs, or 0.
    ///
    /// # Errors
    /// Fails if there is no room, even after reclaiming.
    pub fn put(&mut self, maps: &mut TableMaps, ranges: &[Range], v8: u32) -> Result<Placed> {
        let len = u32::try_from(ranges.len())?;
        if len > MAX_RANGES_OF_ONE {
            bail!("more than {MAX_RANGES_OF_ONE} executable mappings");
        }
        if self.retired.len() > MAX_RETIRED || self.numbers.len() < 2 || self.ranges.room() < len {
            self.reclaim(maps);
        }
        let extent = self
            .ranges
            .take(len)
            .context("no room for more executable mappings")?;
        let (Some(number), Some(spare)) = (self.numbers.pop(), self.numbers.pop()) else {
            self.ranges.give(extent);
            bail!("no room for more address spaces");
        };
        for (index, range) in (extent.first..).zip(ranges) {
            maps.ranges.set(index, *range);
        }
        let space = Space {
            first: extent.first,
            len,
            spare,
            v8,
        };
        maps.spaces.set(number, space);
        maps.spaces.set(spare, Space { spare: 0, ..space });
        Ok(Placed {
            number,
            spare,
            extent,
        })
    }

    /// Takes back what the caller no longer gives to any image. Forked
    /// children may still have it.
    pub fn retire(&mut self, placed: Placed) {
        self.retired.push(placed);
    }

    /// Frees what no image has any more.
    fn reclaim(&mut self, maps: &mut TableMaps) {
        wait_for_programs();
        let reachable: HashSet<u32> = maps.reachable().map(|(_, number)| number).collect();
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.retired)
            .into_iter()
            .partition(|placed| {
                reachable.contains(&placed.number) || reachable.contains(&placed.spare)
            });
        self.retired = kept;
        let numbers: HashSet<u32> = gone
            .iter()
            .flat_map(|placed| [placed.number, placed.spare])
            .collect();
        maps.forget_cached(|number| numbers.contains(&number));
        for placed in gone {
            self.numbers.extend([placed.number, placed.spare]);
            self.ranges.give(placed.extent);
        }
    }
}
