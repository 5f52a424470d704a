use super::*;
use crate::model::{CurvePoint, Errors, Level, LifetimeBucket};
use crate::report::sample;

#[test]
fn what_was_not_seen_is_not_sure() {
    let gone = Site {
        live_bytes: 0,
        live_count: 0,
        allocated_count: 900,
        freed_count: 900,
        ..sample::report().sites[1].clone()
    };
    let said = |seen: Option<(u64, u64)>, survival: Option<Survival>| {
        let errors = seen.map(|(samples, live_samples)| Errors {
            samples,
            live_samples,
            ..Errors::default()
        });
        let site = Site {
            errors,
            survival,
            ..gone.clone()
        };
        judge(&site, 60.0).map(|it| (it.verdict, it.confidence))
    };
    let churn = |confidence| Some((Verdict::Churn, confidence));
    let bursts = Some(Survival::default());
    assert_eq!(said(None, None), churn(MOST_CERTAIN));
    assert_eq!(said(Some((3, 0)), None), churn(0.8));
    assert_eq!(said(Some((900, 0)), bursts), churn(IN_BURSTS));
    assert_eq!(said(Some((0, 0)), bursts), None, "no burst saw one");
    assert_eq!(said(Some((9, 2)), bursts), None, "two may be live");
    assert_eq!(said(None, bursts), None);
}

/// Workers that have each made a query so far, of which a few results are kept until the next
/// one.
#[test]
fn a_few_lots_that_stay_are_no_leak_yet() {
    let lots = [2.5, 5.5, 8.5, 11.5];
    let end = 14.0;
    let came = |at: f64| 82 * lots.iter().filter(|lot| **lot <= at).count() as u64;
    let looks = (8..=46).map(|look| f64::from(look) * 0.3);
    let curve = looks.map(|at| {
        let level = Level {
            live_bytes: 1200 * came(at),
            live_count: came(at),
            allocated_count: 256 * came(at),
        };
        CurvePoint::new(at, level)
    });
    let live = came(end);
    let bucket = |below: f64, count: u64| LifetimeBucket {
        below: Some(below),
        count,
    };
    let site = Site {
        live_bytes: 1200 * live,
        live_count: live,
        allocated_count: 256 * live,
        freed_count: 255 * live,
        oldest_age: Some(end - lots[0]),
        first_seen: lots[0],
        last_seen: lots[3] + 0.1,
        lifetimes: vec![bucket(0.134, 255 * live)],
        ages: vec![bucket(4.3, 82), bucket(8.6, 164), bucket(17.2, 82)],
        curve: curve.collect(),
        ..sample::report().sites[1].clone()
    };
    let said = judge(&site, end).map(|it| it.verdict);
    assert_eq!(said, Some(Verdict::Growing));
}

/// A mapping of the start, of which so many of twelve looks found more in memory.
fn filled(rises: u32, resident: u64) -> Site {
    let level = Level {
        live_bytes: 7 << 20,
        live_count: 1,
        allocated_count: 1,
    };
    let looks = (1..=40).map(|look| CurvePoint::new(f64::from(look) * 0.325, level));
    Site {
        kind: MemoryKind::Mapping,
        live_bytes: 7 << 20,
        live_count: 1,
        allocated_count: 1,
        freed_count: 0,
        freed_bytes: 0,
        oldest_age: Some(12.8),
        first_seen: 0.2,
        last_seen: 0.2,
        lifetimes: Vec::new(),
        ages: Vec::new(),
        curve: looks.collect(),
        resident_bytes: Some(resident),
        resident_peak: Some(resident),
        resident_looks: 12,
        resident_rises: rises,
        ..sample::report().sites[1].clone()
    }
}

#[test]
fn a_mapping_that_fills_grows_whenever_it_was_made() {
    let said = |rises, resident| judge(&filled(rises, resident), 13.0).map(|it| it.verdict);
    assert_eq!(said(12, 5 << 20), Some(Verdict::Growing));
    assert_eq!(said(3, 5 << 20), Some(Verdict::Startup), "it was filled");
    assert_eq!(said(12, 5 << 10), Some(Verdict::Startup), "it is little");
}

/// An arena whose blocks are each half as large again as the one before.
#[test]
fn an_arena_that_takes_ever_larger_blocks_grows() {
    let births = [
        (0.6, 2_270_080),
        (2.3, 3_405_120),
        (4.9, 5_107_712),
        (9.1, 7_661_568),
    ];
    let looks = (0..=40).map(|look| {
        let at = 0.6 + f64::from(look) * 0.31;
        let sizes = births.iter().filter(|it| it.0 < at).map(|it| it.1);
        let level = Level {
            live_bytes: sizes.clone().sum(),
            live_count: sizes.clone().count() as u64,
            allocated_count: sizes.count() as u64,
        };
        CurvePoint::new(at, level)
    });
    let bucket = |below: f64, count: u64| LifetimeBucket {
        below: Some(below),
        count,
    };
    let site = Site {
        live_bytes: births.iter().map(|it| it.1).sum(),
        live_count: 4,
        allocated_count: 4,
        freed_count: 0,
        freed_bytes: 0,
        oldest_age: Some(12.4),
        first_seen: 0.6,
        last_seen: 9.1,
        lifetimes: Vec::new(),
        ages: vec![bucket(4.3, 1), bucket(17.2, 3)],
        curve: looks.collect(),
        ..sample::report().sites[1].clone()
    };
    assert_eq!(
        judge(&site, 13.0).map(|it| it.verdict),
        Some(Verdict::Growing)
    );
    // As large as the first, and so no more memory than three of four.
    let stays = Site {
        last_seen: 2.3,
        ..site
    };
    assert_ne!(
        judge(&stays, 13.0).map(|it| it.verdict),
        Some(Verdict::Leak)
    );
}

