//! Programs whose blocks are born and die by chance, and what is said of them: healthy
//! ones and leaks. How long a cache or a pool takes until it is full does not hang on how
//! long it is looked at: any time up to half an hour is as likely, on a logarithmic scale.

use std::collections::BTreeMap;

use fastrand::Rng;
use tracer_ebpf::lifetime;
use tracer_ebpf::limits::LIFETIME_BUCKETS;

use super::judge::judge;
use crate::model::{CurvePoint, Judgement, Level, LifetimeBucket, Site, Verdict};
use crate::report::sample;
use crate::window::collect::lifetime_buckets;

/// When a block is born and when it is freed, seconds.
pub type Life = (f64, f64);

const SIZE: u64 = 100;
const LOOKS: u32 = 56;
const NEVER: f64 = f64::INFINITY;
/// The longest that a healthy program takes until it grows no more, seconds.
const LONGEST: f64 = 1800.0;

/// A time between two, each power of ten as likely as another.
fn log_uniform(rng: &mut Rng, low: f64, high: f64) -> f64 {
    (low.ln() + rng.f64() * (high / low).ln()).exp()
}

fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

/// Births at random until `end`, `count` of them in the mean.
pub fn births(rng: &mut Rng, end: f64, count: f64) -> Vec<f64> {
    let (mut births, mut at) = (Vec::new(), 0.0);
    loop {
        at += exponential(rng, end / count);
        if at >= end {
            return births;
        }
        births.push(at);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers, above zero"
)]
const fn whole(value: f64) -> u64 {
    value as u64
}

fn buckets(ages: impl Iterator<Item = f64>) -> Vec<LifetimeBucket> {
    let mut counts = [0; LIFETIME_BUCKETS];
    for age in ages {
        counts[lifetime::bucket(whole(age * 1e9))] += 1;
    }
    lifetime_buckets(&counts)
}

/// The site of these blocks, after `end` seconds.
pub fn site(lives: &[Life], end: f64) -> Site {
    let count = |which: &dyn Fn(&&Life) -> bool| lives.iter().filter(which).count() as u64;
    let is_live = |at: f64| move |life: &&Life| life.0 <= at && life.1 > at;
    let freed = || lives.iter().filter(|life| life.1 <= end);
    let live = || lives.iter().filter(|life| life.1 > end);
    let looks = (1..=LOOKS).map(|look| {
        let at = end * f64::from(look) / f64::from(LOOKS);
        let live_count = count(&is_live(at));
        let level = Level {
            live_bytes: live_count * SIZE,
            live_count,
            allocated_count: count(&|life| life.0 <= at),
        };
        CurvePoint::new(at, level)
    });
    let births = || lives.iter().map(|life| life.0);
    let (all, alive) = (lives.len() as u64, live().count() as u64);
    Site {
        live_bytes: alive * SIZE,
        live_count: alive,
        allocated_bytes: all * SIZE,
        allocated_count: all,
        freed_bytes: (all - alive) * SIZE,
        freed_count: all - alive,
        oldest_age: live().map(|life| end - life.0).reduce(f64::max),
        first_seen: births().fold(NEVER, f64::min),
        last_seen: births().fold(0.0, f64::max),
        lifetimes: buckets(freed().map(|life| life.1 - life.0)),
        ages: buckets(live().map(|life| end - life.0)),
        curve: looks.collect(),
        ..sample::report().sites[0].clone()
    }
}

/// Keeps the last blocks, as many as come in some seconds.
fn full_cache(rng: &mut Rng, end: f64) -> Vec<Life> {
    let (fills_in, count) = (
        log_uniform(rng, 0.05, LONGEST),
        log_uniform(rng, 20.0, 2000.0),
    );
    let births = births(rng, end, count);
    let keeps = births.iter().filter(|at| **at < fills_in).count().max(1);
    let dies = |index: usize| births.get(index + keeps).copied().unwrap_or(NEVER);
    births
        .iter()
        .enumerate()
        .map(|(index, at)| (*at, dies(index)))
        .collect()
}

fn expiring(rng: &mut Rng, end: f64) -> Vec<Life> {
    let (lives, count) = (
        log_uniform(rng, 1e-3, LONGEST),
        log_uniform(rng, 20.0, 2000.0),
    );
    births(rng, end, count)
        .into_iter()
        .map(|at| (at, at + lives))
        .collect()
}

fn random(rng: &mut Rng, end: f64) -> Vec<Life> {
    let (mean, count) = (log_uniform(rng, 1e-4, end), log_uniform(rng, 20.0, 2000.0));
    let births = births(rng, end, count);
    births
        .into_iter()
        .map(|at| (at, at + exponential(rng, mean)))
        .collect()
}

