//! Java classes that grow.

use super::forecast;
use super::path;
use crate::model::{ClassGrowth, Finding, FindingKind, GrowthVerdict, JavaHeap, Report};
use crate::report::numbers::about_class;
use crate::report::units;

/// Of a class that has more objects across collections, by the rule of
/// [`GrowthVerdict::Grows`]: no twin of the incidents' programs was ever said to grow, but
/// a cache that fills does, too.
const GROWS: f64 = 0.8;
/// Growth is known to stay if a collection of the old generation came after this part of the
/// time, and left this part of what an even growth has by then.
const LATE: f64 = 0.5;
const LEFT: f64 = 0.5;
/// What gained less than this in a whole run is not said to leak, bytes: a few texts and
/// tables become old in every JVM.
const LITTLE: u64 = 4096;

/// A finding for each class that grows.
pub fn findings(report: &Report) -> Vec<Finding> {
    let of_heap = |heap: &JavaHeap| {
        let grows = heap
            .classes
            .iter()
            .filter(|it| it.verdict == GrowthVerdict::Grows);
        grows
            .filter_map(|class| finding(report, heap, class))
            .collect::<Vec<_>>()
    };
    report.java_heap.iter().flat_map(of_heap).collect()
}

/// The class that a finding is about, and its heap.
pub fn class_of<'a>(report: &'a Report, of: &Finding) -> Option<(&'a JavaHeap, &'a ClassGrowth)> {
    let pid = report.processes.get(of.process)?.pid;
    let heaps = report.java_heap.iter().filter(|heap| heap.pid == pid);
    let mut all = heaps.flat_map(|heap| heap.classes.iter().map(move |class| (heap, class)));
    all.find(|(_, class)| of.title.starts_with(&about_class(&class.class)))
}

/// Whether a collection that could have freed them has left the objects that came. What
/// has become old is there until the old generation is collected, needed or not.
fn stays(heap: &JavaHeap, class: &ClassGrowth) -> bool {
    if heap.samples.iter().all(|sample| sample.after_collection) {
        // There is no garbage in any histogram.
        return true;
    }
    let pairs = heap.samples.windows(2);
    let collected = pairs.map(|pair| pair[1].old_collections > pair[0].old_collections);
    let Some(last) = collected.collect::<Vec<_>>().iter().rposition(|it| *it) else {
        return false;
    };
    let point = |at: usize| {
        let count = *class.instances.get(at)?;
        Some((heap.samples.get(at)?.at, count as f64))
    };
    let ends = point(0).zip(point(last + 1));
    let ends = ends.zip(point(heap.samples.len() - 1));
    ends.is_some_and(|((first, then), end)| {
        let part = (then.0 - first.0) / (end.0 - first.0);
        part >= LATE && then.1 - first.1 >= LEFT * part * (end.1 - first.1)
    })
}

fn finding(report: &Report, heap: &JavaHeap, class: &ClassGrowth) -> Option<Finding> {
    let (first, last) = (heap.samples.first()?, heap.samples.last()?);
    let time = last.at - first.at;
    let gained = |counts: &[u64]| counts.last()?.checked_sub(*counts.first()?);
    let (bytes, instances) = (gained(&class.bytes)?, gained(&class.instances)?);
    if time <= 0.0 || bytes == 0 {
        return None;
    }
    let bytes_per_second = bytes as f64 / time;
    let stays = stays(heap, class);
    let kind = match bytes >= LITTLE && stays {
        true => FindingKind::Leak,
        false => FindingKind::Growing,
    };
    let mut evidence = vec![format!(
        "{} more across {} of the heap, without what they point to",
        units::counted(instances, "object"),
        units::counted(heap.samples.len() as u64, "histogram")
    )];
    if !stays {
        evidence.push(
            "no collection of the old generation has come that would have freed those that nobody needs"
                .to_owned(),
        );
    }
    let path = class.allocated.first();
    let frames = path.map(|path| path.frames.as_slice()).unwrap_or_default();
    let index = report
        .processes
        .iter()
        .position(|process| process.pid == heap.pid);
    Some(Finding {
        title: format!(
            "{}: {}/s in the Java heap",
            about_class(&class.class),
            units::bytes_per_second(bytes_per_second)
        ),
        path: path::labels(frames),
        bytes_per_second,
        live_bytes: class.bytes.last().copied()?,
        live_count: class.instances.last().copied()?,
        since: first.at,
        forecast: forecast::of(report, bytes_per_second),
        evidence,
        holders: class.holders.clone(),
        advice: match stays {
            true => String::new(),
            false => format!(
                "have the heap collected before each histogram (that stops the program each time): sudo unfreed record -p {} --java-heap --live",
                heap.pid
            ),
        },
        ..Finding::new(kind, index?, GROWS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HeapSample;

    /// A heap and a class with so many objects in histograms each second, the n-th after so
    /// many collections of the old generation.
    fn found(counts: &[u64], old: &[Option<u64>], all_after: bool) -> Option<FindingKind> {
        let samples = old.iter().zip(0_u32..).map(|(old, at)| HeapSample {
            at: at.into(),
            after_collection: all_after || at % 2 == 1,
            old_collections: *old,
            ..HeapSample::default()
        });
        let class = ClassGrowth {
            class: "shop.Order".into(),
            verdict: GrowthVerdict::Grows,
            instances: counts.to_vec(),
            bytes: counts.iter().map(|count| 100 * count).collect(),
            allocated: Vec::new(),
            holders: None,
        };
        let mut report = crate::report::sample::report();
        report.java_heap = vec![JavaHeap {
            pid: report.processes[0].pid,
            samples: samples.collect(),
            classes: vec![class],
            ..JavaHeap::default()
        }];
        findings(&report).first().map(|it| it.kind)
    }

    #[test]
    fn what_no_collection_could_have_freed_is_no_leak_yet() {
        let grows = [0, 100, 200, 300, 400, 500, 600, 700, 800];
        let never = [Some(3); 9];
        assert_eq!(found(&grows, &never, false), Some(FindingKind::Growing));
        assert_eq!(found(&grows, &[None; 9], false), Some(FindingKind::Growing));
        assert_eq!(found(&grows, &never, true), Some(FindingKind::Leak));
    }

    #[test]
    fn what_survives_the_old_generation_leaks() {
        let at = |when: usize| {
            let count = move |at: usize| Some(3 + u64::from(at >= when));
            (0..9).map(count).collect::<Vec<_>>()
        };
        let grows = [0, 100, 200, 300, 400, 500, 600, 700, 800];
        assert_eq!(found(&grows, &at(7), false), Some(FindingKind::Leak));
        // Too early to say it of the rest.
        assert_eq!(found(&grows, &at(2), false), Some(FindingKind::Growing));
        // Of a bounded map all but its newest entries went.
        let bounded = [50, 150, 250, 350, 450, 50, 150, 250, 350];
        assert_eq!(found(&bounded, &at(5), false), Some(FindingKind::Growing));
    }
}
