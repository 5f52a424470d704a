//! Judges together what alone is too little: a leak that is spread over many call paths
//! has a few blocks on each.
//!
//! Paths with few blocks are added up from the leaves of the call tree on, until a node has
//! enough to be judged as one site would be. Of each path the first block counts for
//! nothing there: a program that goes a new way allocates what it needs there once. Nor does a
//! path whose blocks all came at one moment; and as long as a program goes ever new ways, as one
//! that loads its modules does, nothing is judged together.

use std::collections::BTreeMap;

use super::curve::Curve;
use super::ends::Ends;
use super::judge::judge;
use super::path::{Branch, Leaf, branches};
use crate::model::{MemoryKind, Report, Site, Verdict};
use crate::report::own::warms_up;

/// A site with as many blocks is judged by itself; and a node has to have so many beyond
/// the first of each path.
const ENOUGH: u64 = 15;
/// Fewer blocks than these all come in the first half, or in the first quarter, of a run
/// by chance in one case of twenty at least.
const BY_CHANCE_IN_THE_FIRST_HALF: u64 = 5;
const BY_CHANCE_IN_THE_FIRST_QUARTER: u64 = 3;

/// What came within this part of a run came at one moment.
const MOMENT: f64 = 0.03;
/// What rests for this part of a run, and for so many times longer than ever before, has come to
/// its end.
const REST: f64 = 0.2;
const LONGER: f64 = 3.0;
/// A program of whose paths this part is new in the last half of a run, and at least so many,
/// goes new ways yet.
const NEW: f64 = 0.1;
const NEW_PATHS: usize = 20;

/// Judges sites together that have too few blocks each.
pub fn judge_together(report: &mut Report, ends: &Ends) {
    let mut trees: BTreeMap<(usize, MemoryKind), Vec<Leaf>> = BTreeMap::new();
    let sites = report.sites.iter().enumerate();
    for (index, site) in sites.filter(|(_, site)| is_small(site, ends.of_site(site))) {
        let tree = trees.entry((site.process, site.kind)).or_default();
        tree.push(Leaf::of(&report.sites, index));
    }
    for ((process, _), mut leaves) in trees {
        leaves.sort();
        let end = ends.of_process(process);
        let mut tree = Tree {
            goes_new_ways: goes_new_ways(&report.sites, process, end),
            sites: &mut report.sites,
            end,
        };
        tree.gather(&leaves, 0);
    }
}

/// Whether many of a process's call paths were new in the last half of the run.
fn goes_new_ways(sites: &[Site], process: usize, end: f64) -> bool {
    let own = sites.iter().filter(|site| site.process == process);
    let (new, all) = own.fold((0, 0), |(new, all), site| {
        (new + usize::from(site.first_seen > 0.5 * end), all + 1)
    });
    new >= NEW_PATHS && new as f64 >= NEW * f64::from(all)
}

/// Whether its numbers are too small to say much. That of a few blocks none came lately may
/// be chance.
fn is_small(site: &Site, end: f64) -> bool {
    let bound = match site.verdict {
        None | Some(Verdict::Growing | Verdict::Leak) => ENOUGH,
        Some(Verdict::Plateau) => BY_CHANCE_IN_THE_FIRST_HALF,
        Some(Verdict::Startup) => BY_CHANCE_IN_THE_FIRST_QUARTER,
        Some(Verdict::Batch | Verdict::Churn) => return false,
    };
    let known = !site.is_unsure() && site.survival.is_none() && site.kind != MemoryKind::JavaHeap;
    // What it is stands in its frames, which are not added up.
    let known = known && warms_up(&site.frames).is_none();
    let came_at_once = site.last_seen - site.first_seen < MOMENT * end;
    // The first block counts for nothing, and so does a path that has no other.
    known && !came_at_once && (2..bound).contains(&site.live_count)
}

/// Whether what grew has come to its end: it rests for longer than it ever did.
fn has_ended(sum: &Site, end: f64) -> bool {
    let curve = Curve::of(&sum.curve, false);
    let (longest, rested) = curve.rests();
    curve.tells() && rested > REST * end && rested > LONGER * longest
}

/// Sites that are not judged yet, and their sum.
#[derive(Default)]
struct Pool {
    sum: Option<Site>,
    members: Vec<usize>,
}

struct Tree<'a> {
    sites: &'a mut [Site],
    end: f64,
    goes_new_ways: bool,
}

impl Tree<'_> {
    /// Judges what is below a node, whose leaves have `depth` names in common, as far as
    /// there is enough. What is left is the pool.
    fn gather(&mut self, leaves: &[Leaf], depth: usize) -> Pool {
        let (depth, branches) = branches(leaves, depth);
        let mut pool = Pool::default();
        for branch in branches {
            pool.add(match branch {
                Branch::Site(site) => self.single(site),
                Branch::Node(leaves) => self.gather(leaves, depth + 1),
            });
        }
        // Nothing is in common at the root.
        match depth > 0 && pool.members.len() > 1 && self.judge(&pool) {
            true => Pool::default(),
            false => pool,
        }
    }

    fn single(&mut self, site: usize) -> Pool {
        // Names are not needed, and long.
        let frames = std::mem::take(&mut self.sites[site].frames);
        let sum = self.sites[site].clone();
        self.sites[site].frames = frames;
        Pool {
            sum: Some(sum),
            members: vec![site],
        }
    }

    /// Whether there is enough to judge. Growth is what all of them are.
    fn judge(&mut self, pool: &Pool) -> bool {
        let Some(sum) = &pool.sum else {
            return false;
        };
        if sum.live_count < ENOUGH + pool.members.len() as u64 {
            return false;
        }
        if self.goes_new_ways || has_ended(sum, self.end) {
            return false;
        }
        let judged = judge(sum, self.end);
        if let Some(judgement) = judged.filter(|it| it.verdict.grows()) {
            for member in &pool.members {
                let site = &mut self.sites[*member];
                site.verdict = Some(judgement.verdict);
                site.confidence = Some(judgement.confidence);
            }
        }
        judged.is_some()
    }
}