fn startup(rng: &mut Rng, end: f64) -> Vec<Life> {
    let takes = log_uniform(rng, 1e-2, 0.2 * end);
    let count = log_uniform(rng, 1.0, 500.0);
    births(rng, takes, count.max(1.5))
        .into_iter()
        .map(|at| (at, NEVER))
        .collect()
}

fn batches(rng: &mut Rng, end: f64) -> Vec<Life> {
    let (period, count) = (
        log_uniform(rng, 0.05, 0.4) * end,
        log_uniform(rng, 50.0, 2000.0),
    );
    let freed = |at: f64| (at / period).floor().mul_add(period, period);
    births(rng, end, count)
        .into_iter()
        .map(|at| (at, freed(at)))
        .collect()
}

/// Fewer and fewer come, as of a set of which all are known some day.
fn pool(rng: &mut Rng, end: f64) -> Vec<Life> {
    let (known, count) = (
        log_uniform(rng, 0.05, LONGEST / 3.0),
        log_uniform(rng, 20.0, 1000.0),
    );
    let mut born: Vec<f64> = Vec::new();
    for _ in 0..whole(count) {
        let at = exponential(rng, known);
        if at < end {
            born.push(at);
        }
    }
    born.into_iter().map(|at| (at, NEVER)).collect()
}

fn steady_leak(rng: &mut Rng, end: f64) -> Vec<Life> {
    let count = log_uniform(rng, 10.0, 2000.0);
    births(rng, end, count)
        .into_iter()
        .map(|at| (at, NEVER))
        .collect()
}

/// Some of what comes is forgotten, the rest lives shortly.
fn partial_leak(rng: &mut Rng, end: f64) -> Vec<Life> {
    let (part, mean) = (
        log_uniform(rng, 0.01, 0.8),
        log_uniform(rng, 1e-4, 0.02 * end),
    );
    let births = births(rng, end, 2000.0);
    let dies = |rng: &mut Rng, at: f64| match rng.f64() < part {
        true => NEVER,
        false => at + exponential(rng, mean),
    };
    births.into_iter().map(|at| (at, dies(rng, at))).collect()
}

/// With rests of the same length as its bursts.
fn bursty_leak(rng: &mut Rng, end: f64) -> Vec<Life> {
    let (period, count) = (
        log_uniform(rng, 0.02, 0.2) * end,
        log_uniform(rng, 100.0, 2000.0),
    );
    let all = births(rng, end, count).into_iter();
    let works = |at: &f64| (at / period).fract() < 0.5;
    all.filter(works).map(|at| (at, NEVER)).collect()
}

type Program = fn(&mut Rng, f64) -> Vec<Life>;

const HEALTHY: [(&str, Program); 6] = [
    ("full cache", full_cache),
    ("expiring", expiring),
    ("random", random),
    ("start-up", startup),
    ("batches", batches),
    ("pool", pool),
];
const LEAKS: [(&str, Program); 3] = [
    ("steady leak", steady_leak),
    ("partial leak", partial_leak),
    ("bursty leak", bursty_leak),
];
const RUNS: usize = 150;

fn judged(program: Program, end: f64, seed: u64) -> Option<Judgement> {
    let lives = program(&mut Rng::with_seed(seed), end);
    match lives.is_empty() {
        true => None,
        false => judge(&site(&lives, end), end),
    }
}

/// How often each verdict is given.
fn verdicts(program: Program, end: f64) -> BTreeMap<Option<Verdict>, usize> {
    let mut counts = BTreeMap::new();
    for seed in 0..RUNS {
        let judgement = judged(program, end, seed as u64);
        *counts.entry(judgement.map(|it| it.verdict)).or_default() += 1;
    }
    counts
}

#[test]
fn leaks_are_found() {
    for (end, least) in [(14.0, 0.85), (30.0, 0.9), (120.0, 0.9)] {
        for (name, program) in LEAKS {
            let counts = verdicts(program, end);
            let found = counts.get(&Some(Verdict::Leak)).copied().unwrap_or(0);
            let part = found as f64 / RUNS as f64;
            println!("{end} s, {name}: {counts:?}");
            assert!(part >= least, "{name} after {end} s: {counts:?}");
        }
    }
}

