//! Large blocks of which so few came that nobody can say whether others will.
//!
//! A pool that takes 16 MiB each quarter of a minute has one block in a short run, and so has
//! what a program makes once, at its first use. What is known of such a block is how old its process
//! was when it came, and for how long none came since. With the scale-free prior of `judge`, the
//! next one has come by now with probability r / (a + r) at an age of a and after a rest of r, if there
//! is a next one at all: so a rest of three ages says that there is none with 75 %, and less of one
//! says nothing.

use std::collections::HashSet;

use super::ends::Ends;
use super::engine;
use super::growing;
use super::path;
use super::per_second;
use crate::model::{Finding, FindingKind, MemoryKind, Report, Site, Verdict};
use crate::report::brief::brief;
use crate::report::text::SHORTEST;
use crate::report::{names, pool, units};

/// So many blocks say nothing of a rate.
const FEW: u64 = 2;
/// A rest of so many ages is the end of it.
const AGES: f64 = 3.0;
/// Less than this is left as it is, bytes; and less than this part of what the process grew by.
const LITTLE: u64 = 1 << 20;
const PART: f64 = 0.1;
/// As likely a leak as not.
const EVEN: f64 = 0.5;

/// What such blocks are is not known: the sites that have no verdict, by their indices.
pub fn take_back(report: &mut Report, ends: &Ends) -> Vec<usize> {
    let few = few(report, ends);
    for index in &few {
        let site = &mut report.sites[*index];
        (site.verdict, site.confidence) = (None, None);
    }
    few
}

/// A finding for each call path that was taken back.
pub fn findings(report: &Report, few: &[usize]) -> Vec<Finding> {
    let sites = few.iter().map(|at| &report.sites[*at]);
    sites.map(|site| finding(report, site)).collect()
}

/// The sites of so few and so large blocks, by their indices.
fn few(report: &Report, ends: &Ends) -> Vec<usize> {
    if report.duration < SHORTEST || report.is_sampled() {
        return Vec::new();
    }
    let is_it = |at: &usize| is_few(report, &report.sites[*at], ends);
    let mut few: Vec<usize> = (0..report.sites.len()).filter(is_it).collect();
    if !few.is_empty() {
        // A heap of several call paths is judged as one.
        let heaps = engine::heaps(report).into_iter();
        let of_many = heaps.filter(|heap| heap.sites.len() > 1);
        let of_many: HashSet<usize> = of_many.flat_map(|heap| heap.sites).collect();
        few.retain(|at| !of_many.contains(at));
    }
    few
}

fn is_few(report: &Report, site: &Site, ends: &Ends) -> bool {
    let is_kind = matches!(site.kind, MemoryKind::Heap | MemoryKind::Mapping);
    let is_whole = site.freed_count == 0 && site.processes <= 1 && !site.is_unsure();
    let is_few = (1..=FEW).contains(&site.live_count) && site.allocated_count <= FEW;
    let is_open = matches!(
        site.verdict,
        None | Some(Verdict::Plateau | Verdict::Startup)
    );
    is_kind && is_whole && is_few && is_open && is_much(report, site) && !rests(report, site, ends)
}

/// Whether it is a part of what its process grew by that matters.
fn is_much(report: &Report, site: &Site) -> bool {
    let mut balances = report.balance.iter();
    let growth = balances
        .find(|it| it.process == site.process)
        .map(|it| it.growth);
    let held = in_memory(site);
    held >= LITTLE && growth.is_some_and(|growth| growth > 0 && held as f64 >= PART * growth as f64)
}

/// What of it is in memory, as far as that is known.
fn in_memory(site: &Site) -> u64 {
    site.resident_bytes.unwrap_or(site.live_bytes)
}

/// Whether none came for so long that there is no next one.
fn rests(report: &Report, site: &Site, ends: &Ends) -> bool {
    let process = report.processes.get(site.process);
    let older = process.map_or(0.0, |it| it.age - it.began);
    let age = (older + site.last_seen).max(0.0);
    ends.of_site(site) - site.last_seen >= AGES * age
}

