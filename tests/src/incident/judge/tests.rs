//! Judgements of reports that are made up.

use serde_json::json;

use super::*;
use crate::incident::INCIDENTS;
use crate::model::Report;

const LEAKED: Leaked = Leaked {
    instances: 100,
    size: Some(6007),
};

fn incident(name: &str) -> &'static Incident {
    INCIDENTS.iter().find(|one| one.name == name).unwrap()
}

/// A report with sites of blocks of 6007 bytes: allocated, freed, frames.
fn view(sites: &[(u64, u64, &[&str])]) -> View {
    let mut report = empty();
    report.sites = sites
        .iter()
        .zip(1..)
        .map(|((allocated, freed, frames), id)| site(id, *allocated, *freed, frames))
        .collect();
    View::new(report)
}

fn empty() -> Report {
    serde_json::from_value(json!({
        "schema": crate::model::SCHEMA, "version": "0", "started": "", "duration": 1.0,
        "settings": {
            "command": "", "min_size": 0, "older_than": 0.0, "follow": false,
            "max_live": 0, "max_sites": 0,
        },
        "processes": [], "modules": [], "sites": [], "timeline": [], "losses": [],
        "totals": {
            "live_bytes": 0, "live_count": 0, "allocated_bytes": 0, "allocated_count": 0,
            "freed_bytes": 0, "freed_count": 0, "untraced_frees": 0,
        },
        "overhead": {
            "probe_hits": 0, "nanoseconds_per_hit": 0.0, "target_seconds": 0.0,
            "kernel_bytes": 0, "tracer_seconds": 0.0,
        },
    }))
    .unwrap()
}

fn site(id: u64, allocated: u64, freed: u64, frames: &[&str]) -> Site {
    let frames: Vec<Frame> = frames
        .iter()
        .map(|name| Frame {
            function: Some((*name).into()),
            ..Frame::default()
        })
        .collect();
    serde_json::from_value(json!({
        "id": id, "process": 0, "kind": "heap",
        "live_bytes": (allocated - freed) * 6007, "live_count": allocated - freed,
        "allocated_bytes": allocated * 6007, "allocated_count": allocated,
        "freed_bytes": freed * 6007, "freed_count": freed,
        "oldest_age": null, "first_seen": 0.0, "last_seen": 1.0, "lifetimes": [],
        "lower_bound": false, "stack_end": "start", "frames": frames,
    }))
    .unwrap()
}

fn verdict(name: &str, variant: Variant, view: &View) -> Verdict {
    Verdict::of(variant, &judge(incident(name), variant, view, LEAKED))
}

const JNI: &[&str] = &[
    "incidents.Rounds.asTold",
    "incidents.JniMalloc.round",
    "incidents.JniMalloc.decodeImage",
    "Java_incidents_JniMalloc_decodeImage",
    "new_image",
    "malloc",
];

#[test]
fn names_end_with_the_wanted_parts() {
    let is = |name: &str, wanted: &str| {
        let frame = Frame {
            function: Some(name.into()),
            ..Frame::default()
        };
        is_called(&frame, wanted)
    };
    assert!(is("incidents.ScopeChain$Record.value", "Record.value"));
    assert!(is("incidents/ScopeChain$Record::value(J)", "Record.value"));
    assert!(is(
        "ClassLoader::load_class(Symbol*)",
        "ClassLoader::load_class"
    ));
    assert!(is("os::malloc(unsigned long)", "malloc"));
    assert!(!is("incidents.Rounds.value", "Record.value"));
    assert!(!is("xmalloc", "malloc"));
    assert!(!is("f(Record.value)", "Record.value"));
    assert!(!is_called(&Frame::default(), "malloc"));
}

#[test]
fn a_path_has_its_frames_in_order() {
    let site = site(1, 1, 0, &["a", "b", "c", "d"]);
    assert!(has_path(&site, &["a", "c"]) && has_path(&site, &[]));
    assert!(!has_path(&site, &["c", "a"]) && !has_path(&site, &["b", "b"]));
}

#[test]
fn a_leak_is_diagnosed_only_with_its_size_place_and_rank() {
    let of = |sites: &[(u64, u64, &[&str])]| verdict("JniMalloc", Variant::Leaking, &view(sites));
    assert_eq!(of(&[(60, 0, JNI), (41, 1, JNI)]), Verdict::Diagnosed);
    assert_eq!(of(&[]), Verdict::Missed);
    assert_eq!(of(&[(98, 0, JNI)]), Verdict::Missed);
    assert_eq!(
        of(&[(100, 0, &[DRIVER, "new_image", "malloc"])]),
        Verdict::Missed
    );
    assert_eq!(of(&[(100, 0, JNI), (101, 0, &["malloc"])]), Verdict::Missed);
}

#[test]
fn a_twin_is_quiet_when_next_to_nothing_remains() {
    let of = |sites: &[(u64, u64, &[&str])]| verdict("JniMalloc", Variant::Healthy, &view(sites));
    assert_eq!(of(&[(100, 99, JNI)]), Verdict::Quiet);
    assert_eq!(of(&[(100, 98, JNI)]), Verdict::FalseAlarm);
    assert_eq!(of(&[(100, 0, &["malloc"])]), Verdict::Quiet);
}

#[test]
fn once_there_are_java_frames_the_path_must_be_theirs() {
    let of = |method: &str| {
        let frames = [&[DRIVER, method], &JNI[3..]].concat();
        let view = view(&[(100, 0, &frames)]);
        judge(incident("JniMalloc"), Variant::Leaking, &view, LEAKED)
    };
    let wrong = of("incidents.JniMalloc.truth");
    assert!(matches!(&wrong[2].outcome, Outcome::Fails(how) if how.contains("0 of")));
    let incomplete = of("incidents.JniMalloc.round");
    assert!(matches!(incomplete[2].outcome, Outcome::Fails(_)));
}

#[test]
fn a_neighbour_must_have_been_freed() {
    let hook = incident("BootLoaderAgent").native.as_ref().unwrap();
    let path = hook.freed.unwrap();
    let of = |sites: &[(u64, u64, &[&str])]| freed_neighbour(path, &view(sites));
    assert_eq!(of(&[(100, 100, path)]).outcome, Outcome::Holds);
    assert!(matches!(of(&[(100, 0, path)]).outcome, Outcome::Fails(_)));
    assert!(matches!(of(&[]).outcome, Outcome::Fails(_)));
}

#[test]
fn without_histograms_nothing_is_judged() {
    for variant in Variant::ALL {
        let verdict = verdict("ScopeChain", variant, &view(&[]));
        assert_eq!(verdict, Verdict::NotJudged);
    }
}
