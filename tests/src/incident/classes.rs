//! Judges what a report says of the classes of an incident.

use super::Incident;
use super::judge::{Finding, Outcome, check, finding, passes};
use super::trial::Leaked;
use crate::model::{Chain, ClassGrowth, Frame, GrowthVerdict, Holders, JavaHeap};

const CLASS: &str = "class";
const PATH: &str = "allocation path of the class";
const HOLDER: &str = "holder of the class";
/// How many of the objects that were looked for must have the holder, percent.
const MOST: u64 = 90;
const QUIET: &str = "no class grows";
/// Packages of the program, whose classes must not grow in a twin.
const OWN: &str = "incidents.";

/// What is expected of a class that leaks: that the report says that it grows,
/// by how much, where its objects are allocated, and who holds them.
pub(super) fn leaking(
    name: &str,
    incident: &Incident,
    heap: &JavaHeap,
    leaked: Leaked,
) -> Vec<Finding> {
    let class = heap.classes.iter().find(|class| class.class == name);
    let growth = match class {
        Some(class) if class.verdict == GrowthVerdict::Unknown => not_known(CLASS, heap),
        _ => check(
            CLASS,
            class.is_some_and(|class| grows_by(class, leaked)),
            || format!("{}, really {leaked:?}", class.map_or_else(none, series)),
        ),
    };
    let path = allocation_path(class, incident, heap);
    let holder = holder(class, incident);
    [Some(growth), path, holder].into_iter().flatten().collect()
}

/// Whether what holds the objects is what the incident's write-up names, if the class grows.
fn holder(class: Option<&ClassGrowth>, incident: &Incident) -> Option<Finding> {
    let (name, class) = (incident.holder?, class?);
    if class.verdict != GrowthVerdict::Grows {
        return None;
    }
    let found = class.holders.clone().unwrap_or_default();
    let has_it = |chain: &&Chain| chain.links.iter().any(|link| link.name == name);
    let held: u64 = found.chains.iter().filter(has_it).map(|it| it.blocks).sum();
    let is_it = found.sampled > 0 && 100 * held >= MOST * found.sampled;
    Some(check(HOLDER, is_it, || chains(&found)))
}

fn chains(found: &Holders) -> String {
    let of = |chain: &Chain| {
        let links: Vec<_> = chain.links.iter().map(|link| link.name.as_str()).collect();
        format!("{} by {}", chain.blocks, links.join(" -> "))
    };
    let chains: Vec<_> = found.chains.iter().map(of).collect();
    let (sampled, undecided) = (found.sampled, found.undecided);
    let why = found.unsearched.join("; ");
    format!(
        "of {sampled} {} ({undecided} undecided) {why}",
        chains.join(", ")
    )
}

/// That neither the class nor one of the program's own grows.
pub(super) fn healthy(name: &str, heap: &JavaHeap) -> Finding {
    let of = |verdict| {
        heap.classes.iter().find(|class| {
            let is_suspect = class.class == name || class.class.starts_with(OWN);
            is_suspect && class.verdict == verdict
        })
    };
    if let Some(class) = of(GrowthVerdict::Grows) {
        return finding(QUIET, Outcome::Fails(series(class)));
    }
    match of(GrowthVerdict::Unknown) {
        Some(_) => not_known(QUIET, heap),
        None => finding(QUIET, Outcome::Holds),
    }
}

