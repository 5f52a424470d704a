//! What a tracer takes beside its target, by the kernel's account.

use std::fs;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bench::service::{TICKS, descendants, ticks};

/// What a tracer takes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::bench) struct Beside {
    /// Its own processor time, seconds a second.
    pub(in crate::bench) processor: f64,
    /// Its resident memory at the end, bytes.
    pub(in crate::bench) resident: u64,
    /// Of the kernel's memory for it, bytes.
    pub(in crate::bench) kernel: u64,
}

impl Beside {
    pub(super) fn with_kernel(self, report: &Value) -> Self {
        Self {
            kernel: report["overhead"]["kernel_bytes"].as_u64().unwrap_or(0),
            ..self
        }
    }
}

/// Processes that are watched for a time.
pub(in crate::bench) struct Watch {
    pids: Vec<String>,
    before: u64,
    begin: Instant,
}

impl Watch {
    /// Watches a process and its descendants from now on, without the service among them
    /// and those that come from it.
    pub(in crate::bench) fn begin(root: &str, service: Option<String>) -> Self {
        let own = service.map_or_else(Vec::new, |pid| descendants(&pid));
        let mut pids = descendants(root);
        pids.retain(|pid| !own.contains(pid));
        Self {
            before: spent(&pids),
            pids,
            begin: Instant::now(),
        }
    }

    /// # Errors
    /// Fails if one of them has ended.
    pub(in crate::bench) fn end(self) -> Result<Beside> {
        let all_run = self.pids.iter().all(|pid| ticks(pid).is_some());
        ensure!(all_run, "the tracer ended while the load ran");
        let ticks = spent(&self.pids) - self.before;
        let resident = self.pids.iter().filter_map(|pid| resident(pid)).sum();
        Ok(Beside {
            processor: ticks as f64 / TICKS / self.begin.elapsed().as_secs_f64(),
            resident,
            kernel: 0,
        })
    }
}

fn spent(pids: &[String]) -> u64 {
    pids.iter().filter_map(|pid| ticks(pid)).sum()
}

/// Resident memory of a process, bytes.
fn resident(pid: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_watched_takes_something() {
        let own = std::process::id().to_string();
        let watch = Watch::begin(&own, None);
        let begin = Instant::now();
        while begin.elapsed().as_millis() < 50 {}
        let beside = watch.end().unwrap();
        assert!(
            beside.processor > 0.0 && beside.resident > 1 << 20,
            "{beside:?}"
        );
        // The service is none of it.
        assert!(Watch::begin(&own, Some(own.clone())).pids.is_empty());
        let gone = Watch {
            pids: vec!["0".into()],
            before: 0,
            begin,
        };
        assert!(gone.end().is_err());
    }
}
