//! The tracer at a moment.

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

fn resident(pid: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kibibytes.context("no VmRSS")?.parse::<u64>()? << 10)
}
