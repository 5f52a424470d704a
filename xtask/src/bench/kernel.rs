//! How many frames the kernel's own walk finds in the measured stacks:
//! bpftrace's `ustack` is `bpf_get_stackid`.

use std::path::Path;

use anyhow::{Context, Result};

use super::seen::PAIRS;
use super::stacks::{FRAMES, SHALLOWEST};
use super::target::Target;
use super::tracer::Tracer;

/// The frames that the kernel finds of each of [`FRAMES`], seen from where
/// `unfreed` probes malloc.
///
/// # Errors
/// Fails if bpftrace does, or prints no such stack.
pub(super) fn frames(program: &Path, displacement: u64) -> Result<[usize; FRAMES.len()]> {
    let mut watched = Vec::new();
    for _ in FRAMES {
        let target = Target::start_fixed(program)?;
        let tracer = Tracer::bpftrace(target.pid(), &script(target.pid(), displacement))?;
        watched.push((target, tracer));
    }
    let mut found = [0; FRAMES.len()];
    for ((frames, found), (mut target, tracer)) in FRAMES.iter().zip(&mut found).zip(watched) {
        target.wait_for_probes()?;
        target.time(PAIRS, frames - SHALLOWEST)?;
        drop(target);
        let said = tracer.rest()?;
        *found = depth(&said, PAIRS).with_context(|| format!("no stack in:\n{said}"))?;
    }
    Ok(found)
}

/// Counts malloc's stacks, but those of [`Target::wait_for_probes`], from
/// which malloc is called too.
fn script(pid: &str, displacement: u64) -> String {
    let malloc = match displacement {
        0 => "malloc".to_owned(),
        bytes => format!("malloc+{bytes}"),
    };
    format!("uprobe:libc:{malloc} /pid == {pid}/ {{ @[ustack(127)] = count() }}")
}

/// The frames of the stack that occurs exactly so often; of the most frequent
/// one if none does, for stacks that end early are the same from any depth.
fn depth(printed: &str, count: u64) -> Option<usize> {
    let stacks = printed.split("@[").skip(1).filter_map(|stack| {
        let (frames, rest) = stack.split_once("]: ")?;
        let times: u64 = rest.lines().next()?.trim().parse().ok()?;
        let frames = frames.lines().filter(|line| !line.trim().is_empty());
        Some((times == count, times, frames.count()))
    });
    let (_, times, frames) = stacks.max()?;
    (times >= count).then_some(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Attaching 2 probes...\n\n@[\n    malloc+0\n]: 1300\n\
        @[\n    malloc+0\n    pairs+30\n    0x7ff\n]: 1009\n@[\n]: 1\n";

    #[test]
    fn the_stack_with_the_count_is_found() {
        assert_eq!(depth(PRINTED, 1009), Some(3));
        assert_eq!(depth(PRINTED, 1008), Some(1));
        assert_eq!(depth(PRINTED, 1301), None);
        assert_eq!(depth("", 1), None);
    }

    #[test]
    fn the_probe_is_where_ours_is() {
        assert!(script("7", 0).starts_with("uprobe:libc:malloc /pid == 7/"));
        assert!(script("7", 3).starts_with("uprobe:libc:malloc+3 /pid == 7/"));
    }
}
