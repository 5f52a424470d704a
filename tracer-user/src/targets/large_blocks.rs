//! Large blocks of a process's allocators, of which it matters how much is in memory: a pool asks
//! for 16 MiB at once, and fills them with what it gives away.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::resident::Resident;

/// A block of so many bytes is large.
pub const LARGE: u64 = 1 << 20;
/// Blocks that are looked at, at most: the first by their addresses.
const MOST: usize = 64;

/// One process image's large blocks.
#[derive(Debug, Clone, Default)]
pub struct LargeBlocks {
    /// Their ends and sites, by their addresses.
    blocks: BTreeMap<u64, (u64, u32)>,
    resident: HashMap<u32, Resident>,
}

impl LargeBlocks {
    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Nothing but these is live from now on.
    pub fn clear(&mut self) {
        self.blocks.clear();
    }

    /// Adds a live block: its address, its size in bytes and its site.
    pub fn add(&mut self, address: u64, size: u64, site: u32) {
        if self.blocks.len() < MOST {
            let end = address.saturating_add(size);
            self.blocks.insert(address, (end, site));
        }
    }

    /// Looks at what is in memory: `of` tells it of a range, or nothing if it cannot
    /// be told, which ends the look and keeps what was known.
    pub fn look(&mut self, mut of: impl FnMut(&Range<u64>) -> Option<u64>) {
        let mut found: HashMap<u32, u64> = HashMap::new();
        for (start, (end, site)) in &self.blocks {
            let Some(bytes) = of(&(*start..*end)) else {
                return;
            };
            // Its first and last pages may be of others, too.
            *found.entry(*site).or_default() += bytes.min(end - start);
        }
        Resident::enter(&mut self.resident, &found);
    }

    /// What was in memory of each site's at the last look.
    pub fn resident(&self) -> impl Iterator<Item = (u32, Resident)> + '_ {
        self.resident.iter().map(|(site, it)| (*site, *it))
    }

    /// Forgets sites, whose indices others will have.
    pub fn forget_sites(&mut self, is_it: impl Fn(u32) -> bool) {
        self.blocks.retain(|_, (_, site)| !is_it(*site));
        self.resident.retain(|site, _| !is_it(*site));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fills_rises_at_each_look() {
        let mut blocks = LargeBlocks::default();
        blocks.add(0x1000_0000, 16 << 20, 7);
        blocks.add(0x3000_0000, 2 << 20, 8);
        for touched in 1..=5_u64 {
            blocks.look(|range| Some((touched << 20).min(range.end - range.start)));
        }
        // A look that cannot be made changes nothing.
        blocks.look(|range| (range.start < 0x3000_0000).then_some(9));
        let of = |site: u32| blocks.resident().find(|(it, _)| *it == site).unwrap().1;
        let five = Resident {
            now: 5 << 20,
            peak: 5 << 20,
            looks: 5,
            rises: 5,
        };
        assert_eq!(of(7), five);
        assert_eq!((of(8).now, of(8).rises), (2 << 20, 2));
        // The first was freed.
        blocks.clear();
        blocks.add(0x3000_0000, 2 << 20, 8);
        blocks.look(|_| Some(1 << 20));
        let of = |site: u32| blocks.resident().find(|(it, _)| *it == site).unwrap().1;
        assert_eq!((of(7).now, of(7).peak), (0, 5 << 20));
        assert_eq!(of(8).now, 1 << 20);
        blocks.forget_sites(|site| site == 8);
        assert!(blocks.is_empty() && blocks.resident().count() == 1);
    }

    #[test]
    fn there_is_a_bound() {
        let mut blocks = LargeBlocks::default();
        (0..1000).for_each(|at| blocks.add(at << 24, LARGE, 1));
        let mut looks = 0;
        blocks.look(|_| {
            looks += 1;
            Some(0)
        });
        assert_eq!(looks, MOST);
    }
}
