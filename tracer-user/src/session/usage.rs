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
    /// The sum of what each of the processes with these ids answers. One that does not is gone,
    /// and forgotten: its id may be another's by now.
    fn ask(&mut self, pids: Vec<u32>, one: impl Fn(u32, &mut Used) -> Option<u64>) -> u64 {
        let running: HashSet<u32> = pids.iter().copied().collect();
        for pid in pids {
            if let Entry::Vacant(place) = self.processes.entry(pid)
                && let Some(used) = Used::of(pid)
            {
                place.insert(used);
            }
        }
        let mut sum: u64 = 0;
        self.processes.retain(|pid, used| {
            let answer = match running.contains(pid) {
                true => one(*pid, used),
                false => None,
            };
            sum = sum.saturating_add(answer.unwrap_or(0));
            answer.is_some()
        });
        sum
    }
}

impl Session {
    fn running_pids(&self) -> Vec<u32> {
        self.running_images().map(|image| image.pid).collect()
    }

    /// Processor time that the targets have used until now, seconds.
    pub(super) fn processor_time(&mut self) -> f64 {
        let pids = self.running_pids();
        let new = self.usage.ask(pids, |pid, used| {
            used.vitals.resident()?;
            let time = cpu_time(pid)?;
            let before = used.time.replace(time).unwrap_or(time);
            u64::try_from(time.saturating_sub(before).as_nanos()).ok()
        });
        self.usage.seconds += Duration::from_nanos(new).as_secs_f64();
        self.usage.seconds
    }

    /// Page faults that the targets have had until now, by the kernel's own count.
    pub(super) fn faults_of_targets(&mut self) -> u64 {
        let pids = self.running_pids();
        self.usage.all_faults += self.usage.ask(pids, |_, used| {
            let faults = used.vitals.page_faults()?;
            let before = used.faults.replace(faults).unwrap_or(faults);
            Some(faults.saturating_sub(before))
        });
        self.usage.all_faults
    }

    /// What the targets have in memory, bytes.
    pub(super) fn resident_now(&mut self) -> u64 {
        let pids = self.running_pids();
        self.usage.ask(pids, |_, used| used.vitals.resident())
    }
}