fn finding(report: &Report, site: &Site) -> Finding {
    let frames = names::drawn_frames(site);
    let pool = pool::refilled(site);
    let function = match pool {
        Some(pool) => pool.name.to_owned(),
        None => growing::culprit(site, frames.len()),
    };
    let held = in_memory(site);
    let blocks = match site.live_count {
        1 => "one block came".to_owned(),
        count => format!("{count} blocks came"),
    };
    Finding {
        title: format!("{} in memory for {}", units::bytes(held), brief(&function)),
        path: path::labels(&frames),
        function,
        sites: vec![site.id],
        site_count: 1,
        bytes_per_second: per_second(report, site.process, held as f64),
        live_bytes: held,
        live_count: site.live_count,
        since: site.first_seen,
        evidence: vec![format!(
            "{blocks} in {}, which does not tell whether that was all or others follow",
            units::seconds(report.duration)
        )],
        advice: growing::trace_longer(report),
        ..Finding::new(FindingKind::Undecided, site.process, EVEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Balance;
    use crate::report::sample;

    const MIB: u64 = 1 << 20;

    /// What becomes of so many blocks of 16 MiB that came until 40 s of a run of 60 s, in a
    /// process of this age that grew by so much.
    fn found(blocks: u64, verdict: Verdict, age: f64, growth: i64) -> Vec<Finding> {
        let frames = vec![
            sample::program("handle", "a.c", 5, 1),
            sample::program("new_chunk", "b.c", 7, 2),
        ];
        let site = Site {
            verdict: Some(verdict),
            confidence: Some(0.9),
            first_seen: 30.0,
            last_seen: 40.0,
            ..sample::site(1, (16 * MIB * blocks, blocks), (0, 0), frames)
        };
        let mut report = Report {
            balance: vec![Balance {
                growth,
                ..Balance::default()
            }],
            sites: vec![site],
            duration: 60.0,
            ..sample::report()
        };
        report.processes[0].age = age;
        let few = take_back(&mut report, &Ends::at(60.0));
        let findings = findings(&report, &few);
        let judged = report.sites[0].verdict;
        assert_eq!(judged.is_none(), !findings.is_empty());
        findings
    }

    #[test]
    fn one_large_block_is_neither_a_leak_nor_none() {
        let findings = found(1, Verdict::Plateau, 3600.0, 32 << 20);
        let [finding] = &findings[..] else {
            panic!("{findings:?}");
        };
        assert_eq!(finding.kind, FindingKind::Undecided);
        assert_eq!(finding.title, "16.0 MiB in memory for new_chunk");
        assert!(finding.advice.contains("--duration 600s"), "{finding:?}");
        assert_eq!(found(2, Verdict::Startup, 3600.0, 32 << 20).len(), 1);
    }

    #[test]
    fn what_the_numbers_tell_stays_told() {
        let large = 32 << 20;
        assert_eq!(found(3, Verdict::Plateau, 3600.0, large), []);
        assert_eq!(found(1, Verdict::Growing, 3600.0, large), []);
        // It is little of what the process grew by, or that did not grow.
        assert_eq!(found(1, Verdict::Plateau, 3600.0, 170 << 20), []);
        assert_eq!(found(1, Verdict::Plateau, 3600.0, 0), []);
        // In a young process it is the same, unless it has rested for three times its age.
        assert_eq!(found(1, Verdict::Plateau, 0.0, large).len(), 1);
    }

    #[test]
    fn a_long_rest_is_the_end() {
        let site = |last_seen: f64| Site {
            last_seen,
            ..sample::site(1, (16 * MIB, 1), (0, 0), vec![])
        };
        let report = sample::report();
        let rested = |at: f64| rests(&report, &site(at), &Ends::at(60.0));
        assert!(rested(14.9));
        assert!(!rested(15.1));
    }
}
