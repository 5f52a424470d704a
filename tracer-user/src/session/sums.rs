//! Sums over all sites, and what is left out of them.

use tracer_ebpf::loss::{LossCause, LossCount};
use tracer_ebpf::site::SiteKind;

use super::Session;
use crate::model::{MemoryKind, TimelinePoint, Totals};
use crate::targets::images::is_own;
use crate::window::collect::{Counted, Cutoff};

impl Session {
    /// Sums over all sites now.
    pub fn totals(&self) -> Totals {
        let mut totals = self.unknown_frees();
        for (index, site) in self.engine.object.used_sites() {
            let is_beside = site.is(SiteKind::Page) && !self.options.growth;
            if is_own(site.image) || is_beside {
                continue;
            }
            let site = Counted::of(&self.engine.object, index, &site);
            totals.count(site.allocated, site.freed, site.live);
        }
        let retired = self.retired.iter();
        for site in retired.filter(|site| self.is_counted(site.kind)) {
            totals.count(site.allocated, site.freed, site.live);
        }
        let running = self.images.iter().flat_map(|image| image.ledger.sums());
        let groups = self.images.groups();
        let ended = groups.flat_map(|(_, group)| group.mappings());
        let ended = ended.map(|(site, ended)| (site, &ended.sums));
        for (_, sums) in running.chain(ended) {
            let allocated = (sums.allocated_count, sums.allocated_bytes);
            let freed = (sums.freed_count, sums.freed_bytes);
            let live = (allocated.0 - freed.0, allocated.1 - freed.1);
            totals.count(allocated, freed, live);
        }
        totals
    }

    /// Whether what is of a kind is part of the totals: pages are if nothing else is.
    pub(super) fn is_counted(&self, kind: MemoryKind) -> bool {
        kind.is_memory() && (kind != MemoryKind::Page || self.options.growth)
    }

    /// Frees of what is at no site.
    pub(super) fn unknown_frees(&self) -> Totals {
        let inherited = &self.engine.object.inherited_frees;
        Totals {
            untraced_frees: self.untraced_frees(),
            inherited_frees: inherited.get(0).unwrap_or(0),
            inherited_forgotten: inherited.get(1).unwrap_or(0) + self.images.forgotten,
            calls_from_elsewhere: self.engine.object.origins.calls_from_elsewhere(),
            ..Totals::default()
        }
    }

    /// How many call paths there are, and how many events were lost.
    pub fn sites_and_losses(&self) -> (usize, u64) {
        let lost: u64 = self
            .engine
            .object
            .losses
            .iter()
            .map(|(_, count)| count.events)
            .sum();
        (
            self.engine.object.used_sites().count(),
            lost + self.engine.losses.code_events
                + self.engine.losses.left_alone
                + self.engine.losses.withdrawn
                + self.engine.losses.taken_over
                + self.orphans.len() as u64,
        )
    }

    /// Remembers the totals of this moment; `last` if the run is over.
    pub fn mark(&mut self, last: bool) {
        let point = TimelinePoint {
            at: self.elapsed(),
            totals: self.totals(),
        };
        self.timeline.mark(point, last);
    }

    /// Which blocks count at an image's end. `--survived` is about virtual
    /// machines; of other processes it leaves nothing out.
    pub(super) fn cutoff(&self, image: u64, end: u64) -> Cutoff {
        let age = u64::try_from(self.options.older_than.as_nanos()).unwrap_or(u64::MAX);
        let mut cutoff = Cutoff {
            born_by: end.saturating_sub(age),
            asked: age > 0,
            end,
        };
        if self.options.survived > 0
            && let Some(machine) = self.java.machines.get(image)
        {
            let collections = &machine.events.collections;
            let born_by = collections.born_by(self.options.survived, end);
            cutoff.born_by = cutoff.born_by.min(born_by);
            cutoff.asked = true;
        }
        cutoff
    }

    /// Lost events by cause.
    pub(super) fn kernel_losses(&self) -> impl Iterator<Item = (LossCause, LossCount)> + '_ {
        LossCause::ALL.into_iter().map(|cause| {
            (
                cause,
                self.engine
                    .object
                    .losses
                    .get(cause as u32)
                    .unwrap_or_default(),
            )
        })
    }
}