/// Whether most samples of the class have the incident's path, or the report
/// says that the VM's library has not the symbols to take any. Few objects may
/// have no sample: if each has native memory too, of which every block is seen,
/// that is judged instead and nothing is expected here.
fn allocation_path(
    class: Option<&ClassGrowth>,
    incident: &Incident,
    heap: &JavaHeap,
) -> Option<Finding> {
    if let Some(problem) = &heap.sampled.problem {
        return Some(check(PATH, problem.contains("has no symbols"), || {
            problem.clone()
        }));
    }
    let paths = class.map_or(&[][..], |class| &class.allocated);
    let all: u64 = paths.iter().map(|path| path.samples).sum();
    if all == 0 {
        let unseen = || finding(PATH, Outcome::NotJudged("no samples of the class".into()));
        return incident.native.is_none().then(unseen);
    }
    let (with, without): (Vec<_>, Vec<_>) = paths
        .iter()
        .partition(|path| passes(&path.frames, incident.path));
    let right: u64 = with.iter().map(|path| path.samples).sum();
    Some(check(PATH, 2 * right > all, || {
        let other = without.first().map(|path| names(&path.frames));
        let other = other.unwrap_or_default();
        format!("{right} of {all} samples have it; not {other}")
    }))
}

fn grows_by(class: &ClassGrowth, leaked: Leaked) -> bool {
    class.verdict == GrowthVerdict::Grows && leaked.is_near(growth(class))
}

/// Objects that came and stayed.
fn growth(class: &ClassGrowth) -> u64 {
    match (class.instances.first(), class.instances.last()) {
        (Some(first), Some(last)) => last.saturating_sub(*first),
        _ => 0,
    }
}

/// Histograms in which there is little garbage.
pub(super) fn floors(heap: &JavaHeap) -> usize {
    let after = heap.samples.iter().filter(|sample| sample.after_collection);
    after.count()
}

/// Whether the incident's class grows and nothing tells where it is allocated
/// yet: a sample comes with each buffer that a thread has filled.
pub(super) fn lacks_samples(heap: &JavaHeap, incident: &Incident) -> bool {
    let is_it = |class: &&ClassGrowth| incident.class == Some(class.class.as_str());
    let class = heap.classes.iter().find(is_it);
    let unseen = class
        .is_some_and(|class| class.verdict == GrowthVerdict::Grows && class.allocated.is_empty());
    unseen && incident.native.is_none() && heap.sampled.problem.is_none()
}

fn not_known(what: &'static str, heap: &JavaHeap) -> Finding {
    let why = format!("only {} histograms after collections", floors(heap));
    finding(what, Outcome::NotJudged(why))
}

fn none() -> String {
    "the report does not have it".to_owned()
}

fn series(class: &ClassGrowth) -> String {
    format!("{} {:?}: {:?}", class.class, class.verdict, class.instances)
}

