//! Blocks of one call path that take the place of another's: a pool that makes connections
//! on one path at its start, and on another when one is closed. Alone the one path shrinks
//! and the other grows; what is live of both is level.
//!
//! Looked for are paths that grow, from the leaves of the call tree on, and with them at
//! each node those whose blocks are of about the same size. Where what is live of all
//! together hardly moved since the first of them began to grow, none of them does: what
//! grew beside something else would have raised the sum by as much as itself.

use std::collections::BTreeMap;

use super::curve::Curve;
use super::ends::Ends;
use super::judge::judge;
use super::path::{Branch, Leaf, branches};
use crate::model::{CurvePoint, Judgement, MemoryKind, Report, Site, Verdict};

/// More paths than these are not one function's ways to the same blocks.
const MANY: usize = 64;
/// Fewer blocks than these may meet others by chance.
const FEW: f64 = 5.0;
/// The sum of all may move by this part of what grew.
const LEVEL: f64 = 0.2;
/// Sizes are alike within a factor of 2^(1/2).
const SIZES: f64 = 2.0;

/// Takes back that paths grow which replace what others held.
pub fn take_back(report: &mut Report, ends: &Ends) {
    let mut trees: BTreeMap<(usize, MemoryKind, i64), Vec<usize>> = BTreeMap::new();
    for (index, site) in report.sites.iter().enumerate() {
        if let Some(size) = size_class(site) {
            let tree = trees.entry((site.process, site.kind, size));
            tree.or_default().push(index);
        }
    }
    for ((process, ..), members) in trees {
        let grows = |at: &usize| grows(&report.sites[*at]);
        if members.len() < 2 || !members.iter().any(grows) {
            continue;
        }
        let leaves = members.into_iter();
        let mut leaves: Vec<Leaf> = leaves.map(|at| Leaf::of(&report.sites, at)).collect();
        leaves.sort();
        let end = ends.of_process(process);
        let mut tree = Tree {
            sites: &mut report.sites,
            end,
        };
        tree.gather(&leaves, 0);
    }
}

fn grows(site: &Site) -> bool {
    site.verdict.is_some_and(Verdict::grows)
}

/// A number for blocks of about this size; `None` of a site whose curve says nothing.
fn size_class(site: &Site) -> Option<i64> {
    let tells = Curve::of(&site.curve, false).tells() && site.survival.is_none();
    if !tells || site.allocated_count == 0 {
        return None;
    }
    let mean = site.allocated_bytes as f64 / site.allocated_count as f64;
    #[expect(clippy::cast_possible_truncation, reason = "a logarithm is small")]
    Some((SIZES * mean.max(1.0).log2()).round() as i64)
}

struct Tree<'a> {
    sites: &'a mut [Site],
    end: f64,
}

impl Tree<'_> {
    /// Looks at what is below a node, whose leaves have `depth` names in common, and at the
    /// node. Returns the sites that are not explained.
    fn gather(&mut self, leaves: &[Leaf], depth: usize) -> Vec<usize> {
        let (depth, branches) = branches(leaves, depth);
        let mut members = Vec::new();
        for branch in branches {
            match branch {
                Branch::Site(site) => members.push(site),
                Branch::Node(leaves) => members.extend(self.gather(leaves, depth + 1)),
            }
        }
        // Nothing is in common at the root.
        match depth > 0 && self.explains(&members) {
            true => Vec::new(),
            false => members,
        }
    }

    /// Whether these are level together; those that grew are what all of them are then.
    fn explains(&mut self, members: &[usize]) -> bool {
        if !(2..=MANY).contains(&members.len()) {
            return false;
        }
        let sites: Vec<&Site> = members.iter().map(|at| &self.sites[*at]).collect();
        let Some(certain) = level(&sites) else {
            return false;
        };
        let judged = judge(&Site::sum(&sites), self.end);
        let together = judged
            .filter(|it| !it.verdict.grows())
            .unwrap_or(Judgement {
                verdict: Verdict::Plateau,
                confidence: certain,
            });
        for at in members {
            let site = &mut self.sites[*at];
            if grows(site) {
                site.verdict = Some(together.verdict);
                site.confidence = Some(together.confidence.min(certain));
            }
        }
        true
    }
}

