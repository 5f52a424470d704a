//! The tracer at a moment.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::watcher::Watcher;
use crate::bench::service::{TICKS, ticks};

/// What is read of it.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Bytes in memory.
    pub(super) resident: u64,
    /// Processor time, seconds, by the kernel's account.
    pub(super) seconds: f64,
    /// Open descriptors.
    pub(super) descriptors: usize,
    /// Visitors that are there.
    pub(super) alive: usize,
    /// What it says of itself.
    pub(super) tracer: Value,
}

impl Sample {
    /// Takes one.
    ///
    /// # Errors
    /// Fails if it has ended.
    pub(super) fn take(watcher: &Watcher, alive: usize) -> Result<Self> {
        let pid = watcher.pid();
        let services = watcher.services()?;
        Ok(Self {
            resident: resident(pid)?,
            seconds: ticks(pid).context("the tracer has ended")? as f64 / TICKS,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            alive,
            tracer: services["tracer"].clone(),
        })
    }
}

/// The processor time of each of its threads that took any, seconds, by name; those of one name
/// are added up.
///
/// # Errors
/// Fails if it has ended.
pub(super) fn threads(pid: &str) -> Result<BTreeMap<String, f64>> {
    let mut threads = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let number = thread?.file_name();
        let thread = format!("{pid}/task/{}", number.display());
        // One may end meanwhile.
        let name = fs::read_to_string(format!("/proc/{thread}/comm"));
        if let (Ok(name), Some(spent)) = (name, ticks(&thread))
            && spent > 0
        {
            *threads.entry(name.trim().to_owned()).or_default() += spent as f64 / TICKS;
        }
    }
    Ok(threads)
}

fn resident(pid: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kibibytes.context("no VmRSS")?.parse::<u64>()? << 10)
}