/// Half of what comes is collected at these looks, of 50 in 15 s; `stays` of the rest stays after the
/// next time.
fn collected(looks: &[u64], stays: bool) -> Site {
    let live = |look: u64| {
        let last = looks.iter().rfind(|it| **it <= look).copied().unwrap_or(0);
        let kept = if stays { 70 * last } else { 70 };
        kept + 140 * (look - last)
    };
    let curve = (0..=50).map(|look| {
        let level = Level {
            live_bytes: 2000 * live(look),
            live_count: live(look),
            allocated_count: 140 * look,
        };
        CurvePoint::new(look as f64 * 0.3, level)
    });
    let bucket = |below: f64, count: u64| LifetimeBucket {
        below: Some(below),
        count,
    };
    let freed = 7000 - live(50);
    Site {
        live_bytes: 2000 * live(50),
        live_count: live(50),
        allocated_bytes: 2000 * 7000,
        allocated_count: 7000,
        freed_count: freed,
        freed_bytes: 2000 * freed,
        oldest_age: Some(if stays { 15.0 } else { 3.0 }),
        first_seen: 0.0,
        last_seen: 15.0,
        lifetimes: vec![bucket(8.6, freed)],
        ages: vec![bucket(17.2, live(50))],
        curve: curve.collect(),
        ..sample::report().sites[1].clone()
    }
}

#[test]
fn what_collections_leave_grows_however_uneven_it_is() {
    let said = |looks: &[u64], stays| judge(&collected(looks, stays), 15.0).map(|it| it.verdict);
    let three = [7, 27, 45];
    assert_eq!(said(&three, true), Some(Verdict::Growing));
    let grows = |verdict: Option<Verdict>| verdict.is_some_and(Verdict::grows);
    assert!(!grows(said(&three, false)), "all of it is collected");
    assert!(!grows(said(&[7, 45], true)), "two say nothing");
}

/// A path that was seen in bursts: so many blocks from one time to another, none of which
/// died.
fn seen_in_bursts(blocks: u64, (first, last): (f64, f64)) -> Site {
    Site {
        live_bytes: 16 * blocks,
        live_count: blocks,
        allocated_count: blocks,
        freed_count: 0,
        first_seen: first,
        last_seen: last,
        errors: Some(Errors {
            samples: blocks,
            live_samples: blocks,
            ..Errors::default()
        }),
        survival: Some(Survival {
            followed: blocks,
            expected: 9.0,
            ..Survival::default()
        }),
        ..sample::report().sites[1].clone()
    }
}

#[test]
fn what_stays_is_a_leak_in_bursts_if_more_comes() {
    let said = |site: &Site| judge(site, 120.0).map(|it| it.verdict);
    let goes_on = seen_in_bursts(19, (5.0, 119.0));
    assert_eq!(said(&goes_on), Some(Verdict::Leak));
    let rests = seen_in_bursts(900, (5.0, 100.0));
    assert_eq!(said(&rests), Some(Verdict::Leak), "it may go on");
    let at_once = seen_in_bursts(19, (54.9, 54.9003));
    assert_eq!(said(&at_once), None);
    let begins = seen_in_bursts(19, (25.033, 25.0335));
    assert_eq!(said(&begins), Some(Verdict::Startup));
    assert_eq!(said(&seen_in_bursts(2, (50.0, 110.0))), None);
    let mut many = seen_in_bursts(2, (50.0, 110.0));
    many.live_count = 900;
    many.survival = Some(Survival {
        followed: 2,
        expected: 1.5,
        ..Survival::default()
    });
    assert_eq!(said(&many), Some(Verdict::Growing), "it stands for others");
}

#[test]
fn what_a_compiler_keeps_is_no_leak_in_bursts_either() {
    let mut site = seen_in_bursts(40, (5.0, 119.0));
    let compiler = sample::library("CompileBroker::compiler_thread_loop()", 1);
    site.frames.insert(0, compiler);
    let said = |site: &Site| judge(site, 120.0).map(|it| it.verdict);
    assert_eq!(said(&site), Some(Verdict::Growing));
    site.errors = Some(Errors {
        samples: 9,
        live_samples: 9,
        ..Errors::default()
    });
    site.live_count = 9;
    assert_eq!(said(&site), None);
}
