//! Growing Java classes and where they are allocated, as stacks with weights:
//! the growth of a class, divided among its call paths as the samples are.
//!
//! That is an estimate. Samples tell where objects were allocated, not which
//! of them stayed.

use super::names;
use crate::model::name::Name;
use crate::model::{AllocationPath, ClassGrowth, Frame, GrowthVerdict, JavaHeap, Origin, Report};

/// A call path that is held responsible for growth.
#[derive(Debug, Clone, PartialEq)]
pub struct GrowthPath {
    /// The process.
    pub pid: u32,
    /// The call path, root first; the class is last.
    pub frames: Vec<Frame>,
    /// Bytes that the class grew by on this path.
    pub bytes: u64,
    /// Objects that it grew by.
    pub instances: u64,
}

/// The classes that grow; those that may, if there are none.
pub fn suspects(heap: &JavaHeap) -> (GrowthVerdict, impl Iterator<Item = &ClassGrowth>) {
    let any = |verdict| heap.classes.iter().any(|class| class.verdict == verdict);
    let verdict = [GrowthVerdict::Grows, GrowthVerdict::Unknown]
        .into_iter()
        .find(|verdict| any(*verdict))
        .unwrap_or(GrowthVerdict::Steady);
    let suspect =
        move |class: &&ClassGrowth| class.verdict == verdict && verdict != GrowthVerdict::Steady;
    (verdict, heap.classes.iter().filter(suspect))
}

/// What the suspects of a report are.
pub fn title(report: &Report) -> &'static str {
    let grows = |heap: &JavaHeap| suspects(heap).0 == GrowthVerdict::Grows;
    if report.java_heap.iter().any(grows) {
        "Growing Java classes"
    } else {
        "Java classes that may grow (too few collections to tell)"
    }
}

/// All paths of all suspects of a report.
pub fn paths(report: &Report) -> Vec<GrowthPath> {
    let of_heap = |heap: &JavaHeap| {
        let of_class = |class| paths_of(heap.pid, class);
        suspects(heap).1.flat_map(of_class).collect::<Vec<_>>()
    };
    report.java_heap.iter().flat_map(of_heap).collect()
}

/// What stands below a path: the process, if there are several.
pub fn roots(report: &Report, path: &GrowthPath) -> Vec<String> {
    if report.java_heap.len() > 1 {
        vec![names::process_with(report, path.pid)]
    } else {
        vec![]
    }
}

fn paths_of(pid: u32, class: &ClassGrowth) -> Vec<GrowthPath> {
    let (bytes, instances) = (gained(&class.bytes), gained(&class.instances));
    if bytes == 0 {
        return vec![];
    }
    let path = |frames: &[Frame], bytes, instances| GrowthPath {
        pid,
        frames: frames.iter().cloned().chain([leaf(class)]).collect(),
        bytes,
        instances,
    };
    let sampled: u64 = class.allocated.iter().map(|path| path.bytes).sum();
    if sampled == 0 {
        let nowhere = Frame {
            function: Some("[no sample of its allocation]".into()),
            ..Frame::default()
        };
        return vec![path(&[nowhere], bytes, instances)];
    }
    let share = |whole: u64, part: &AllocationPath| {
        let share = u128::from(whole) * u128::from(part.bytes) / u128::from(sampled);
        u64::try_from(share).unwrap_or(u64::MAX)
    };
    let paths = class.allocated.iter();
    paths
        .map(|part| path(&part.frames, share(bytes, part), share(instances, part)))
        .collect()
}

fn leaf(class: &ClassGrowth) -> Frame {
    Frame {
        function: Some(Name::from(&class.class)),
        origin: Origin::Unknown,
        ..Frame::default()
    }
}

fn gained(series: &[u64]) -> u64 {
    let end = |value: Option<&u64>| value.copied().unwrap_or(0);
    end(series.last()).saturating_sub(end(series.first()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StackEnd;
    use crate::report::sample;

    fn class(name: &str, verdict: GrowthVerdict, paths: &[(&str, u64)]) -> ClassGrowth {
        let path = |(name, bytes): &(&str, u64)| AllocationPath {
            samples: 1,
            bytes: *bytes,
            stack_end: StackEnd::Start,
            frames: vec![Frame {
                function: Some(Name::from(name)),
                ..Frame::default()
            }],
        };
        ClassGrowth {
            class: name.to_owned(),
            verdict,
            instances: vec![5, 105],
            bytes: vec![0, 1000],
            allocated: paths.iter().map(path).collect(),
            holders: None,
        }
    }

    fn labels(classes: Vec<ClassGrowth>) -> Vec<(String, u64, u64)> {
        let mut report = sample::report();
        report.java_heap = vec![JavaHeap {
            pid: 7,
            classes,
            ..JavaHeap::default()
        }];
        let label = |path: GrowthPath| {
            let names: Vec<_> = path
                .frames
                .iter()
                .flat_map(|f| f.function.as_deref())
                .collect();
            (names.join(";"), path.bytes, path.instances)
        };
        paths(&report).into_iter().map(label).collect()
    }

    #[test]
    fn growth_is_divided_as_samples_are() {
        let grows = class("A", GrowthVerdict::Grows, &[("x", 300), ("y", 100)]);
        let unknown = class("B", GrowthVerdict::Unknown, &[("z", 1)]);
        assert_eq!(
            labels(vec![grows, unknown.clone()]),
            [("x;A".to_owned(), 750, 75), ("y;A".to_owned(), 250, 25)]
        );
        assert_eq!(labels(vec![unknown]), [("z;B".to_owned(), 1000, 100)]);
    }

    #[test]
    fn a_class_without_samples_stands_alone() {
        let grows = class("A", GrowthVerdict::Grows, &[]);
        let alone = "[no sample of its allocation];A".to_owned();
        assert_eq!(labels(vec![grows]), [(alone, 1000, 100)]);
        assert!(labels(vec![class("A", GrowthVerdict::Steady, &[])]).is_empty());
    }
}
