//! Large blocks of which so few came that nobody can say whether others will, and many blocks that came
//! in few lots, as those of an import that somebody starts now and then.
//!
//! A pool that takes 16 MiB each quarter of a minute has one block in a short run, and so has
//! what a program makes once, at its first use. What is known of such a block is how old its process
//! was when it came, and for how long none came since. With the scale-free prior of `judge`, the
//! next one has come by now with probability r / (a + r) at an age of a and after a rest of r, if there
//! is a next one at all: so a rest of three ages says that there is none with 75 %, and less of one
//! says nothing. Of several lots the longest time between two is the age.

use std::collections::HashSet;

use super::curve::Curve;
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
/// So many lots are few where nothing else is known, and so many where another verdict fits; and there is
/// more to see at this part of all looks at most.
const SOME: usize = 8;
const FEW_LOTS: usize = 2;
const SELDOM: f64 = 0.2;
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
    let is_it = is_kind && is_whole && is_open && (is_few || lots(site).is_some());
    is_it && is_much(report, site, PART) && !rests(report, site, ends)
}

/// In how many lots the blocks of a site came, if they are few.
fn lots(site: &Site) -> Option<usize> {
    let curve = Curve::of(&site.curve, false);
    let looks = site.curve.len().saturating_sub(1);
    let most = match site.verdict {
        None => SOME,
        Some(_) => FEW_LOTS,
    };
    // All that is there at the first look came in one that no rise tells of.
    let began = site.curve.first().is_some_and(|point| point.live_count > 0);
    let lots = curve.lots() + usize::from(began);
    let is_seldom = curve.rises() as f64 <= SELDOM * looks as f64;
    (curve.tells() && (1..=most).contains(&lots) && is_seldom).then_some(lots)
}

/// Whether it is a part of what its process grew by that matters: so much of it, and 1 MiB.
pub fn is_much(report: &Report, site: &Site, part: f64) -> bool {
    let mut balances = report.balance.iter();
    let growth = balances
        .find(|it| it.process == site.process)
        .map(|it| it.growth);
    let held = in_memory(site);
    held >= LITTLE && growth.is_some_and(|growth| growth > 0 && held as f64 >= part * growth as f64)
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
    let between = match lots(site) {
        Some(2..) => Curve::of(&site.curve, false).rests().0,
        _ => f64::INFINITY,
    };
    ends.of_site(site) - site.last_seen >= AGES * age.min(between)
}

fn finding(report: &Report, site: &Site) -> Finding {
    let count = units::grouped(site.live_count);
    let blocks = match (site.live_count, lots(site)) {
        (1, _) => "one block came".to_owned(),
        (2, _) | (_, None) => format!("{count} blocks came"),
        (_, Some(1)) => format!("{count} blocks came at one time"),
        (_, Some(lots)) => format!("{count} blocks came at {lots} times"),
    };
    let evidence = vec![format!(
        "{blocks} in {}, which does not tell whether that was all or others follow",
        units::seconds(report.duration)
    )];
    finding_of(report, site, &function(site), evidence)
}

/// Who has such memory: the pool, or the program's own function.
pub fn function(site: &Site) -> String {
    match pool::refilled(site) {
        Some(pool) => pool.name.to_owned(),
        None => growing::culprit(site, names::drawn_frames(site).len()),
    }
}

/// A finding about a site, or about a sum of several, of which nobody can say what it is.
pub fn finding_of(report: &Report, site: &Site, function: &str, evidence: Vec<String>) -> Finding {
    let held = in_memory(site);
    Finding {
        title: format!("{} in memory for {}", units::bytes(held), brief(function)),
        path: path::labels(&names::drawn_frames(site)),
        function: function.to_owned(),
        sites: vec![site.id],
        site_count: 1,
        bytes_per_second: per_second(report, site.process, held as f64),
        live_bytes: held,
        live_count: site.live_count,
        since: site.first_seen,
        evidence,
        advice: growing::trace_longer(report),
        ..Finding::new(FindingKind::Undecided, site.process, EVEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Balance, CurvePoint, Level};
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

    /// What is said of 5,000 blocks that came at each of these looks, of 50 in 25 s.
    fn found_lots(lots: &[u64], verdict: Option<Verdict>) -> Vec<Finding> {
        let count = |look: u64| 5000 * lots.iter().filter(|lot| **lot <= look).count() as u64;
        let live = count(50);
        let point = |look: u64| {
            let level = Level {
                live_bytes: 307 * count(look),
                live_count: count(look),
                allocated_count: count(look),
            };
            CurvePoint::new(look as f64 / 2.0, level)
        };
        let frames = vec![sample::program("import_batch", "a.c", 5, 1)];
        let site = Site {
            verdict,
            first_seen: lots[0] as f64 / 2.0 - 0.1,
            last_seen: lots[lots.len() - 1] as f64 / 2.0,
            curve: (0..=50).map(point).collect(),
            ..sample::site(1, (307 * live, live), (0, 0), frames)
        };
        let mut report = Report {
            balance: vec![Balance {
                growth: 307 * live.cast_signed(),
                ..Balance::default()
            }],
            sites: vec![site],
            duration: 25.0,
            ..sample::report()
        };
        report.processes[0].age = 3600.0;
        let few = take_back(&mut report, &Ends::at(25.0));
        findings(&report, &few)
    }

    #[test]
    fn many_blocks_that_came_at_few_times_are_neither() {
        let one = found_lots(&[9], Some(Verdict::Startup));
        assert_eq!(one.len(), 1);
        let said = &one[0].evidence[0];
        assert!(
            said.starts_with("5,000 blocks came at one time in"),
            "{said}"
        );
        let three = found_lots(&[2, 22, 42], None);
        let said = &three[0].evidence[0];
        assert!(
            said.starts_with("15,000 blocks came at 3 times in"),
            "{said}"
        );
        // It is judged by more, or rests for longer than ever between two.
        assert_eq!(found_lots(&[2, 12, 22], Some(Verdict::Plateau)), []);
        assert_eq!(found_lots(&[2, 6, 10], None), []);
        assert_eq!(found_lots(&[9], Some(Verdict::Churn)), []);
        let often: Vec<u64> = (0..50).step_by(3).collect();
        assert_eq!(found_lots(&often[1..], None), []);
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