impl Pool {
    fn add(&mut self, other: Self) {
        match (&mut self.sum, other.sum) {
            (Some(sum), Some(site)) => sum.add(site),
            (sum @ None, site) => *sum = site,
            (Some(_), None) => {}
        }
        self.members.extend(other.members);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CurvePoint, Level};
    use crate::report::sample;

    const END: f64 = 60.0;

    /// A site of this path, with blocks that came at these times and stay.
    fn site(id: u64, between: &[&str], births: &[f64]) -> Site {
        let frames = between.iter().zip(0x40_2000..);
        let frames = frames.map(|(name, address)| sample::program(name, "a.c", 1, address));
        let live = births.len() as u64;
        let curve = (1..=56).map(|look| {
            let at = END * f64::from(look) / 56.0;
            let count = births.iter().filter(|birth| **birth <= at).count() as u64;
            let level = Level {
                live_bytes: 100 * count,
                live_count: count,
                allocated_count: count,
            };
            CurvePoint::new(at, level)
        });
        let seen = births.iter().copied();
        Site {
            oldest_age: seen.clone().reduce(f64::min).map(|at| END - at),
            first_seen: seen.clone().fold(END, f64::min),
            last_seen: seen.fold(0.0, f64::max),
            curve: curve.collect(),
            verdict: None,
            confidence: None,
            ..sample::site(id, (100 * live, live), (0, 0), frames.collect())
        }
    }

    fn judged(sites: Vec<Site>) -> Vec<Option<Verdict>> {
        let mut report = Report {
            sites,
            duration: END,
            ..sample::report()
        };
        judge_together(&mut report, &Ends::at(END));
        report.sites.iter().map(|site| site.verdict).collect()
    }

    /// Forty leaves of one function, each of which leaks two blocks.
    fn spread() -> Vec<Site> {
        let leaf = |number: u32| {
            let name = format!("field_{number}");
            let at = f64::from(number) * 0.7;
            site(number.into(), &["serve", &name], &[at + 1.0, at + 30.0])
        };
        (0..40).map(leaf).collect()
    }

    #[test]
    fn a_leak_of_many_leaves_is_one_where_each_says_nothing() {
        let verdicts = judged(spread());
        assert!(
            verdicts.iter().all(|it| *it == Some(Verdict::Leak)),
            "{verdicts:?}"
        );
    }

    #[test]
    fn leaves_that_came_early_by_chance_are_of_the_leak() {
        let mut sites = spread();
        for site in &mut sites[..5] {
            site.verdict = Some(Verdict::Startup);
        }
        sites[7].verdict = Some(Verdict::Plateau);
        let verdicts = judged(sites);
        assert!(
            verdicts.iter().all(|it| *it == Some(Verdict::Leak)),
            "{verdicts:?}"
        );
    }

    #[test]
    fn a_way_that_is_gone_once_is_no_growth() {
        let once = |number: u32| {
            let name = format!("part_{number}");
            site(
                number.into(),
                &["load", &name],
                &[1.0 + f64::from(number) * 1.4],
            )
        };
        let verdicts = judged((0..40).map(once).collect());
        assert!(verdicts.iter().all(Option::is_none), "{verdicts:?}");
    }

    #[test]
    fn what_comes_at_one_moment_on_each_path_is_no_growth() {
        let once = |number: u32| {
            let at = 1.0 + f64::from(number) * 1.4;
            let name = format!("part_{number}");
            site(number.into(), &["load", &name], &[at, at + 0.01, at + 0.02])
        };
        let verdicts = judged((0..40).map(once).collect());
        assert!(verdicts.iter().all(Option::is_none), "{verdicts:?}");
    }

    #[test]
    fn what_has_come_to_its_end_is_no_leak() {
        // All modules are loaded after two thirds of the run.
        let module = |number: u32| {
            let name = format!("part_{number}");
            let at = f64::from(number) * 0.7;
            site(number.into(), &["load", &name], &[at + 1.0, at + 12.0])
        };
        let verdicts = judged((0..40).map(module).collect());
        assert!(verdicts.iter().all(Option::is_none), "{verdicts:?}");
    }

    #[test]
    fn a_program_that_goes_ever_new_ways_does_not_leak_yet() {
        let mut sites = spread();
        // Others that are new all the time, of which nothing need be live.
        sites.extend((0..200_u32).map(|number| {
            let name = format!("new_{number}");
            let at = f64::from(number) * END / 200.0;
            site(100 + u64::from(number), &["load", &name], &[at])
        }));
        let verdicts = judged(sites);
        assert!(verdicts[..40].iter().all(Option::is_none), "{verdicts:?}");
    }

    #[test]
    fn a_single_block_is_no_leak_because_others_are() {
        let mut sites = spread();
        // A table that was made larger a few times, and is there.
        let mut table = site(99, &["serve", "resize"], &[40.0]);
        table.allocated_count += 6;
        table.freed_count += 6;
        sites.push(table);
        let verdicts = judged(sites);
        assert_eq!(verdicts.last(), Some(&None));
        assert_eq!(verdicts[0], Some(Verdict::Leak));
    }

    #[test]
    fn others_of_the_same_program_are_not_drawn_in() {
        let mut sites = spread();
        sites.push(site(99, &["poll", "resolve"], &[20.0, 41.0]));
        let verdicts = judged(sites);
        assert_eq!(verdicts.last(), Some(&None));
        assert_eq!(verdicts[0], Some(Verdict::Leak));
    }
}
