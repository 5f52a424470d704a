//! A Java class that grows.

use super::{INDENT, draw, path, section};
use crate::model::{AllocationPath, ClassGrowth, JavaHeap};
use crate::report::text::{Layout, PLAIN};
use crate::report::units;

/// Call paths that are shown, at most.
const MAX_PATHS: usize = 3;

/// Adds what histograms and samples tell of it.
pub fn render(text: &mut String, heap: &JavaHeap, class: &ClassGrowth, layout: &Layout) {
    section(text, "Objects in the heap over time", layout);
    let times = heap.samples.iter().map(|sample| sample.at);
    let counts = class.instances.iter().map(|count| *count as f64);
    let points: Vec<(f64, f64)> = times.zip(counts).collect();
    let most = class.instances.iter().max().copied().unwrap_or(0);
    let end = heap.samples.last().map_or(0.0, |sample| sample.at);
    draw(text, &points, end, &units::grouped(most), layout);
    section(text, "Each histogram", layout);
    let head = format!(
        "{:>10}  {:>12}  {:>14}  {:>12}",
        "AT", "OBJECTS", "BYTES", "COLLECTIONS"
    );
    layout.line(text, layout.faint, &format!("{:INDENT$}{head}", ""));
    let series = class.instances.iter().zip(&class.bytes);
    for (sample, (instances, bytes)) in heap.samples.iter().zip(series) {
        let collections = sample
            .collections
            .map_or_else(|| "–".to_owned(), units::grouped);
        let line = format!(
            "{:>10}  {:>12}  {:>14}  {collections:>12}",
            units::seconds(sample.at),
            units::grouped(*instances),
            units::grouped(*bytes)
        );
        layout.line(text, PLAIN, &format!("{:INDENT$}{line}", ""));
    }
    for line in reasons(heap, class) {
        layout.prose(text, PLAIN, INDENT, &format!("- {line}."));
    }
    for here in class.allocated.iter().take(MAX_PATHS) {
        allocated(text, heap, here, layout);
    }
}

/// What speaks for it, and what against.
fn reasons(heap: &JavaHeap, class: &ClassGrowth) -> Vec<String> {
    let mut said = Vec::new();
    let ends = heap.samples.first().zip(heap.samples.last());
    let collections = ends.and_then(|(first, last)| first.collections.zip(last.collections));
    if let Some((first, last)) = collections {
        said.push(format!(
            "Speaks for growth: what is there outlived {}",
            units::counted(last.saturating_sub(first), "collection")
        ));
    }
    let third = class.instances.len() / 3;
    if third > 0 {
        let (first, rest) = class.instances.split_at(third);
        let least = rest[rest.len() - third..]
            .iter()
            .min()
            .copied()
            .unwrap_or(0);
        let most = first.iter().max().copied().unwrap_or(0);
        said.push(format!(
            "In the last third there were {} objects at least, in the first {} at most",
            units::grouped(least),
            units::grouped(most)
        ));
    }
    if !heap.live_only {
        said.push(
            "Speaks against it: garbage that was not collected yet counts (--live leaves it out)"
                .to_owned(),
        );
    }
    said.push("Speaks against it: a cache that fills looks the same until it is full".to_owned());
    said
}

fn allocated(text: &mut String, heap: &JavaHeap, here: &AllocationPath, layout: &Layout) {
    let noun = if heap.sampled.exact {
        "object"
    } else {
        "sample"
    };
    let count = units::counted(here.samples, noun);
    section(
        text,
        &format!("Allocated here ({count}), leaf first"),
        layout,
    );
    path::frames(text, &here.frames, here.stack_end, layout);
}
