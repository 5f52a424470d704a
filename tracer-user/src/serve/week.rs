//! A week of a service, simulated: its numbers go through the curves, verdicts and store that
//! they go through in a real one, with times that are made up. The tracer is started anew each
//! day, and killed on every other.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use fastrand::Rng;
use tracer_ebpf::site::SiteKey;

use super::store::{Kept, Store};
use crate::model::{Finding, FindingKind, Level, MemoryKind, MemoryLimit, Report, Site};
use crate::report::sample;
use crate::verdict::conclude;
use crate::window::curves::Curves;

const PAGE: u64 = 4096;
/// A window is closed this often, minutes.
const WINDOW: u64 = 20;
const DAYS: u64 = 7;
const DAY: u64 = 24 * 60;
/// Between two runs nobody watches, minutes.
const PAUSE: u64 = 20;
/// What leaks, bytes an hour.
const LEAK: f64 = 1e6;
/// What the service may have.
const LIMIT: u64 = 256 << 20;
/// Monday, milliseconds since 1970.
const BEGIN: u64 = 1_764_547_200_000;
/// A leak is to be found in each run within this time, minutes.
const FOUND_WITHIN: u64 = 120;

/// One call path: pages that came in, and those of them that are there still.
#[derive(Debug, Clone, Copy, Default)]
struct Path {
    touched: u64,
    live: u64,
}

impl Path {
    fn level(self) -> Level {
        Level {
            live_bytes: self.live * PAGE,
            live_count: self.live,
            allocated_count: self.touched,
        }
    }

    fn touch(&mut self, pages: u64) {
        self.touched += pages;
        self.live += pages;
    }
}

/// A service that leaks, fills a cache in its first half hour, and uses memory for its requests.
struct Program {
    rng: Rng,
    /// Of a page, what leaked and is not one yet.
    part: f64,
    leak: Path,
    cache: Path,
    requests: Path,
}

/// Names of the paths, in the order of [`Program::paths`].
const NAMES: [&str; 3] = ["leaks", "fills_cache", "serves"];

impl Program {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            part: 0.0,
            leak: Path::default(),
            cache: Path::default(),
            requests: Path::default(),
        }
    }

    fn paths(&self) -> [Path; 3] {
        [self.leak, self.cache, self.requests]
    }

    /// A minute in which it runs; `age`: how many did so before.
    fn run(&mut self, age: u64) {
        // Some minutes have many requests, others few.
        self.part += LEAK / 60.0 / PAGE as f64 * 2.0 * self.rng.f64();
        let pages = whole(self.part);
        self.part -= pages as f64;
        self.leak.touch(pages);
        if age < 30 {
            self.cache.touch(500);
        }
        let wanted = self.rng.u64(2000..8000);
        self.requests
            .touch(wanted.saturating_sub(self.requests.live));
        self.requests.live = wanted;
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small number, not below zero"
)]
const fn whole(value: f64) -> u64 {
    value as u64
}

fn key(path: usize) -> SiteKey {
    SiteKey {
        high: 0,
        low: path as u64,
    }
}

/// What a run of the tracer has seen: of pages that were there before it knows nothing.
struct Run {
    curves: Curves,
    before: [Path; 3],
    /// Minutes.
    age: u64,
}

impl Run {
    fn begin(program: &Program) -> Self {
        Self {
            curves: Curves::default(),
            before: program.paths(),
            age: 0,
        }
    }

    fn seen(&self, program: &Program) -> Vec<Path> {
        let paths = self.before.iter().zip(program.paths());
        let seen = paths.map(|(before, now)| Path {
            touched: now.touched - before.touched,
            live: now.live.saturating_sub(before.live),
        });
        seen.collect()
    }

    /// A window is closed: what is told of it.
    fn report(&mut self, program: &Program) -> Report {
        let now = (self.age * 60) as f64;
        let seen = self.seen(program);
        let live = seen.iter().enumerate().filter(|(_, path)| path.live > 0);
        let levels: HashMap<_, _> = live
            .map(|(at, path)| ((key(at), MemoryKind::Page), path.level()))
            .collect();
        self.curves.enter(now, levels);
        let sites = seen.iter().enumerate().filter(|(_, path)| path.touched > 0);
        let sites = sites.map(|(at, path)| self.site(at, *path, now)).collect();
        let total: u64 = program.paths().iter().map(|path| path.live * PAGE).sum();
        let mut report = sample::report();
        report.duration = now;
        report.processes[0].ended = now;
        report.sites = sites;
        report.limits = vec![MemoryLimit {
            name: "cgroup /week".to_owned(),
            bytes: LIMIT,
            left: LIMIT - total,
        }];
        conclude(&mut report);
        report
    }

