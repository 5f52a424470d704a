//! Blocks that take the place of blocks from before the run: of a cache that was full before, of which
//! one entry after the other is replaced, all that is new stays at first.
//!
//! Who freed older blocks is known, and how many, but not at which path they had been allocated. So
//! paths that grow are told to replace older blocks where two things hold. At each look they had as many
//! blocks live, within a tenth, as older ones had been freed by then; and the process did not grow by
//! what they hold: a leak beside older blocks that go for good would have raised it.

use super::curve::Curve;
use super::engine;
use crate::model::{CurvePoint, Loss, MemoryKind, OlderFrees, Report, Verdict};

/// Looks that must have seen both, and blocks that there must be.
const LOOKS: usize = 8;
const FEW: u64 = 100;
/// The two may be apart by this part, and by so many blocks: they are read one after the other.
const APART: f64 = 0.1;
const SLACK: f64 = 10.0;
/// The process may have grown by this part of what is live.
const GROWTH: f64 = 0.1;

/// Takes back that paths grow which replace what was there before the run.
pub fn take_back(report: &mut Report) {
    let found = replacing(report);
    for (index, certain) in found {
        let site = &mut report.sites[index];
        site.verdict = Some(Verdict::Churn);
        site.confidence = site.confidence.map(|_| certain);
    }
}

/// The paths that together replace older blocks, by their indices, and how certain that is.
fn replacing(report: &Report) -> Vec<(usize, f64)> {
    let [balance] = &report.balance[..] else {
        return Vec::new();
    };
    if report.processes.len() != 1 || report.is_sampled() || !are_older(report) {
        return Vec::new();
    }
    let freed = report.totals.untraced_frees;
    let mut growing = growing(report);
    growing.sort_by_key(|index| std::cmp::Reverse(report.sites[*index].live_count));
    let least = (1.0 - APART) * freed as f64;
    let most = (1.0 + APART) * freed as f64 + SLACK;
    let (mut members, mut count, mut bytes) = (Vec::new(), 0_u64, 0_u64);
    let mut curve: Vec<CurvePoint> = Vec::new();
    for index in growing {
        // What is left may be a small leak.
        if count as f64 >= least {
            break;
        }
        let site = &report.sites[index];
        if (count + site.live_count) as f64 > most || !site_tells(&site.curve) {
            continue;
        }
        members.push(index);
        count += site.live_count;
        bytes += site.live_bytes;
        curve = CurvePoint::sum(&curve, &site.curve);
    }
    let is_level = balance.growth <= 0 || (balance.growth as f64) < GROWTH * bytes as f64;
    let apart = (count >= FEW && is_level)
        .then(|| apart(&curve, &report.older_frees))
        .flatten();
    let certain = apart.map(|apart| 1.0 - apart);
    certain.map_or_else(Vec::new, |certain| {
        members.into_iter().map(|index| (index, certain)).collect()
    })
}

/// Whether frees of unknown blocks are of older ones, all of them.
fn are_older(report: &Report) -> bool {
    let unseen = |loss: &Loss| loss.cause == Loss::UNSEEN_ALLOCATION;
    report.settings.min_size == 0
        && report.totals.untraced_frees >= FEW
        && !report.occurred_losses().any(unseen)
}

/// The heap's paths that grow, but for those of a language's heap, by their indices.
fn growing(report: &Report) -> Vec<usize> {
    let heaps = engine::heaps(report);
    let of_heaps: Vec<usize> = heaps.into_iter().flat_map(|heap| heap.sites).collect();
    let grows = |index: &usize| {
        let site = &report.sites[*index];
        let judged = site.verdict.is_some_and(Verdict::grows);
        judged && site.kind == MemoryKind::Heap && !of_heaps.contains(index)
    };
    (0..report.sites.len()).filter(grows).collect()
}

fn site_tells(curve: &[CurvePoint]) -> bool {
    Curve::of(curve, false).tells() && curve.len() >= LOOKS
}

