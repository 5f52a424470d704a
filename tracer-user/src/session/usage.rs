//! What the targets use: processor time, pages, and memory.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Session;
use crate::process::processor_time::cpu_time;
use crate::process::vitals::Vitals;

/// What targets have used since the run began. What a process used after the last look at
/// it, before it ended, is not in it.
#[derive(Debug, Default)]
pub(super) struct Usage {
    processes: HashMap<u32, Used>,
    /// Processor time, seconds.
    pub(super) seconds: f64,
    /// Page faults.
    pub(super) all_faults: u64,
}

/// What one process had used when it was looked at last. Before that nothing counts: of a
/// process that was there before the run only what it uses from then on.
#[derive(Debug)]
struct Used {
    vitals: Vitals,
    time: Option<Duration>,
    faults: Option<u64>,
}

impl Used {
    fn of(pid: u32) -> Option<Self> {
        Some(Self {
            vitals: Vitals::of(pid).ok()?,
            time: None,
            faults: None,
        })
    }
}

impl Usage {
    /// The processes with these ids now, of which the others are forgotten.
    fn look(&mut self, pids: Vec<u32>) -> impl Iterator<Item = (u32, &mut Used)> {
        let running: HashSet<u32> = pids.iter().copied().collect();
        // An id may be that of another process meanwhile.
        let is_there = |used: &Used| used.vitals.resident().is_some();
        self.processes
            .retain(|pid, used| running.contains(pid) && is_there(used));
        for pid in pids {
            if let Entry::Vacant(place) = self.processes.entry(pid)
                && let Some(used) = Used::of(pid)
            {
                place.insert(used);
            }
        }
        self.processes.iter_mut().map(|(pid, used)| (*pid, used))
    }
}

impl Session {
    fn running_pids(&self) -> Vec<u32> {
        self.running_images().map(|image| image.pid).collect()
    }

    /// Processor time that the targets have used until now, seconds.
    pub(super) fn processor_time(&mut self) -> f64 {
        let pids = self.running_pids();
        let mut seconds = 0.0;
        for (pid, used) in self.usage.look(pids) {
            let Some(time) = cpu_time(pid) else {
                continue;
            };
            let before = used.time.replace(time).unwrap_or(time);
            seconds += time.saturating_sub(before).as_secs_f64();
        }
        self.usage.seconds += seconds;
        self.usage.seconds
    }

    /// Page faults that the targets have had until now, by the kernel's own count.
    pub(super) fn faults_of_targets(&mut self) -> u64 {
        let pids = self.running_pids();
        let mut all = 0;
        for (_, used) in self.usage.look(pids) {
            let Some(faults) = used.vitals.page_faults() else {
                continue;
            };
            let before = used.faults.replace(faults).unwrap_or(faults);
            all += faults.saturating_sub(before);
        }
        self.usage.all_faults += all;
        self.usage.all_faults
    }

    /// What the targets have in memory, bytes.
    pub(super) fn resident_now(&mut self) -> u64 {
        let pids = self.running_pids();
        let all = self.usage.look(pids);
        all.filter_map(|(_, used)| used.vitals.resident()).sum()
    }
}