/// What is said to be a leak with a confidence is one as often as that, where leaks are as
/// many as healthy programs.
#[test]
fn confidence_is_what_it_says() {
    for end in [14.0, 30.0, 120.0, 600.0] {
        // By tenths of confidence: sum of confidences, right ones, all; weighted.
        let mut bins = [(0.0, 0.0, 0.0); 10];
        for (programs, is_leak) in [(&HEALTHY[..], false), (&LEAKS[..], true)] {
            for (name, program) in programs {
                let mut said = 0;
                for seed in 0..RUNS {
                    let Some(judgement) = judged(*program, end, seed as u64) else {
                        continue;
                    };
                    if judgement.verdict != Verdict::Leak {
                        continue;
                    }
                    said += 1;
                    let weight = 1.0 / programs.len() as f64;
                    let bin = &mut bins[whole(judgement.confidence * 10.0).min(9) as usize];
                    bin.0 += weight * judgement.confidence;
                    bin.1 += if is_leak { weight } else { 0.0 };
                    bin.2 += weight;
                }
                println!("{end} s, {name}: said to leak {said} of {RUNS}");
            }
        }
        for (confidence, right, all) in bins {
            // Of fewer chance makes more.
            if all < 15.0 {
                continue;
            }
            let (said, is) = (confidence / all, right / all);
            println!("{end} s: said {said:.2}, is {is:.2} of {all:.0}");
            assert!(is >= said - 0.1, "after {end} s: {said} {is}");
        }
    }
}

#[test]
fn healthy_programs_are_what_they_are() {
    let expected: [(Program, &[Verdict]); 4] = [
        (random, &[Verdict::Churn, Verdict::Plateau, Verdict::Batch]),
        (startup, &[Verdict::Startup]),
        (batches, &[Verdict::Batch, Verdict::Churn]),
        (
            pool,
            &[Verdict::Plateau, Verdict::Growing, Verdict::Startup],
        ),
    ];
    for (program, right) in expected {
        let counts = verdicts(program, 120.0);
        println!("{counts:?}");
        let good = right.iter().filter_map(|it| counts.get(&Some(*it)));
        // Of some too little is known.
        let unknown = counts.get(&None).copied().unwrap_or(0);
        let good = good.sum::<usize>() + unknown;
        assert!(good >= RUNS * 7 / 10, "{right:?}: {counts:?}");
    }
}

/// What came at once came once, whether its curve is known or not.
#[test]
fn many_blocks_at_once_are_no_growth() {
    let lives: Vec<Life> = (0..24)
        .map(|at| (80.0 + 0.02 * f64::from(at), NEVER))
        .collect();
    let known = site(&lives, 120.0);
    let unknown = Site {
        curve: Vec::new(),
        ..known.clone()
    };
    for site in [known, unknown] {
        let judgement = judge(&site, 120.0);
        let grows = judgement.is_some_and(|it| it.verdict.grows());
        assert!(!grows, "{judgement:?}");
    }
}

/// A table that doubles when it is full gets larger ever more seldom; one that did so no
/// more is none that grows.
#[test]
fn one_block_that_doubles_grows() {
    let table = |last: f64| {
        let ends = |at: f64| if at < last { 2.0 * at } else { NEVER };
        let times = std::iter::successors(Some(0.5), |at| Some(2.0 * at));
        let times: Vec<f64> = times.take_while(|at| *at <= last).collect();
        let lives: Vec<Life> = times.iter().map(|at| (*at, ends(*at))).collect();
        let mut site = site(&lives, 120.0);
        for point in &mut site.curve {
            let size = times.iter().rfind(|time| **time <= point.at);
            point.live_bytes = whole(1000.0 * size.copied().unwrap_or(0.0));
        }
        judge(&site, 120.0).map(|judgement| judgement.verdict)
    };
    assert_eq!(table(64.0), Some(Verdict::Growing));
    assert_eq!(table(8.0), Some(Verdict::Startup));
}

/// A compiler's arenas: one or two are live, some for long, and all are given back.
#[test]
fn what_is_needed_one_at_a_time_is_no_growth() {
    for seed in 0..RUNS as u64 {
        let mut rng = Rng::with_seed(seed);
        let mut at = 3.0;
        let mut lives: Vec<Life> = Vec::new();
        while at < 118.0 {
            let takes = exponential(&mut rng, 0.3);
            lives.push((at, at + takes));
            at += takes + exponential(&mut rng, 2.0);
        }
        // Two of the last rest until the next is needed.
        let count = lives.len();
        for life in &mut lives[count / 4..=count / 4 + 1] {
            life.1 = NEVER;
        }
        let judgement = judge(&site(&lives, 120.0), 120.0);
        let grows = judgement.is_some_and(|it| it.verdict.grows());
        assert!(!grows, "{seed}: {judgement:?}");
    }
}

/// What a runtime's compiler keeps grows while a program warms up, and is not said to leak.
#[test]
fn what_a_compiler_keeps_grows() {
    let lives = steady_leak(&mut Rng::with_seed(1), 120.0);
    let mut site = site(&lives, 120.0);
    let verdict = |site: &Site| judge(site, 120.0).map(|it| it.verdict);
    assert_eq!(verdict(&site), Some(Verdict::Leak));
    let compiler = sample::library("CompileBroker::compiler_thread_loop()", 1);
    site.frames.insert(0, compiler);
    assert_eq!(verdict(&site), Some(Verdict::Growing));
}
