//! Heaps of language runtimes, each judged as one: which call path happens to make such a heap
//! grow says little of who keeps its objects.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::ends::Ends;
use super::judge::judge;
use crate::model::{Report, Site, Verdict};
use crate::report::pool;

/// A heap of one process, and its call paths.
pub struct Heap {
    /// What it is called.
    pub name: &'static str,
    /// What there is to know of its kind.
    pub about: &'static pool::Heap,
    /// Its sites by their index, those that hold most first.
    pub sites: Vec<usize>,
}

impl Heap {
    /// Its sites. Where some are of what is mapped and others of blocks, what is in memory of a
    /// block is all of it.
    pub fn sites<'a>(&self, report: &'a Report) -> Vec<Cow<'a, Site>> {
        let sites = self.sites.iter().map(|at| &report.sites[*at]);
        let is_known = sites.clone().any(|site| site.resident_bytes.is_some());
        let whole = |site: &'a Site| match (is_known, site.resident_bytes) {
            (true, None) => Cow::Owned(Site {
                resident_bytes: Some(site.live_bytes),
                ..site.clone()
            }),
            _ => Cow::Borrowed(site),
        };
        sites.map(whole).collect()
    }
}

/// The heaps of all processes.
pub fn heaps(report: &Report) -> Vec<Heap> {
    let mut found: BTreeMap<(usize, &str), Heap> = BTreeMap::new();
    for (index, site) in report.sites.iter().enumerate() {
        let pool = pool::refilled(site).filter(|_| site.live_count > 0);
        let Some((name, about)) = pool.and_then(|it| Some((it.name, it.heap.as_ref()?))) else {
            continue;
        };
        let heap = found.entry((site.process, name));
        let heap = heap.or_insert_with(|| Heap {
            name,
            about,
            sites: Vec::new(),
        });
        heap.sites.push(index);
    }
    let mut heaps: Vec<Heap> = found.into_values().collect();
    for heap in &mut heaps {
        let held = |at: &usize| std::cmp::Reverse(report.sites[*at].held_bytes());
        heap.sites.sort_by_key(held);
    }
    heaps
}

/// Judges each heap as if it were one site. What may be garbage is no leak.
pub fn judge_heaps(report: &mut Report, ends: &Ends) {
    for heap in heaps(report) {
        let sites = heap.sites(report);
        let sites: Vec<&Site> = sites.iter().map(Cow::as_ref).collect();
        let sum = Site::sum(&sites);
        let judged = judge(&sum, ends.of_site(&sum));
        let verdict = judged.map(|judgement| match judgement.verdict {
            Verdict::Leak if heap.about.collected => Verdict::Growing,
            verdict => verdict,
        });
        for at in heap.sites {
            let site = &mut report.sites[at];
            site.verdict = verdict;
            site.confidence = judged.map(|judgement| judgement.confidence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CurvePoint, Level, MemoryKind};
    use crate::report::sample;

    /// A site by which a function has taken blocks of 1 MiB at these times.
    fn site(id: u64, function: &str, births: &[f64]) -> Site {
        let live = births.len() as u64;
        let curve = (1..=56).map(|look| {
            let at = 60.0 * f64::from(look) / 56.0;
            let count = births.iter().filter(|birth| **birth <= at).count() as u64;
            let level = Level {
                live_bytes: count << 20,
                live_count: count,
                allocated_count: count,
            };
            CurvePoint::new(at, level)
        });
        let frames = vec![
            sample::program(&format!("work_{id}"), "a.c", 1, id),
            sample::program(function, "b.c", 1, 100),
            sample::library("mmap", 2),
        ];
        Site {
            kind: MemoryKind::Mapping,
            oldest_age: Some(60.0 - births[0]),
            first_seen: births[0],
            last_seen: births[births.len() - 1],
            curve: curve.collect(),
            ..sample::site(id, (live << 20, live), (0, 0), frames)
        }
    }

    fn judged(function: &str) -> (Vec<Option<Verdict>>, usize) {
        let births = |from: u32| {
            (0..5)
                .map(|it| f64::from(4 + from + 11 * it))
                .collect::<Vec<_>>()
        };
        let mut report = Report {
            sites: (0..4)
                .map(|id| site(id.into(), function, &births(2 * id)))
                .collect(),
            duration: 60.0,
            ..sample::report()
        };
        judge_heaps(&mut report, &Ends::at(60.0));
        let findings = super::super::growing::findings(&report);
        let verdicts = report.sites.iter().map(|site| site.verdict);
        (verdicts.collect(), findings.len())
    }

    #[test]
    fn a_heap_is_one_finding_and_no_leak_if_it_may_be_garbage() {
        let growing = Some(Verdict::Growing);
        assert_eq!(judged("runtime.sysMapOS"), (vec![growing; 4], 1));
        let (verdicts, findings) = judged("new_arena");
        assert!(verdicts.iter().all(|it| it.is_some_and(Verdict::grows)));
        assert_eq!(findings, 1);
    }

    #[test]
    fn a_pool_that_is_no_languages_heap_is_left() {
        assert_eq!(judged("ngx_palloc"), (vec![None; 4], 0));
    }
}
