//! Looking at a run while it goes on: its report is written anew at each interval.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use super::model::{Frame, Report};

/// How long a report may take, seconds.
pub(super) const LATE: u64 = 30;

/// A report is of a look's time if it is so near to it, seconds.
const NEAR: f64 = 1.5;

/// Reads each report as soon as it is there, until one is of so many seconds; `read` also
/// says of how many one is.
///
/// # Errors
/// Fails if none comes, or one cannot be read.
pub(super) fn each<T>(
    file: &Path,
    last: u64,
    mut read: impl FnMut(&Path) -> Result<(f64, T)>,
) -> Result<Vec<(f64, T)>> {
    let begin = Instant::now();
    let mut found: Vec<(f64, T)> = Vec::new();
    let mut seen = None;
    while found
        .last()
        .is_none_or(|(duration, _)| duration + 0.5 < last as f64)
    {
        let late = begin.elapsed() > Duration::from_secs(last + LATE);
        ensure!(!late, "it has told nothing of its {last} s for {LATE} s");
        std::thread::sleep(Duration::from_millis(50));
        let written = written(file);
        if written.is_some() && written != seen {
            seen = written;
            found.push(read(file)?);
        }
    }
    Ok(found)
}

/// The one of the time that is nearest to so many seconds, if it is near.
pub(super) fn nearest<T>(all: &[T], seconds: u64, time: impl Fn(&T) -> f64) -> Option<&T> {
    let distance = |one: &T| (time(one) - seconds as f64).abs();
    let nearest = all
        .iter()
        .min_by(|a, b| distance(a).total_cmp(&distance(b)));
    nearest.filter(|one| is_near(time(one), seconds))
}

/// Whether a report of so many seconds is of this look.
pub(super) fn is_near(duration: f64, seconds: u64) -> bool {
    (duration - seconds as f64).abs() < NEAR
}

fn written(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).ok()?.modified().ok()
}

/// The interval at which all looks have a report, seconds.
pub(super) fn interval(seconds: &[u64]) -> u64 {
    seconds.iter().copied().fold(0, gcd)
}

/// The greatest number that divides both.
const fn gcd(one: u64, other: u64) -> u64 {
    match other {
        0 => one,
        _ => gcd(other, one % other),
    }
}

/// Reads a report.
///
/// # Errors
/// Fails if it is none.
pub(super) fn read(file: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(file).context("there is no report")?;
    serde_json::from_str(&text).context("the report is no report")
}

/// When a run began, seconds since 1970.
///
/// # Errors
/// Fails if the report does not say it.
pub(super) fn began(report: &Report) -> Result<f64> {
    let began = humantime::parse_rfc3339(&report.started).context("the run has no begin")?;
    Ok(began.duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// Whether a frame is of this function.
pub(super) fn names(frame: &Frame, function: &str) -> bool {
    let name = frame.function.as_deref();
    name.is_some_and(|name| is_of(name, function))
}

/// Whether a name is this function's: longer ones may be a part of it.
pub(super) fn is_of(name: &str, function: &str) -> bool {
    name == function || (function.len() > 4 && name.contains(function))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_at_each_look() {
        assert_eq!(interval(&[10, 60, 300]), 10);
        assert_eq!(interval(&[4, 6]), 2);
        let times = [10.01, 20.0, 40.2];
        assert_eq!(nearest(&times, 40, |it| *it), Some(&40.2));
        assert_eq!(nearest(&times, 30, |it| *it), None);
    }
}