/// By how much, as a part, what is live was ever apart from the older blocks that had been freed;
/// `None` if that is much, or was not looked at often.
fn apart(curve: &[CurvePoint], older: &[OlderFrees]) -> Option<f64> {
    let mut most: f64 = 0.0;
    let mut looks = 0;
    for point in curve {
        let Some(freed) = older
            .iter()
            .find(|it| it.at.to_bits() == point.at.to_bits())
        else {
            continue;
        };
        let (live, freed) = (point.live_count as f64, freed.count as f64);
        let off = ((live - freed).abs() - SLACK).max(0.0) / live.max(freed).max(1.0);
        most = most.max(off);
        looks += 1;
    }
    (looks >= LOOKS && most <= APART).then_some(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Balance, Level, Site, Totals};
    use crate::report::sample;

    const LOOKS: u64 = 40;

    /// A site with so many blocks of 1,000 bytes at each look.
    fn site(id: u64, count: impl Fn(u64) -> u64) -> Site {
        let live = count(LOOKS);
        let frames = vec![sample::program("put", "cache.c", 5, id)];
        let point = |look: u64| {
            let level = Level {
                live_bytes: 1000 * count(look),
                live_count: count(look),
                allocated_count: count(look),
            };
            CurvePoint::new(look as f64, level)
        };
        Site {
            verdict: Some(Verdict::Leak),
            confidence: Some(0.9),
            curve: (0..=LOOKS).map(point).collect(),
            ..sample::site(id, (1000 * live, live), (0, 0), frames)
        }
    }

    /// What is said of these sites where so many older blocks had been freed at each look, and the
    /// process grew by so much.
    fn said(sites: Vec<Site>, freed: impl Fn(u64) -> u64, growth: i64) -> Vec<Verdict> {
        let mut report = Report {
            balance: vec![Balance {
                growth,
                ..Balance::default()
            }],
            older_frees: (0..=LOOKS)
                .map(|look| OlderFrees {
                    at: look as f64,
                    count: freed(look),
                })
                .collect(),
            totals: Totals {
                untraced_frees: freed(LOOKS),
                ..Totals::default()
            },
            losses: Vec::new(),
            sites,
            ..sample::report()
        };
        report.processes.truncate(1);
        take_back(&mut report);
        let verdicts = report.sites.iter();
        verdicts.filter_map(|site| site.verdict).collect()
    }

    #[test]
    fn what_replaces_older_blocks_is_replaced_itself() {
        let cache = || site(1, |look| 100 * look);
        assert_eq!(said(vec![cache()], |it| 100 * it, 4096), [Verdict::Churn]);
        assert_eq!(said(vec![cache()], |it| 97 * it, -9), [Verdict::Churn]);
        // An entry and its key, as many of which were freed.
        let both = vec![cache(), site(2, |look| 100 * look)];
        assert_eq!(said(both, |it| 200 * it, 0), [Verdict::Churn; 2]);
    }

    #[test]
    fn a_leak_beside_it_stays_one() {
        let leak = [Verdict::Leak];
        let cache = || site(1, |look| 100 * look);
        // Nothing older is freed, or less, or not when it grew.
        assert_eq!(said(vec![cache()], |_| 0, 0), leak);
        assert_eq!(said(vec![cache()], |it| 80 * it, 0), leak);
        assert_eq!(said(vec![cache()], |it| 100 * it * it / 40, 0), leak);
        // What goes for good leaves room in the heap; the process grew by what is kept.
        assert_eq!(said(vec![cache()], |it| 100 * it, 4_000_000), leak);
        let beside = vec![cache(), site(2, |look| 30 * look)];
        let told = [Verdict::Churn, Verdict::Leak];
        assert_eq!(said(beside, |it| 100 * it, 300_000), told);
        let small = vec![cache(), site(2, |look| 5 * look)];
        assert_eq!(said(small, |it| 100 * it, 200_000), told);
    }
}