/// How much of what grew others gave back, if that is nearly all of it at every look.
fn level(sites: &[&Site]) -> Option<f64> {
    let growers = sites.iter().filter(|site| grows(site));
    let since = growers
        .clone()
        .map(|site| site.first_seen)
        .reduce(f64::min)?;
    let of = |sites: &mut dyn Iterator<Item = &&Site>| {
        let sum = sites.fold(Vec::new(), |sum, site| CurvePoint::sum(&sum, &site.curve));
        Curve::of(&sum, false)
    };
    let (grown, all) = (of(&mut growers.clone()), of(&mut sites.iter()));
    let (before, after) = grown.ends(since)?;
    let (least, most) = all.range(since)?;
    let moved = (most - least) / (after - before);
    (after - before >= FEW && moved <= LEVEL).then_some(1.0 - moved)
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::report::sample;
    use crate::verdict::simulated::{Life, births, site};

    const END: f64 = 120.0;
    const NEVER: f64 = f64::INFINITY;

    /// What is said of the second of two paths of one function.
    fn said(first: &[Life], second: &[Life]) -> Option<Verdict> {
        let path = |id: u64, lives: &[Life]| {
            let line = u32::try_from(id).unwrap();
            let leaf = sample::program("connect", "pool.c", line, 0x40_2000 + id);
            let mut site = site(lives, END);
            site.frames = sample::site(id, (1, 1), (0, 0), vec![leaf]).frames;
            let judged = judge(&site, END);
            site.verdict = judged.map(|it| it.verdict);
            site
        };
        let mut report = Report {
            sites: vec![path(1, first), path(2, second)],
            duration: END,
            ..sample::report()
        };
        take_back(&mut report, &Ends::at(END));
        report.sites[1].verdict
    }

    /// A pool of `many` that is full after 10 s; one of it, by chance, is replaced from time
    /// to time. What is made first, and what replaces that.
    fn pool(rng: &mut Rng, many: usize, replaced: f64) -> (Vec<Life>, Vec<Life>) {
        let start = |index: usize| 10.0 * index as f64 / many as f64;
        let mut first: Vec<Life> = (0..many).map(|index| (start(index), NEVER)).collect();
        let mut second: Vec<Life> = Vec::new();
        // Which of the first or second is in each place.
        let mut places: Vec<(bool, usize)> = (0..many).map(|index| (true, index)).collect();
        for at in births(rng, END - 10.0, replaced) {
            let at = 10.0 + at;
            let place = &mut places[rng.usize(..many)];
            match *place {
                (true, index) => first[index].1 = at,
                (false, index) => second[index].1 = at,
            }
            *place = (false, second.len());
            second.push((at, NEVER));
        }
        (first, second)
    }

    #[test]
    fn what_replaces_another_paths_blocks_is_no_growth() {
        let mut alone = 0;
        for seed in 0..100 {
            let mut rng = Rng::with_seed(seed);
            let many = rng.usize(20..300);
            let (first, second) = pool(&mut rng, many, many as f64 * 1.3);
            let judged = judge(&site(&second, END), END);
            alone += usize::from(judged.is_some_and(|it| it.verdict.grows()));
            let verdict = said(&first, &second);
            assert!(!verdict.is_some_and(Verdict::grows), "{seed}: {verdict:?}");
        }
        assert!(alone > 50, "only {alone} of them are judged to grow alone");
    }

    #[test]
    fn a_leak_beside_a_pool_or_a_cache_is_a_leak() {
        for seed in 0..100 {
            let mut rng = Rng::with_seed(seed);
            let leak: Vec<Life> = births(&mut rng, END, 60.0)
                .into_iter()
                .map(|at| (at, NEVER))
                .collect();
            let grows = |verdict: Option<Verdict>| verdict.is_some_and(Verdict::grows);
            let (pool, _) = pool(&mut rng, 200, 0.1);
            assert!(grows(said(&pool, &leak)), "{seed}");
            // A cache that is hardly ever as full as before, and one that is given up.
            let lives = |rng: &mut Rng, at: f64| (at, at - 20.0 * rng.f64().ln());
            let cache = births(&mut rng, END, 1000.0).into_iter();
            let cache: Vec<Life> = cache.map(|at| lives(&mut rng, at)).collect();
            assert!(grows(said(&cache, &leak)), "{seed}");
            let given_up: Vec<Life> = pool.iter().map(|life| (life.0, 70.0)).collect();
            assert!(grows(said(&given_up, &leak)), "{seed}");
        }
    }
}
