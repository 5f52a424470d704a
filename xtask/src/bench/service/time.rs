//! Processor time of processes, by the kernel's account.

use std::fs;

use anyhow::{Context, Result};

/// Ticks of the clock of `/proc/PID/stat` in a second (`USER_HZ`).
pub(in crate::bench) const TICKS: f64 = 100.0;

/// A process and its descendants, parents first.
pub(in crate::bench) fn descendants(pid: &str) -> Vec<String> {
    let mut all = vec![pid.to_owned()];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        let more = children(pid).unwrap_or_default();
        all.extend(more);
        next += 1;
    }
    all
}

pub(super) fn children(pid: &str) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Processor time of a process, of its children that it has waited for, and of those
/// that run; seconds.
pub(super) fn family(pid: &str) -> Result<f64> {
    let own = ticks(pid).with_context(|| format!("process {pid} is gone"))?;
    let children = children(pid)?;
    let theirs = children
        .iter()
        .filter_map(|child| ticks(child))
        .sum::<u64>();
    Ok((own + theirs) as f64 / TICKS)
}

/// `utime`, `stime`, `cutime` and `cstime` of `/proc/PID/stat` (proc(5)).
pub(in crate::bench) fn ticks(pid: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields = fields.split(' ').skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_time_of_a_process_is_read() {
        let pid = std::process::id().to_string();
        let before = family(&pid).unwrap();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) && family(&pid).unwrap() <= before {}
        assert!(family(&pid).unwrap() > before);
        assert!(family("0").is_err());
        assert_eq!(descendants(&pid)[0], pid);
    }
}
