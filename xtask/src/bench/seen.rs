//! How deep the measured stacks really are, by the report of a run that
//! counts: checked before anything is timed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::stacks::{FRAMES, Subject};
use super::tracer::{LIFETIME, Tracer};
use crate::build::target_dir;

/// Pairs from each depth: by their number the sites are told from others.
pub(super) const PAIRS: u64 = 1009;

/// What a run that counts has seen of a target.
pub(super) struct Seen {
    /// The frames of its stacks, ascending.
    pub(super) frames: [usize; FRAMES.len()],
    /// How far behind `malloc`'s first byte its probe is.
    pub(super) displacement: u64,
}

/// Looks at the target's stacks from each depth.
///
/// # Errors
/// Fails if they are not whole, or nothing can be traced.
pub(super) fn look(unfreed: &Path, subject: &Subject<'_>) -> Result<Seen> {
    let file = new_file("seen.json")?;
    let mut target = (subject.start)()?;
    let output = [Path::new("-o"), file.as_path()];
    let tracer = Tracer::unfreed(unfreed, target.pid(), LIFETIME, output)?;
    for deeper in subject.deeper {
        target.time(PAIRS, deeper)?;
    }
    drop(target);
    let report = report(tracer, &file)?;
    let frames = frames(&report);
    Ok(Seen {
        frames: frames
            .as_slice()
            .try_into()
            .with_context(|| format!("its whole stacks have {frames:?} frames"))?,
        displacement: displacement(&report).context("malloc was not probed")?,
    })
}

/// A file for a report, which is not there yet.
///
/// # Errors
/// Fails if its folder cannot be made, or the file not be removed.
pub(super) fn new_file(name: &str) -> Result<PathBuf> {
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join(name);
    if file.exists() {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(file)
}

/// Waits for the tracer's end, and reads the report that it wrote.
///
/// # Errors
/// Fails if it does not end, or wrote none.
pub(super) fn report(tracer: Tracer, file: &Path) -> Result<Value> {
    let said = tracer.rest()?;
    read(file).with_context(|| format!("the tracer said:\n{said}"))
}

/// Reads a report.
///
/// # Errors
/// Fails if there is none.
pub(super) fn read(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).context("there is no report")?;
    serde_json::from_str(&text).context("the report is no JSON")
}

/// The frames of each whole stack that allocated [`PAIRS`] times, ascending.
/// Inlined functions are none of the machine's frames.
fn frames(report: &Value) -> Vec<usize> {
    let real = |site: &Value| {
        let frames = site["frames"].as_array()?;
        let is_real = |frame: &&Value| frame["inlined"] != true;
        Some(frames.iter().filter(is_real).count())
    };
    let mut seen: Vec<usize> = array(report, "sites")
        .filter(|site| site["allocated_count"] == PAIRS && site["stack_end"] == "start")
        .filter_map(real)
        .collect();
    seen.sort_unstable();
    seen
}

fn displacement(report: &Value) -> Option<u64> {
    let mut probes = array(report, "processes").flat_map(|process| array(process, "probes"));
    probes.find(|probe| probe["function"] == "malloc")?["displacement"].as_u64()
}

fn array<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_whole_stacks_of_the_pairs_count() {
        let site = |count: u64, end: &str| {
            json!({
                "allocated_count": count,
                "stack_end": end,
                "frames": [{"inlined": false}, {"inlined": true}, {"inlined": false}],
            })
        };
        let report = json!({
            "sites": [site(PAIRS, "start"), site(PAIRS, "no_row"), site(1, "start")],
            "processes": [{"probes": [
                {"function": "free", "displacement": 9},
                {"function": "malloc", "displacement": 4},
            ]}],
        });
        assert_eq!(frames(&report), [2]);
        assert_eq!(displacement(&report), Some(4));
        assert_eq!(frames(&json!({})), [0usize; 0]);
        assert_eq!(displacement(&json!({})), None);
    }
}
