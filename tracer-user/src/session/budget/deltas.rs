//! What was counted at each site since the last look.

use std::collections::HashMap;

use anyhow::Result;
use tracer_ebpf::site::{SiteKey, SiteKind};

use super::super::Session;
use crate::duty::{Late, Seen, Spell};
use crate::kernel::object::Object;
use crate::process::clock::monotonic_ns;
use crate::targets::estimate::Estimate;

/// The kernel's sums of each site, as they were read last.
#[derive(Default)]
pub(super) struct Deltas {
    sums: HashMap<u32, (SiteKey, Sums)>,
    /// What is new of sites since the spell began, whose places may be others' by now.
    pending: HashMap<SiteKey, Sums>,
}

/// Sums that only grow.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    allocated: Estimate,
    /// Those that were freed, or could not be followed.
    freed: Estimate,
    counts: (u64, u64),
}

impl Sums {
    fn of(object: &Object, index: u32) -> Option<(SiteKey, Self)> {
        let site = object.sites.get(index)?;
        let sampled = object.sampled.as_ref()?.get(index)?;
        if !site.is(SiteKind::Memory) {
            return None;
        }
        let of = |sums| Estimate::of_sums(sums, &object.sampling);
        let mut freed = of(&sampled.freed);
        freed.add(&of(&sampled.untracked));
        let sums = Self {
            allocated: of(&sampled.allocated),
            freed,
            counts: (
                site.allocated_count,
                site.freed_count + site.untracked_count,
            ),
        };
        Some((site.key, sums))
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            allocated: self.allocated.without(&before.allocated),
            freed: self.freed.without(&before.freed),
            counts: (
                self.counts.0 - before.counts.0.min(self.counts.0),
                self.counts.1 - before.counts.1.min(self.counts.1),
            ),
        }
    }

    fn add(&mut self, other: &Self) {
        self.allocated.add(&other.allocated);
        self.freed.add(&other.freed);
        self.counts.0 += other.counts.0;
        self.counts.1 += other.counts.1;
    }
}

impl Deltas {
    /// Reads all sites.
    fn read(&mut self, object: &Object) {
        for (index, head) in object.site_heads() {
            let Some((key, sums)) = Sums::of(object, index) else {
                continue;
            };
            let known = self.sums.get(&index).filter(|(known, _)| *known == key);
            let before = known.map_or(Sums::default(), |(_, sums)| *sums);
            if sums.counts != before.counts {
                let new = sums.since(&before);
                self.pending.entry(head.key).or_default().add(&new);
                self.sums.insert(index, (key, sums));
            }
        }
    }
}

impl Session {
    /// Notes what is new at sites, before their places are given to others.
    pub(in crate::session) fn note_sites(&mut self) {
        if let Some(budget) = &mut self.budget {
            budget.deltas.read(&self.engine.object);
        }
    }

    /// Notes what was seen in a spell that has ended.
    pub(in crate::session) fn note_spell(&mut self, spell: Spell) {
        self.note_sites();
        let deaths = self.engine.object.deaths();
        let Some(budget) = &mut self.budget else {
            return;
        };
        let standing = budget.duty.schedule.add(spell);
        let mut pending = std::mem::take(&mut budget.deltas.pending);
        for death in deaths {
            let Some((key, _)) = budget.deltas.sums.get(&death.site) else {
                continue;
            };
            let key = *key;
            let is_certain = death.certain != 0;
            let block = Estimate::of_block(death.size, is_certain, &self.engine.object.sampling);
            // They are among those that were freed, but not of this spell's.
            if let Some(sums) = pending.get_mut(&key) {
                sums.freed = sums.freed.without(&block);
                sums.counts.1 = sums.counts.1.saturating_sub(1);
            }
            let spell = budget.duty.schedule.find(death.born);
            let late = spell.filter(|_| death.unseen == 0).map(|spell| Late {
                block,
                spell,
                age: death.died.saturating_sub(death.born),
            });
            budget.duty.lose(key, late.as_ref(), standing);
        }
        for (key, sums) in pending {
            let seen = Seen {
                allocated: sums.allocated,
                freed: sums.freed,
                samples: sums.counts.0,
                kept: sums.counts.0.saturating_sub(sums.counts.1),
            };
            budget.duty.see(key, &seen, standing);
        }
    }

    /// Lets the oldest blocks go when half of the room for live ones is used: most have died
    /// unseen since. What was allocated in a spell is let go as a whole.
    pub(super) fn make_room_for_blocks(&mut self) -> Result<()> {
        let room = u64::from(self.options.sizes.live) / 2;
        let Some(budget) = &mut self.budget else {
            return Ok(());
        };
        if budget.duty.followed() < room {
            return Ok(());
        }
        let schedule = &mut budget.duty.schedule;
        let mut by_spell = vec![0_u64; schedule.spells().len()];
        self.engine.object.for_each_block(|_, block| {
            let spell = schedule.find(block.time);
            if let Some(count) = spell.and_then(|spell| by_spell.get_mut(spell)) {
                *count += 1;
            }
        })?;
        let mut left: u64 = by_spell.iter().sum();
        let mut keep = 0;
        while left > room / 2 && keep + 1 < by_spell.len() {
            left -= by_spell[keep];
            keep += 1;
        }
        if keep > 0 {
            let before = schedule.spells()[keep].began;
            self.engine.object.let_go(before)?;
            schedule.let_go(before, monotonic_ns());
        }
        budget.duty.recount(left);
        Ok(())
    }
}