    fn site(&self, at: usize, path: Path, now: f64) -> Site {
        let frame = sample::program(NAMES[at], "week.c", 7, 0x40_1000 + at as u64);
        let gone = path.touched - path.live;
        let live = (path.live * PAGE, path.live);
        Site {
            kind: MemoryKind::Page,
            first_seen: 60.0,
            last_seen: now,
            oldest_age: (path.live > 0).then_some(now - 60.0),
            curve: self.curves.of(key(at), MemoryKind::Page),
            ..sample::site(at as u64 + 1, live, (gone * PAGE, gone), vec![frame])
        }
    }
}

fn of_leak(report: &Report) -> Option<&Finding> {
    let mut findings = report.findings.iter();
    findings.find(|it| it.function == NAMES[0] && it.kind.is_growth())
}

/// It is named, with its rate and when it is at the limit.
#[track_caller]
fn is_right(report: &Report, finding: &Finding) {
    let rate = finding.bytes_per_second;
    let real = LEAK / 3600.0;
    assert!((0.7..1.3).contains(&(rate / real)), "{finding:?}");
    let forecast = finding.forecast.as_ref().unwrap();
    let expected = report.limits[0].left as f64 / rate;
    assert!((forecast.seconds / expected - 1.0).abs() < 1e-6);
    assert_eq!(forecast.limit, "cgroup /week");
}

fn kept(report: &Report) -> Kept {
    Kept {
        service: "week".to_owned(),
        summary: serde_json::to_vec(&report.duration).unwrap(),
        profile: b"profile".to_vec(),
        findings: serde_json::to_vec(&report.findings).unwrap(),
    }
}

/// Minutes of a run in which the leak is a finding, and the last one before it was.
struct Seen {
    found_after: u64,
    last: Option<Finding>,
}

fn day(store: &Store, program: &mut Program, minutes: RangeInclusive<u64>) -> Seen {
    let week = Duration::from_hours(DAYS * 24);
    let mut run = Run::begin(program);
    let mut seen = Seen {
        found_after: 0,
        last: None,
    };
    for minute in minutes {
        program.run(minute);
        run.age += 1;
        if !run.age.is_multiple_of(WINDOW) {
            continue;
        }
        let report = run.report(program);
        match of_leak(&report) {
            Some(finding) if run.age > FOUND_WITHIN => is_right(&report, finding),
            Some(_) => {}
            None => seen.found_after = run.age,
        }
        let others = report.findings.iter();
        let mut others =
            others.filter(|it| it.kind == FindingKind::Leak && it.function != NAMES[0]);
        assert!(others.next().is_none(), "{:?}", report.findings);
        let ended = store.began() + run.age * 60_000;
        store.keep(ended, &[kept(&report)], 1 << 30, week).unwrap();
        seen.last = of_leak(&report).cloned();
    }
    seen
}

#[test]
fn a_leak_of_a_megabyte_an_hour_is_found_on_each_day_of_a_week() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::new(7919);
    for number in 0..DAYS {
        let first = number * DAY;
        let last = first + DAY - 1 - PAUSE;
        let (store, gap) = Store::open(folder.path(), BEGIN + first * 60_000).unwrap();
        assert_eq!(gap.is_some(), number > 0);
        let seen = day(&store, &mut program, first..=last);
        println!(
            "day {number}: a finding from minute {} on: {:?}",
            seen.found_after + WINDOW,
            seen.last
        );
        assert!(seen.found_after < FOUND_WITHIN, "{}", seen.found_after);
        if number.is_multiple_of(2) {
            store.stop(store.began() + (DAY - PAUSE) * 60_000).unwrap();
        }
        // Nobody watches, and the program goes on.
        (last + 1..first + DAY).for_each(|minute| program.run(minute));
    }
    let end = BEGIN + DAYS * DAY * 60_000;
    let (store, gap) = Store::open(folder.path(), end).unwrap();
    assert_eq!(gap.map(|gap| gap.lost), Some(false));
    let gaps = store.gaps().unwrap();
    let lost: Vec<bool> = gaps.iter().map(|gap| gap.lost).collect();
    assert_eq!(lost, [false, true, false, true, false, true, false]);
    let pauses = gaps.iter().map(|gap| (gap.to - gap.from) / 60_000);
    assert!(pauses.clone().all(|pause| pause == PAUSE), "{gaps:?}");
    // All windows of the week are there, and what was found in the first of them that had it.
    let windows = (DAY - PAUSE) / WINDOW * DAYS;
    let kept = store.summaries("week", usize::MAX).unwrap();
    assert_eq!(kept.len() as u64, windows);
    let ended = BEGIN + FOUND_WITHIN * 60_000;
    let findings = store.findings("week", ended).unwrap().unwrap();
    let findings: Vec<Finding> = serde_json::from_slice(&findings).unwrap();
    assert!(
        findings.iter().any(|it| it.function == NAMES[0]),
        "{findings:?}"
    );
}
