//! What the targets use: processor time, pages, and memory.

use std::collections::HashMap;
use std::time::Duration;

use super::Session;
use crate::process::processor_time::cpu_time;
use crate::process::vitals::{page_faults, resident};

/// What targets have used since the run began. What a process used after the last look at
/// it, before it ended, is not in it.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// What each process had used when it was looked at last.
    times: HashMap<u32, Duration>,
    /// How many page faults it had had.
    faults: HashMap<u32, u64>,
    /// Processor time, seconds.
    pub(super) seconds: f64,
    /// Page faults.
    pub(super) all_faults: u64,
}

impl Session {
    fn running_pids(&self) -> Vec<u32> {
        self.running_images().map(|image| image.pid).collect()
    }

    /// Processor time that the targets have used until now, seconds.
    pub(super) fn processor_time(&mut self) -> f64 {
        let pids = self.running_pids();
        let usage = &mut self.usage;
        for pid in &pids {
            let Some(time) = cpu_time(*pid) else {
                continue;
            };
            // Of a process that was there before the run only what it uses from now on.
            let before = usage.times.insert(*pid, time).unwrap_or(time);
            usage.seconds += time.saturating_sub(before).as_secs_f64();
        }
        usage.times.retain(|pid, _| pids.contains(pid));
        usage.seconds
    }

    /// Page faults that the targets have had until now, by the kernel's own count.
    pub(super) fn faults_of_targets(&mut self) -> u64 {
        let pids = self.running_pids();
        let usage = &mut self.usage;
        for pid in &pids {
            let Some(faults) = page_faults(*pid) else {
                continue;
            };
            let before = usage.faults.insert(*pid, faults).unwrap_or(faults);
            usage.all_faults += faults.saturating_sub(before);
        }
        usage.faults.retain(|pid, _| pids.contains(pid));
        usage.all_faults
    }

    /// What the targets have in memory, bytes.
    pub(super) fn resident_now(&self) -> u64 {
        let all = self.running_images();
        all.filter_map(|image| resident(image.pid)).sum()
    }
}