fn names(frames: &[Frame]) -> String {
    let names = frames.iter().filter_map(|frame| frame.function.as_deref());
    names.collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::incident::INCIDENTS;
    use crate::incident::judge::Verdict;
    use crate::incident::trial::Variant;

    const SCOPE: &str = "incidents.ScopeChain$ThreadLocalScope";
    const LEAKED: Leaked = Leaked {
        instances: 100,
        size: None,
    };

    /// A class, with samples on paths, of which 61 of 64 objects have this holder.
    fn held_heap(
        name: &str,
        verdict: GrowthVerdict,
        after: u64,
        paths: &[(u64, &[&str])],
        holder: &str,
    ) -> JavaHeap {
        let paths: Vec<_> = paths
            .iter()
            .map(|(samples, functions)| {
                let frames = functions.iter().map(|name| Frame {
                    function: Some((*name).into()),
                    ..Frame::default()
                });
                let frames: Vec<_> = frames.collect();
                json!({"samples": samples, "bytes": 1, "stack_end": "start", "frames": frames})
            })
            .collect();
        let class = json!({
            "class": name, "verdict": verdict, "instances": [7, 9, 7 + after], "bytes": [],
            "allocated": paths,
            "holders": {"sampled": 64, "lost": 0, "undecided": 3, "unsearched": [],
                "chains": [{"blocks": 61, "links": [
                    {"kind": "java-thread", "name": "pool-1-thread-1", "repeated": 1},
                    {"kind": "java-object", "name": holder, "repeated": 1},
                ]}]},
        });
        JavaHeap {
            classes: vec![serde_json::from_value(class).unwrap()],
            ..JavaHeap::default()
        }
    }

    fn heap(name: &str, verdict: GrowthVerdict, after: u64, paths: &[(u64, &[&str])]) -> JavaHeap {
        held_heap(name, verdict, after, paths, "A.a")
    }

    fn leak(
        incident: &str,
        verdict: GrowthVerdict,
        after: u64,
        paths: &[(u64, &[&str])],
    ) -> Verdict {
        let incident = INCIDENTS.iter().find(|one| one.name == incident).unwrap();
        let heap = held_heap(SCOPE, verdict, after, paths, incident.holder.unwrap());
        Verdict::of(Variant::Leaking, &leaking(SCOPE, incident, &heap, LEAKED))
    }

    #[test]
    fn a_class_grows_by_what_leaked_and_on_its_path() {
        let right = INCIDENTS[0].path;
        let of =
            |verdict, after, paths: &[(u64, &[&str])]| leak("ScopeChain", verdict, after, paths);
        let grows = GrowthVerdict::Grows;
        assert_eq!(of(grows, 100, &[(1, right)]), Verdict::Diagnosed);
        let most: &[(u64, &[&str])] = &[(4, &["main"]), (3, right), (2, right)];
        assert_eq!(of(grows, 100, most), Verdict::Diagnosed);
        assert_eq!(of(grows, 100, &most[..2]), Verdict::Missed);
        assert_eq!(of(grows, 90, &[(1, right)]), Verdict::Missed);
        let steady = GrowthVerdict::Steady;
        assert_eq!(of(steady, 100, &[(1, right)]), Verdict::Missed);
        let unknown = GrowthVerdict::Unknown;
        assert_eq!(of(unknown, 100, &[(1, right)]), Verdict::NotJudged);
    }

    #[test]
    fn another_holder_is_no_diagnosis() {
        let incident = &INCIDENTS[0];
        let of = |holder| {
            let paths: &[(u64, &[&str])] = &[(1, incident.path)];
            let heap = held_heap(SCOPE, GrowthVerdict::Grows, 100, paths, holder);
            Verdict::of(Variant::Leaking, &leaking(SCOPE, incident, &heap, LEAKED))
        };
        assert_eq!(of(incident.holder.unwrap()), Verdict::Diagnosed);
        assert_eq!(of("java.util.ArrayList.elementData"), Verdict::Missed);
    }

    #[test]
    fn without_samples_only_native_memory_shows_the_path() {
        let of = |incident| leak(incident, GrowthVerdict::Grows, 100, &[]);
        assert_eq!(of("ScopeChain"), Verdict::NotJudged);
        assert_eq!(of("GaugeChannels"), Verdict::Diagnosed);
    }

    #[test]
    fn samples_are_waited_for_once_the_class_grows() {
        let incident = &INCIDENTS[0];
        let lacks = |verdict, paths| lacks_samples(&heap(SCOPE, verdict, 100, paths), incident);
        assert!(lacks(GrowthVerdict::Grows, &[]));
        assert!(!lacks(GrowthVerdict::Steady, &[]));
        assert!(!lacks(GrowthVerdict::Grows, &[(1, &["main"])]));
    }

    #[test]
    fn no_class_of_a_twin_grows() {
        let of = |name: &str, verdict| {
            let found = healthy(SCOPE, &heap(name, verdict, 100, &[]));
            Verdict::of(Variant::Healthy, &[found])
        };
        for name in [SCOPE, "incidents.ScopeChain$FakeSpan"] {
            assert_eq!(of(name, GrowthVerdict::Grows), Verdict::FalseAlarm);
            assert_eq!(of(name, GrowthVerdict::Unknown), Verdict::NotJudged);
            assert_eq!(of(name, GrowthVerdict::Steady), Verdict::Quiet);
        }
        assert_eq!(of("byte[]", GrowthVerdict::Grows), Verdict::Quiet);
    }
}
