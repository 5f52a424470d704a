//! The class histograms that a run keeps, and what they say together.

use std::collections::HashSet;

use super::fillers;
use super::growth::verdict;
use super::histogram::Histogram;
use crate::model::{ClassGrowth, GrowthVerdict, HeapSample, JvmAccount};

/// Histograms that are kept.
const MAX_SAMPLES: usize = 32;
/// Classes in a report.
const MAX_CLASSES: usize = 1_000;

/// What was found so far.
#[derive(Debug, Default)]
pub struct Samples {
    /// The histograms, oldest first.
    pub taken: Vec<Taken>,
    /// What the JVM says of its native memory: at the start and at the end,
    /// with the time, nanoseconds of `CLOCK_MONOTONIC`.
    pub accounts: Vec<(u64, JvmAccount)>,
    /// Why there are none, or no more.
    pub problem: Option<String>,
}

/// One histogram.
#[derive(Debug)]
pub struct Taken {
    /// What the report says of it, but for the time.
    pub sample: HeapSample,
    /// When it was complete, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// What the JVM said.
    pub histogram: Histogram,
}

impl Samples {
    /// Adds one. When there are as many as are kept, some go, and the answer
    /// is true.
    pub fn add(&mut self, taken: Taken) -> bool {
        self.taken.push(taken);
        let full = self.taken.len() >= MAX_SAMPLES;
        if full {
            thin(&mut self.taken);
        }
        full
    }

    /// The classes of a report, and how many are left out.
    pub fn classes(&self) -> (Vec<ClassGrowth>, u64) {
        let indexed = self.taken.iter().enumerate();
        let floors: Vec<usize> = indexed
            .filter(|(_, taken)| taken.sample.after_collection)
            .map(|(index, _)| index)
            .collect();
        let histograms = self.taken.iter().map(|taken| &taken.histogram);
        let names: HashSet<&String> = histograms
            .flat_map(|histogram| histogram.classes.keys())
            .collect();
        let mut classes: Vec<_> = names
            .into_iter()
            .map(|name| self.class(name, &floors))
            .filter(|class| {
                class.verdict == GrowthVerdict::Grows
                    || class.instances.first() != class.instances.last()
            })
            .collect();
        classes.sort_by_cached_key(|class| {
            (class.verdict, -gained(&class.bytes), class.class.clone())
        });
        let omitted = classes.len().saturating_sub(MAX_CLASSES) as u64;
        classes.truncate(MAX_CLASSES);
        (classes, omitted)
    }

    fn class(&self, name: &str, floors: &[usize]) -> ClassGrowth {
        let objects = |taken: &Taken| {
            let objects = taken.histogram.classes.get(name);
            objects.copied().unwrap_or_default()
        };
        let (instances, bytes): (Vec<_>, Vec<_>) = self
            .taken
            .iter()
            .map(objects)
            .map(|objects| (objects.instances, objects.bytes))
            .unzip();
        let old = self.taken.iter().map(|taken| taken.sample.old_collections);
        let of_program = fillers::without(name, &instances, &old.collect::<Vec<_>>());
        ClassGrowth {
            class: name.to_owned(),
            verdict: verdict(&of_program, floors),
            instances,
            bytes,
            allocated: vec![],
            holders: None,
        }
    }
}

/// Leaves out every second one of the more numerous kind: those after a
/// collection, or the others; but neither the first nor the last of all.
fn thin(taken: &mut Vec<Taken>) {
    let last = taken.len().saturating_sub(1);
    let is_floor = |taken: &Taken| taken.sample.after_collection;
    let floors = taken.iter().filter(|taken| is_floor(taken)).count();
    let of_floors = 2 * floors > taken.len();
    let (mut index, mut of_kind) = (0, 0);
    taken.retain(|taken| {
        let other_kind = is_floor(taken) != of_floors;
        let keep = other_kind || of_kind % 2 == 0 || index == last;
        of_kind += usize::from(!other_kind);
        index += 1;
        keep
    });
}

fn gained(series: &[u64]) -> i128 {
    let end = |value: Option<&u64>| i128::from(value.copied().unwrap_or(0));
    end(series.last()) - end(series.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::histogram::Objects;

    fn samples(counts: &[&[(&str, u64)]]) -> Samples {
        let taken = counts.iter().zip(0..).map(|(classes, time)| {
            let objects = |count| Objects {
                instances: count,
                bytes: 16 * count,
            };
            let histogram = Histogram {
                classes: classes
                    .iter()
                    .map(|(name, count)| ((*name).to_owned(), objects(*count)))
                    .collect(),
                total: Objects::default(),
            };
            let sample = HeapSample {
                after_collection: true,
                ..HeapSample::default()
            };
            Taken {
                sample,
                time,
                histogram,
            }
        });
        Samples {
            taken: taken.collect(),
            ..Samples::default()
        }
    }

    #[test]
    fn what_grows_comes_first_and_what_stays_is_left_out() {
        let rows: Vec<Vec<(&str, u64)>> = (0..8)
            .map(|i| {
                vec![
                    ("grown", 7 + i),
                    ("same", 9),
                    ("late", 100 * u64::from(i == 7)),
                ]
            })
            .collect();
        let rows: Vec<&[(&str, u64)]> = rows.iter().map(Vec::as_slice).collect();
        let (classes, omitted) = samples(&rows).classes();
        assert_eq!(omitted, 0);
        let found: Vec<_> = classes
            .iter()
            .map(|class| (class.class.as_str(), class.verdict))
            .collect();
        assert_eq!(
            found,
            [
                ("grown", GrowthVerdict::Grows),
                ("late", GrowthVerdict::Steady)
            ]
        );
        assert_eq!(
            classes[0].bytes,
            (7..15).map(|i| 16 * i).collect::<Vec<_>>()
        );
    }

    #[test]
    fn thinning_takes_from_the_more_numerous_kind() {
        let rows: Vec<&[(&str, u64)]> = vec![&[]; 32];
        let mut taken = samples(&rows).taken;
        for (index, taken) in taken.iter_mut().enumerate() {
            taken.sample.after_collection = index % 2 == 1;
        }
        let times = |taken: &[Taken]| taken.iter().map(|taken| taken.time).collect::<Vec<_>>();
        thin(&mut taken);
        assert_eq!(times(&taken)[..6], [0, 1, 3, 4, 5, 7]);
        assert_eq!(taken.len(), 24);
        thin(&mut taken);
        assert_eq!(times(&taken)[..5], [0, 1, 4, 5, 8]);
        assert_eq!((taken.len(), times(&taken)[16]), (17, 31));
        thin(&mut Vec::new());
    }
}
