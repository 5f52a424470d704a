//! Which Java classes grow.

use super::layout::{Layout, PLAIN, fit_middle};
use super::stack::Stack;
use super::table::{Cell, Row, Table};
use crate::model::{ClassGrowth, FlightRecording, GrowthVerdict, JavaHeap, Report, RowNumber};
use crate::report::numbers::Numbers;
use crate::report::{held_by, names, units};

/// Columns of all other values, and the least for a class's name.
const OTHER_COLUMNS: usize = 58;
const MIN_NAME: usize = 16;

/// Adds a section for each JVM; nothing without `--java-heap`.
pub fn render(text: &mut String, report: &Report, numbers: &Numbers<'_>, layout: &Layout) {
    for heap in &report.java_heap {
        text.push('\n');
        let heading = format!("Java heap of {}", names::process_with(report, heap.pid));
        layout.prose(text, layout.strong, 0, &heading);
        if let Some(problem) = &heap.problem {
            let line = format!("No histogram: {}.", names::clean(problem));
            layout.prose(text, layout.warning, 0, &line);
        }
        if heap.samples.is_empty() {
            continue;
        }
        if let Some(problem) = &heap.sampled.problem {
            let line = format!(
                "Where objects are allocated is not known: {}.",
                names::clean(problem)
            );
            layout.prose(text, layout.warning, 0, &line);
        }
        layout.prose(text, PLAIN, 0, &histograms(heap));
        if heap.sampled.exact {
            let line =
                "Where objects are allocated is exact: the JVM tells of each (object__alloc).";
            layout.prose(text, PLAIN, 0, line);
        }
        if let Some((line, is_bad)) = heap.flight_recording.as_ref().map(flight) {
            let style = if is_bad { layout.warning } else { PLAIN };
            layout.prose(text, style, 0, &line);
        }
        let number = |class: &ClassGrowth| numbers.of_class(report, heap.pid, &class.class);
        table(text, heap, &number, layout);
    }
}

/// How the numbers were found, and what that cost.
fn histograms(heap: &JavaHeap) -> String {
    let mut line = format!(
        "{} over {}",
        units::counted(heap.samples.len() as u64, "class histogram"),
        units::seconds(span(heap)),
    );
    if let (Some(first), Some(last)) = (heap.samples.first(), heap.samples.last()) {
        let counts = first.collections.zip(last.collections);
        if let Some((before, after)) = counts {
            let between = units::counted(after.saturating_sub(before), "collection");
            line.push_str(&format!(" and {between}"));
        }
        line.push_str(&format!(
            "; {} in {} at the end ({})",
            units::bytes(last.bytes),
            units::counted(last.instances, "object"),
            units::bytes_change(first.bytes, last.bytes),
        ));
    }
    line.push_str(match heap.live_only {
        true => "; each after a full collection",
        false if heap.samples.iter().all(|sample| sample.after_collection) => {
            "; the collector counts no garbage"
        }
        false => "; garbage that was not collected yet counts too",
    });
    format!("{line}. {}", cost(heap))
}

fn cost(heap: &JavaHeap) -> String {
    let pauses = || heap.samples.iter().filter_map(|sample| sample.pause);
    if pauses().count() == 0 {
        let time: f64 = heap.samples.iter().map(|sample| sample.answered_in).sum();
        return format!("The JVM answered in {} in all.", units::seconds(time));
    }
    let longest = pauses().fold(0.0, f64::max);
    format!(
        "For that, all Java threads stood still for {} in all, at most {} at a time.",
        units::seconds(pauses().sum()),
        units::seconds(longest)
    )
}

/// Whether the JVM's flight recording was asked, what that cost, and what its sample is; and
/// whether it failed.
fn flight(recording: &FlightRecording) -> (String, bool) {
    let line = match recording {
        FlightRecording::Unneeded => {
            "Who holds what grows was found from outside: the JVM's flight recording was not asked."
                .to_owned()
        }
        FlightRecording::Asked {
            objects,
            answered_in,
            pause,
        } => {
            let cost = match pause {
                Some(pause) => format!(
                    "For that, all Java threads stood still for {}",
                    units::seconds(*pause)
                ),
                None => format!("The JVM took {} for that", units::seconds(*answered_in)),
            };
            format!(
                "Who holds what was not found from outside was asked of the JVM's flight recording. {cost}. It \
                 knows {} that were allocated while it went on and lived through a collection: it \
                 chose them, more likely large ones.",
                units::counted(*objects, "object"),
            )
        }
        FlightRecording::Failed { problem } => {
            format!("No flight recording: {}.", names::clean(problem))
        }
    };
    (line, matches!(recording, FlightRecording::Failed { .. }))
}

/// Seconds from the first histogram to the last.
fn span(heap: &JavaHeap) -> f64 {
    match (heap.samples.first(), heap.samples.last()) {
        (Some(first), Some(last)) => last.at - first.at,
        _ => 0.0,
    }
}

