//! Growth that goes in step: a request that keeps an object keeps its key, its entry in a
//! table and its value as well, each allocated somewhere else. That is one fault, and one
//! answer.

use crate::model::{CurvePoint, Finding, FindingKind, MemoryKind};

/// Looks that must have seen both.
const LOOKS: usize = 8;
/// Blocks that there must be at the end: few may be as many by chance.
const BLOCKS: u64 = 100;
/// ... and of threads' stacks, which come at times of their own.
const THREADS: u64 = 30;
/// A look takes its time, and the program runs on: so much of the blocks may differ.
const APART: u64 = 100;

/// A finding, and what was live of it over time.
pub struct Step {
    /// The finding.
    pub finding: Finding,
    /// Of what kind its blocks are.
    pub kind: MemoryKind,
    /// What was live of all its sites.
    pub curve: Vec<CurvePoint>,
}

impl Step {
    fn goes_with(&self, leader: &Self) -> bool {
        let has_stacks =
            self.kind == MemoryKind::ThreadStack || leader.kind == MemoryKind::ThreadStack;
        // What a thread allocates as long as it lives goes with its stack.
        let is_kind = self.kind == leader.kind
            || has_stacks && self.kind.is_memory() && leader.kind.is_memory();
        let alike = self.finding.process == leader.finding.process && is_kind;
        // A leak is not told beside what may be none.
        let kind = leader.finding.kind;
        let is_as_bad = kind == FindingKind::Leak || kind == self.finding.kind;
        let enough = if has_stacks { THREADS } else { BLOCKS };
        alike && is_as_bad && are_in_step(&self.curve, &leader.curve, enough)
    }
}

/// The findings, most important first, each of those that go in step with an earlier one
/// marked.
pub fn mark(mut steps: Vec<Step>) -> Vec<Finding> {
    steps.sort_by(|a, b| b.finding.weight().total_cmp(&a.finding.weight()));
    let mut leaders: Vec<usize> = Vec::new();
    for index in 0..steps.len() {
        let found = leaders
            .iter()
            .find(|leader| steps[index].goes_with(&steps[**leader]));
        match found {
            Some(leader) => {
                let first = steps[*leader].finding.sites.first().copied();
                steps[index].finding.in_step_with = first;
            }
            None => leaders.push(index),
        }
    }
    steps.into_iter().map(|step| step.finding).collect()
}

/// Whether there were as many blocks of both at each look, from the end on back to the
/// first look at either.
fn are_in_step(one: &[CurvePoint], other: &[CurvePoint], enough: u64) -> bool {
    let is_enough = |curve: &[CurvePoint]| {
        curve.len() >= LOOKS && curve.last().is_some_and(|last| last.live_count >= enough)
    };
    let both = one.iter().rev().zip(other.iter().rev());
    let close = |(one, other): (&CurvePoint, &CurvePoint)| {
        let apart = one.live_count.abs_diff(other.live_count);
        apart <= one.live_count.max(other.live_count) / APART + 1
    };
    is_enough(one) && is_enough(other) && both.into_iter().all(close)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Level;

    fn step(site: u64, rate: f64, counts: impl Iterator<Item = u64>) -> Step {
        let level = |live_count| Level {
            live_bytes: 8 * live_count,
            live_count,
            allocated_count: live_count,
        };
        let curve = counts.zip(1..);
        Step {
            finding: Finding {
                sites: vec![site],
                bytes_per_second: rate,
                ..Finding::new(FindingKind::Leak, 0, 0.9)
            },
            kind: MemoryKind::Heap,
            curve: curve
                .map(|(count, at)| CurvePoint::new(f64::from(at), level(count)))
                .collect(),
        }
    }

    fn with(steps: Vec<Step>) -> Vec<(u64, Option<u64>)> {
        let findings = mark(steps).into_iter();
        findings.map(|it| (it.sites[0], it.in_step_with)).collect()
    }

    #[test]
    fn what_comes_block_for_block_goes_with_the_heaviest() {
        let counts = || (1..=20).map(|look| look * 701);
        let steps = vec![
            step(1, 10.0, counts().map(|it| it + it / 200)),
            step(2, 90.0, counts()),
            step(3, 50.0, (1..=20).map(|look| look * 720)),
            step(4, 7.0, counts().map(|it| it / 2)),
        ];
        assert_eq!(with(steps), [(2, None), (3, None), (1, Some(2)), (4, None)]);
    }

    #[test]
    fn few_blocks_or_looks_say_nothing() {
        let few = || (1..=20).map(|look| look * 4);
        assert_eq!(
            with(vec![step(1, 9.0, few()), step(2, 8.0, few())]),
            [(1, None), (2, None)]
        );
        let short = || (1..=7).map(|look| look * 701);
        assert_eq!(
            with(vec![step(1, 9.0, short()), step(2, 8.0, short())]),
            [(1, None), (2, None)]
        );
    }

    #[test]
    fn what_threads_keep_goes_with_their_stacks() {
        let counts = || (1..=20).map(|look| look * 3);
        let mut steps = vec![step(1, 90.0, counts()), step(2, 9.0, counts())];
        steps[0].kind = MemoryKind::ThreadStack;
        assert_eq!(with(steps), [(1, None), (2, Some(1))]);
        let mut steps = vec![step(1, 90.0, counts()), step(2, 9.0, counts())];
        steps[1].kind = MemoryKind::ThreadStack;
        assert_eq!(with(steps), [(1, None), (2, Some(1))]);
        let mut steps = vec![step(1, 90.0, counts()), step(2, 0.0, counts())];
        steps[0].kind = MemoryKind::ThreadStack;
        steps[1].kind = MemoryKind::JniHandle;
        assert_eq!(with(steps), [(1, None), (2, None)]);
    }

    #[test]
    fn a_leak_is_not_hidden_beside_growth() {
        let counts = || (1..=20).map(|look| look * 701);
        let mut steps = vec![step(1, 90.0, counts()), step(2, 9.0, counts())];
        steps[0].finding.kind = FindingKind::Growing;
        assert_eq!(with(steps), [(1, None), (2, None)]);
        let mut steps = vec![step(1, 90.0, counts()), step(2, 9.0, counts())];
        steps[1].finding.kind = FindingKind::Growing;
        assert_eq!(with(steps), [(1, None), (2, Some(1))]);
    }

    #[test]
    fn another_process_is_another_matter() {
        let counts = || (1..=20).map(|look| look * 701);
        let mut other = step(2, 8.0, counts());
        other.finding.process = 1;
        assert_eq!(
            with(vec![step(1, 9.0, counts()), other]),
            [(1, None), (2, None)]
        );
    }
}
