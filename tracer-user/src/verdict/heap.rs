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

fn finding(report: &Report, heap: &JavaHeap, class: &ClassGrowth) -> Option<Finding> {
    let (first, last) = (heap.samples.first()?, heap.samples.last()?);
    let time = last.at - first.at;
    let gained = |counts: &[u64]| counts.last()?.checked_sub(*counts.first()?);
    let (bytes, instances) = (gained(&class.bytes)?, gained(&class.instances)?);
    if time <= 0.0 || bytes == 0 {
        return None;
    }
    let bytes_per_second = bytes as f64 / time;
    let kind = match bytes < LITTLE {
        true => FindingKind::Growing,
        false => FindingKind::Leak,
    };
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
        evidence: vec![format!(
            "{} more across {} of the heap, without what they point to",
            units::counted(instances, "object"),
            units::counted(heap.samples.len() as u64, "histogram")
        )],
        ..Finding::new(kind, index?, GROWS)
    })
}