/// The classes that grow; those that may, if there are none.
fn table(
    text: &mut String,
    heap: &JavaHeap,
    number: &dyn Fn(&ClassGrowth) -> Option<RowNumber>,
    layout: &Layout,
) {
    let of = |verdict| {
        heap.classes
            .iter()
            .filter(move |class| class.verdict == verdict)
    };
    let verdict = if of(GrowthVerdict::Grows).next().is_some() {
        GrowthVerdict::Grows
    } else if of(GrowthVerdict::Unknown).next().is_some() {
        let line = "Too few collections to tell growth from garbage; these have more objects than at the start (trace for longer, or with --live):";
        layout.prose(text, PLAIN, 0, line);
        GrowthVerdict::Unknown
    } else {
        layout.prose(text, PLAIN, 0, "No class grows.");
        return;
    };
    text.push('\n');
    let rows = of(verdict)
        .take(layout.top)
        .map(|class| row(class, heap, number(class), layout));
    Table::new(rows).render(text, layout);
    let rest = of(verdict).count().saturating_sub(layout.top);
    if rest > 0 {
        let noun = if rest == 1 { "class" } else { "classes" };
        layout.prose(text, PLAIN, 0, &format!("{rest} more {noun} of that kind."));
    }
}

/// Where the class was allocated, as far as samples tell.
fn notes(class: &ClassGrowth, exact: bool) -> Vec<String> {
    let samples: u64 = class.allocated.iter().map(|path| path.samples).sum();
    let Some(first) = class.allocated.first() else {
        return vec![match exact {
            true => "none was allocated during the run".to_owned(),
            false => "no sample of its allocation".to_owned(),
        }];
    };
    let noun = if exact { "object" } else { "sample" };
    let mut notes = vec![format!(
        "allocated here: {} of {}",
        units::grouped(first.samples),
        units::counted(samples, noun)
    )];
    match class.allocated.len() - 1 {
        0 => {}
        more => notes.push(units::counted(more as u64, "more call path")),
    }
    notes
}

