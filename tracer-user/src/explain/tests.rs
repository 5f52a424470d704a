use unicode_width::UnicodeWidthStr;

use super::*;
use crate::model::{
    AllocationPath, By, ClassGrowth, Growth, GrowthVerdict, HeapSample, HeapSampling, JavaHeap,
    Level, LifetimeBucket, Originals, StackEnd, Verdict,
};
use crate::report::sample;

fn layout() -> Layout {
    Layout::new(10, Some(100), false)
}

fn explained(report: &Report, number: &str) -> String {
    render(report, number.parse().unwrap(), &layout()).unwrap()
}

/// A report whose leak has a curve and a life table.
fn report() -> Report {
    let mut report = sample::report();
    let site = &mut report.sites[0];
    site.curve = (1..=60)
        .map(|at| {
            let live_count = at * 10_007 / 60;
            let level = Level {
                live_bytes: live_count * 1_009,
                live_count,
                allocated_count: live_count + at,
            };
            CurvePoint::new(f64::from(u32::try_from(at).unwrap()), level)
        })
        .collect();
    let bucket = |below, count| LifetimeBucket { below, count };
    (site.freed_count, site.freed_bytes) = (60, 60 * 1_009);
    site.allocated_count += 60;
    site.lifetimes = vec![bucket(Some(0.001), 60)];
    site.ages = vec![
        bucket(Some(0.5), 7),
        bucket(Some(32.0), 5_000),
        bucket(None, 5_000),
    ];
    report
}

#[test]
fn a_leaks_evidence_is_its_curve_its_lifetimes_and_its_whole_path() {
    let mut report = report();
    let frame = &mut report.sites[0].frames[2];
    frame.originals = Some(std::sync::Arc::new(Originals {
        count: 7,
        ..Originals::one("open_session17".into(), By::Numbers)
    }));
    let text = explained(&report, "1");
    for part in [
        "1. LEAK (90 % sure) open_session(int) allocates memory",
        "What was live over time (bytes)\n    9.63 MiB │",
        "└0 s",
        "in all: 10,067 allocated (168/s), 60 freed (1.00/s)",
        "in the first half: 5,033 allocated",
        "in the last half: 5,034 allocated",
        "<1.00 ms            60             0    99.4 %",
        "Speaks for “leak”",
        "- 95 % of the freed blocks lived for less than 1.00 ms, and 99.40 % of all outlive 4.00 ms.",
        "- more was live at 59 of 59 looks.",
        "- it grew by 4.73 MiB in the first half of its time and by 4.73 MiB in the last",
        "Speaks against “leak”\n  nothing that was seen",
        "The whole call path, leaf first\n  malloc  (libc.so.6)\n  Session::Session() (inlined)",
        "  __libc_start_main  (libc.so.6)",
        "open_session(int): open_session17, and 6 others",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn what_does_no_harm_is_explained_the_other_way_round() {
    let text = explained(&report(), "2");
    for part in [
        "2. CHURN (97 % sure): a call path that holds 1,021 KiB in 1,024 blocks",
        "not known: curves are kept",
        "Speaks for “churn”\n  - 95 % of the freed blocks lived for less than 268 ms, and no live one",
        "Speaks against “churn”\n  - blocks came until the end (the last 100 ms before it).",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let error = render(&report(), "9".parse().unwrap(), &layout()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("there is no finding or row 9: they are 1 to 3"),
        "{error}"
    );
    let mut none = sample::report();
    (none.sites, none.findings) = (vec![], vec![]);
    let error = render(&none, RowNumber::whole(1), &layout()).unwrap_err();
    assert!(error.to_string().contains("the report has none"));
}

#[test]
fn a_class_is_explained_by_its_histograms() {
    let mut report = sample::report();
    let at = |at: u32| HeapSample {
        at: at.into(),
        collections: Some(u64::from(at) * 2),
        ..HeapSample::default()
    };
    let class = ClassGrowth {
        class: "com.acme.Order".into(),
        verdict: GrowthVerdict::Grows,
        instances: vec![10, 20, 30],
        bytes: vec![240, 480, 720],
        allocated: vec![AllocationPath {
            samples: 5,
            bytes: 0,
            stack_end: StackEnd::Start,
            frames: vec![sample::java(
                "com.acme.Shop.add",
                "Shop.java",
                7,
                crate::model::Origin::C1,
            )],
        }],
        holders: None,
    };
    report.java_heap = vec![JavaHeap {
        pid: 1234,
        samples: (1..=3).map(at).collect(),
        classes: vec![class],
        sampled: HeapSampling::default(),
        ..JavaHeap::default()
    }];
    verdict::conclude(&mut report);
    let index = report
        .findings
        .iter()
        .position(|it| it.title.contains("Order"))
        .unwrap();
    let text = explained(&report, &(index + 1).to_string());
    for part in [
        "objects of com.acme.Order stay",
        "30 │",
        "2.0 s            20             480             4",
        "what is there outlived 4 collections",
        "In the last third there were 30 objects at least, in the first 10 at most",
        "Allocated here (5 samples), leaf first\n  com.acme.Shop.add  Shop.java:7",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn no_line_is_too_wide_and_nothing_steers_the_terminal() {
    let mut report = report();
    report.findings[0].title = "\x1b[2J".into();
    report.findings[0].evidence = vec!["\x07".into()];
    report.sites[0].frames[2].function = Some("\x1b]52;c;aGk=\x07".into());
    report.sites[0].verdict = Some(Verdict::Growing);
    for width in [20, 40, 79, 200] {
        let layout = Layout::new(10, Some(width), false);
        let text = render(&report, RowNumber::whole(1), &layout).unwrap();
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        for line in text.lines() {
            assert!(line.width() <= width, "{} > {width}: {line}", line.width());
        }
    }
}

#[test]
fn a_row_of_the_second_table_is_explained() {
    let mut report = sample::report();
    let last = Numbers::of(&report).last();
    let page = Site {
        kind: MemoryKind::Page,
        ..report.sites[0].clone()
    };
    report.growth = Some(Growth {
        sites: vec![page],
        balance: Vec::new(),
    });
    let text = render(&report, RowNumber::whole(last + 1), &layout()).unwrap();
    assert!(text.contains("a call path that touched 9.63 MiB"), "{text}");
    assert!(text.contains("does not say who keeps it"), "{text}");
    let error = render(&report, RowNumber::whole(last + 2), &layout()).unwrap_err();
    let said = format!("they are 1 to {}", last + 1);
    assert!(error.to_string().contains(&said), "{error}");
}
