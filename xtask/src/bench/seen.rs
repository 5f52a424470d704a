//! How deep the measured stacks really are, by the report of a run that
//! counts: checked before anything is timed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::stacks::{FRAMES, SHALLOWEST};
use super::target::Target;
use super::tracer::{LIFETIME, Tracer};
use crate::build::target_dir;

/// Pairs from each depth: by their number the sites are told from others.
pub(super) const PAIRS: u64 = 1009;

/// Checks that the target's stacks have [`FRAMES`] and are whole.
///
/// # Returns
/// How far behind `malloc`'s first byte its probe is.
///
/// # Errors
/// Fails if they are not, or nothing can be traced.
pub(super) fn check(unfreed: &Path, program: &Path) -> Result<u64> {
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join("seen.json");
    let mut target = Target::start_fixed(program)?;
    let output = [Path::new("-o"), file.as_path()];
    let tracer = Tracer::unfreed(unfreed, target.pid(), LIFETIME, output)?;
    for frames in FRAMES {
        target.time(PAIRS, frames - SHALLOWEST)?;
    }
    drop(target);
    let said = tracer.rest()?;
    let text = fs::read_to_string(&file).with_context(|| format!("no report:\n{said}"))?;
    let report: Value = serde_json::from_str(&text).context("the report is no JSON")?;
    let seen = frames(&report);
    ensure!(
        seen == FRAMES,
        "{} has whole stacks of {seen:?} frames instead of {FRAMES:?}",
        program.display()
    );
    displacement(&report).context("malloc was not probed")
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