fn row<'a>(
    class: &'a ClassGrowth,
    heap: &JavaHeap,
    number: Option<RowNumber>,
    layout: &Layout,
) -> Row<'a> {
    let ends = |series: &[u64]| {
        let end = |value: Option<&u64>| value.copied().unwrap_or(0);
        (end(series.first()), end(series.last()))
    };
    let (before, after) = ends(&class.instances);
    let (bytes_before, bytes_after) = ends(&class.bytes);
    let span = span(heap);
    let per_minute = if span > 0.0 {
        after.saturating_sub(before) as f64 * 60.0 / span
    } else {
        0.0
    };
    let room = layout.width.saturating_sub(OTHER_COLUMNS).max(MIN_NAME);
    Row {
        cells: vec![
            Cell::new(
                "#",
                number.map_or_else(|| "  ".to_owned(), |it| format!("{it:>2}")),
            ),
            Cell::new("BYTES", units::bytes_change(bytes_before, bytes_after)),
            Cell::new("INSTANCES", units::grouped_change(before, after)),
            Cell::new("BEFORE", units::grouped(before)),
            Cell::new("AFTER", units::grouped(after)),
            Cell::new("PER MIN", units::per_second(per_minute)),
            Cell::new("CLASS", fit_middle(&names::clean(&class.class), room)),
        ],
        notes: notes(class, heap.sampled.exact)
            .into_iter()
            .chain(class.holders.as_ref().map(held_by::sentence))
            .collect(),
        stack: Stack::new(
            class.allocated.first().map_or(&[], |path| &path.frames),
            class.allocated.first().map(|path| path.stack_end),
        ),
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::model::{AllocationPath, Frame, HeapSample, StackEnd};
    use crate::report::sample;

    fn class(name: &str, verdict: GrowthVerdict, instances: &[u64]) -> ClassGrowth {
        ClassGrowth {
            class: name.into(),
            verdict,
            instances: instances.to_vec(),
            bytes: instances.iter().map(|count| 24 * count).collect(),
            allocated: vec![],
            holders: None,
        }
    }

    fn path(samples: u64) -> AllocationPath {
        AllocationPath {
            samples,
            bytes: samples << 20,
            stack_end: StackEnd::Start,
            frames: vec![Frame {
                function: Some("shop.Login.open".into()),
                file: Some("Login.java".into()),
                line: Some(17),
                ..Frame::default()
            }],
        }
    }

    fn report(classes: Vec<ClassGrowth>) -> Report {
        let sample = |at, collections, instances| HeapSample {
            at,
            answered_in: 0.02,
            pause: Some(0.0125),
            after_collection: at > 0.0,
            collections: Some(collections),
            old_collections: Some(0),
            instances,
            bytes: 24 * instances,
        };
        Report {
            java_heap: vec![JavaHeap {
                pid: 1234,
                samples: vec![sample(0.0, 3, 1_000), sample(30.0, 12, 11_000)],
                classes,
                ..JavaHeap::default()
            }],
            ..sample::report()
        }
    }

    #[test]
    fn it_is_said_whether_the_recorder_was_asked_and_what_that_took() {
        let mut report = report(vec![]);
        let mut told = |recording| {
            report.java_heap[0].flight_recording = Some(recording);
            let text = text(&report, 100);
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let asked = |pause| FlightRecording::Asked {
            objects: 250,
            answered_in: 0.5,
            pause,
        };
        let text = told(asked(Some(0.25)));
        assert!(
            text.contains("stood still for 250 ms. It knows 250 objects"),
            "{text}"
        );
        let text = told(asked(None));
        assert!(
            text.contains("The JVM took 500 ms for that. It knows"),
            "{text}"
        );
        let text = told(FlightRecording::Unneeded);
        assert!(
            text.contains("the JVM's flight recording was not asked"),
            "{text}"
        );
        let problem = "it is \u{1b}off".to_owned();
        let text = told(FlightRecording::Failed { problem });
        assert!(text.contains("No flight recording: it is"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    fn text(report: &Report, width: usize) -> String {
        let mut text = String::new();
        render(
            &mut text,
            report,
            &Numbers::of(report),
            &Layout::new(10, Some(width), false),
        );
        text
    }

    #[test]
    fn what_grows_is_a_row() {
        let mut grown = class("shop.Session", GrowthVerdict::Grows, &[7, 5_007]);
        grown.allocated = vec![path(5), path(2)];
        let other = class("byte[]", GrowthVerdict::Unknown, &[1, 9]);
        let expected = "
Java heap of leaky (1234)
2 class histograms over 30.0 s and 9 collections; 258 KiB in 11,000 objects at the end (+234 KiB);
garbage that was not collected yet counts too. For that, all Java threads stood still for 25.0 ms in
all, at most 12.5 ms at a time.

 #    BYTES  INSTANCES  BEFORE  AFTER  PER MIN  CLASS
 1  +117 KiB     +5,000       7  5,007   10,000  shop.Session
    allocated here: 5 of 7 samples · 1 more call path
    shop.Login.open  Login.java:17

";
        let mut report = report(vec![grown, other]);
        report.findings[0].title = crate::report::numbers::about_class("shop.Session");
        let found = text(&report, 100);
        assert_eq!(found, expected.replace(" #    BYTES", " #     BYTES"));
    }

    #[test]
    fn without_growth_nothing_is_claimed() {
        let steady = class("byte[]", GrowthVerdict::Steady, &[1, 9]);
        assert!(text(&report(vec![steady]), 100).contains("No class grows."));
        let unknown = class("byte[]", GrowthVerdict::Unknown, &[1, 9]);
        let found = text(&report(vec![unknown]), 100);
        assert!(found.contains("Too few collections"), "{found}");
        assert!(found.contains("no sample of its allocation"), "{found}");
        let mut unsampled = report(vec![]);
        unsampled.java_heap[0].sampled.problem = Some("it has no symbols".into());
        let found = text(&unsampled, 100);
        assert!(found.contains("not known: it has no symbols."), "{found}");
        let mut none = report(vec![]);
        none.java_heap[0].samples.clear();
        none.java_heap[0].problem = Some("\x1b[2Jgone".into());
        let found = text(&none, 100);
        assert!(
            found.contains("gone") && !found.contains("No class"),
            "{found}"
        );
        assert!(!found.contains('\x1b'), "{found:?}");
    }

    #[test]
    fn objects_that_the_jvm_told_of_are_no_samples() {
        let mut grown = class("shop.Session", GrowthVerdict::Grows, &[7, 5_007]);
        grown.allocated = vec![path(5_000)];
        let quiet = class("shop.Cart", GrowthVerdict::Grows, &[1, 2]);
        let mut report = report(vec![grown, quiet]);
        report.java_heap[0].sampled.exact = true;
        let found = text(&report, 100);
        for part in [
            "5,000 of 5,000 objects",
            "none was allocated during the run",
            "the JVM tells of each",
        ] {
            assert!(found.contains(part), "{found}");
        }
    }

    #[test]
    fn names_fit_and_cannot_steer_the_terminal() {
        let name = format!("a.\x1b[31m{}", "日本".repeat(90));
        let report = report(vec![class(&name, GrowthVerdict::Grows, &[1, 1 << 50])]);
        for width in [20, 60, 80, 200] {
            let text = text(&report, width);
            assert!(!text.contains('\x1b'), "{text:?}");
            assert!(text.lines().all(|line| line.width() <= width), "{text}");
        }
    }
}
