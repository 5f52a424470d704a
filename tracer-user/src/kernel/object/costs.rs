//! What hits of probes cost; see [`tracer_ebpf::hits`].

use std::os::fd::AsFd;

use anyhow::Result;
use aya::maps::PerCpuValues;
use aya::util::nr_cpus;
use tracer_ebpf::hits::{Cost, KINDS};
use tracer_ebpf::thread::InFlight;

use super::Object;
use crate::kernel::batch;

/// Looks at the hits, at most, until two in a row find the same sums.
const LOOKS: u32 = 5;

impl Object {
    /// All hits until now, by [`tracer_ebpf::hits::Kind`]. While nothing counts they are exact; else a few
    /// of threads that end at this moment may be counted twice or not.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn costs(&self) -> Result<[Cost; KINDS]> {
        let mut before = self.handed_over();
        for look in 1.. {
            let pending = self.pending()?;
            let mut costs = self.handed_over();
            // What was pending when a thread ended is in the sums from then on.
            let is_same = before.map(|cost| cost.hits) == costs.map(|cost| cost.hits);
            if is_same || self.is_active || look == LOOKS {
                for (cost, pending) in costs.iter_mut().zip(pending) {
                    cost.hits += pending;
                }
                return Ok(costs);
            }
            before = costs;
        }
        Ok(before)
    }

    /// Hits that ended before anybody asked whose they were, by kind.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn in_passing(&self) -> Result<[u64; KINDS]> {
        let mut hits = [0; KINDS];
        for (kind, sum) in (0..).zip(&mut hits) {
            *sum = self.in_passing.get(&kind, 0)?.iter().sum();
        }
        Ok(hits)
    }

    /// Forgets those, and calls from elsewhere. To be called while nothing counts.
    ///
    /// # Errors
    /// Fails when the kernel does.
    pub fn forget_in_passing(&mut self) -> Result<()> {
        self.origins.forget_calls()?;
        for kind in 0..self.in_passing.len() {
            let none = vec![0; nr_cpus().map_err(|(_, error)| error)?];
            self.in_passing
                .set(kind, PerCpuValues::try_from(none)?, 0)?;
        }
        Ok(())
    }

    /// Hits that are pending in threads' records.
    fn pending(&self) -> Result<[u64; KINDS]> {
        let mut pending = [0; KINDS];
        batch::for_each(self.threads.fd().as_fd(), |_: u64, thread: InFlight| {
            for (sum, counter) in pending.iter_mut().zip(thread.hits) {
                *sum += u64::from(counter.pending());
            }
        })?;
        Ok(pending)
    }

    /// All hits but those that are pending in threads' records.
    pub fn handed_over(&self) -> [Cost; KINDS] {
        std::array::from_fn(|kind| {
            let index = u32::try_from(kind).unwrap_or(u32::MAX);
            self.costs.get(index).unwrap_or_default()
        })
    }

    /// Has one of so many hits timed, or with `None` one in 64 on average. To be called
    /// while nothing counts.
    pub fn time_one_of(&mut self, every: Option<u32>) {
        self.change_costs(|cost| cost.every = u64::from(every.unwrap_or(0)));
    }

    /// Does not believe times of hits that are longer, nanoseconds. To be called while
    /// nothing counts.
    pub fn limit_times(&mut self, limit: u64) {
        self.change_costs(|cost| cost.limit = limit);
    }

    fn change_costs(&mut self, change: impl Fn(&mut Cost)) {
        for index in 0..self.costs.len() {
            if let Some(mut cost) = self.costs.get(index) {
                change(&mut cost);
                self.costs.set(index, cost);
            }
        }
    }
}
