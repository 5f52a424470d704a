//! How long it takes to judge and to draw the largest report that a run can make: 16,000
//! call paths of 127 frames, each with its curve, lifetimes and ages.

use rustix::time::{ClockId, clock_gettime};

use super::conclude;
use crate::model::name::Name;
use crate::model::{CurvePoint, Frame, Level, LifetimeBucket, Report, Site, Verdict};
use crate::report::sample;
use crate::report::text::{self, Layout};

const SITES: u64 = 16_000;
const FRAMES: u64 = 127;
const LOOKS: u64 = 64;
/// Of so many call paths one leaks; of another one caches, and others are of the start.
const KINDS: u64 = 16;

/// Of this thread, seconds.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What is live at a look of a path that leaks, of a cache that is full, or since the start.
fn live(kind: u64, look: u64) -> u64 {
    match kind {
        0 => look * 10,
        1 => look.min(LOOKS / 4) * 10,
        _ => 10,
    }
}

fn seconds(look: u64) -> f64 {
    look as f64 * 60.0 / LOOKS as f64
}

fn site(id: u64, functions: &[Name]) -> Site {
    let kind = id % KINDS;
    let frame = |depth: u64| {
        // Paths part at half of their depth.
        let number = if depth < FRAMES / 2 {
            depth
        } else {
            id * 7 + depth * 31
        };
        let at = usize::try_from(number).unwrap() % functions.len();
        Frame {
            function: Some(functions[at].clone()),
            ..sample::program("", "a.cpp", u32::try_from(depth).unwrap(), number)
        }
    };
    let bucket = |below, count| LifetimeBucket {
        below: Some(below),
        count,
    };
    let point = |look: u64| {
        let live_count = live(kind, look);
        let level = Level {
            live_bytes: live_count * 1_009,
            live_count,
            allocated_count: look * 10,
        };
        CurvePoint::new(seconds(look), level)
    };
    let count = live(kind, LOOKS);
    let churns = kind == 1;
    let freed = if churns { LOOKS * 10 - count } else { 0 };
    Site {
        frames: (0..FRAMES).map(frame).collect(),
        curve: (1..=LOOKS).map(point).collect(),
        ages: vec![
            bucket(seconds(1), count / 2),
            bucket(60.0, count - count / 2),
        ],
        lifetimes: if churns {
            vec![bucket(16.0, freed)]
        } else {
            vec![]
        },
        last_seen: if kind > 1 { 1.0 } else { 59.9 },
        ..sample::site(id, (count * 1_009, count), (freed * 1_009, freed), vec![])
    }
}

fn report() -> Report {
    let functions: Vec<Name> = (0..4_001)
        .map(|number| format!("acme::layer{}::Handler::method_{number}(int)", number % 97).into())
        .collect();
    let mut report = sample::report();
    report.findings.clear();
    report.sites = (1..=SITES).map(|id| site(id, &functions)).collect();
    report.totals.live_bytes = report.sites.iter().map(|site| site.live_bytes).sum();
    report.totals.live_count = report.sites.iter().map(|site| site.live_count).sum();
    report
}

#[test]
fn the_largest_report_is_judged_and_drawn() {
    let mut report = report();
    let start = processor_time();
    conclude(&mut report);
    let judged = processor_time();
    let table = text::render(&report, &Layout::new(10, Some(100), false));
    let drawn = processor_time();
    let leaks = report
        .sites
        .iter()
        .filter(|it| it.verdict == Some(Verdict::Leak));
    assert_eq!(leaks.count() as u64, SITES / KINDS);
    assert!(table.contains("1. LEAK"), "{table}");
    println!(
        "{SITES} call paths of {FRAMES} frames: judged in {:.2} s, table in {:.2} s of processor time",
        judged - start,
        drawn - judged
    );
}
