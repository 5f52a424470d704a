//! Sums over all sites, and what is left out of them.

use tracer_ebpf::loss::{LossCause, LossCount};

use super::Session;
use crate::leak::collect::Cutoff;
use crate::report::model::{TimelinePoint, Totals};

impl Session {
    /// Sums over all sites now.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            untraced_frees: self.untraced_frees(),
            ..Totals::default()
        };
        for (_, site) in self.object.used_sites() {
            if self.images.index_of(site.image).is_none() {
                continue;
            }
            totals.live_bytes += site.live_bytes();
            totals.live_count += site.live_count();
            totals.allocated_bytes += site.allocated_bytes;
            totals.allocated_count += site.allocated_count;
            totals.freed_bytes += site.freed_bytes;
            totals.freed_count += site.freed_count;
        }
        for (_, sums) in self.images.iter().flat_map(|image| image.ledger.sums()) {
            totals.live_bytes += sums.allocated_bytes - sums.freed_bytes;
            totals.live_count += sums.allocated_count - sums.freed_count;
            totals.allocated_bytes += sums.allocated_bytes;
            totals.allocated_count += sums.allocated_count;
            totals.freed_bytes += sums.freed_bytes;
            totals.freed_count += sums.freed_count;
        }
        totals
    }

    /// How many call paths there are, and how many events were lost.
    pub fn sites_and_losses(&self) -> (usize, u64) {
        let lost: u64 = self
            .object
            .losses
            .iter()
            .map(|(_, count)| count.events)
            .sum();
        (
            self.object.used_sites().count(),
            lost + self.losses.code_events
                + self.losses.left_alone
                + self.losses.withdrawn
                + self.orphans.len() as u64,
        )
    }

    /// Remembers the totals of this moment.
    pub fn mark(&mut self) {
        let point = TimelinePoint {
            at: self.elapsed(),
            totals: self.totals(),
        };
        self.timeline.push(point);
    }

    /// Which blocks count at an image's end. `--survived` is about virtual
    /// machines; of other processes it leaves nothing out.
    pub(super) fn cutoff(&self, image: u64, end: u64) -> Cutoff {
        let age = u64::try_from(self.options.older_than.as_nanos()).unwrap_or(u64::MAX);
        let mut cutoff = Cutoff {
            born_by: end.saturating_sub(age),
            asked: age > 0,
        };
        if self.options.survived > 0
            && let Some(machine) = self.machines.get(image)
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
                self.object.losses.get(cause as u32).unwrap_or_default(),
            )
        })
    }
}
