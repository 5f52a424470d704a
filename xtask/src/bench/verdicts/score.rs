//! How right verdicts were: by class, by confidence, and by name.

use crate::bench::model::Verdict;

use super::label::Half;
use super::said::Said;

/// What one look said of one behaviour, and what is true.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) half: Half,
    /// When, seconds.
    pub(super) at: u64,
    /// What is right to say, first what it is.
    pub(super) right: Vec<Verdict>,
    /// What was said; `None`: nothing.
    pub(super) said: Option<Said>,
    /// How fast it grew, bytes a second, by its own account.
    pub(super) rate: f64,
}

impl Outcome {
    pub(super) fn is(&self, class: Verdict) -> bool {
        self.right.first() == Some(&class)
    }

    pub(super) fn was_said(&self, class: Verdict) -> bool {
        self.said.is_some_and(|said| said.verdict == class)
    }

    /// Whether what was said is true. Of a leak it is true as well that it grows.
    pub(super) fn is_right(&self) -> bool {
        self.said.is_some_and(|said| {
            let grows = said.verdict == Verdict::Growing && self.is(Verdict::Leak);
            grows || self.right.contains(&said.verdict)
        })
    }

    /// Whether it is said to be what it is; a leak is not found by "growing".
    pub(super) fn is_found(&self) -> bool {
        self.said
            .is_some_and(|said| self.right.contains(&said.verdict))
    }

    pub(super) fn is_false_leak(&self) -> bool {
        self.was_said(Verdict::Leak) && !self.right.contains(&Verdict::Leak)
    }

    pub(super) fn is_missed_leak(&self) -> bool {
        self.is(Verdict::Leak) && !self.was_said(Verdict::Leak)
    }
}

/// A class's counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OfClass {
    /// Behaviours that are of it.
    pub(super) are: usize,
    /// Those of them of which what was said is right.
    pub(super) found: usize,
    /// Behaviours that were said to be of it.
    pub(super) said: usize,
    /// Those of them of which that is right.
    pub(super) right: usize,
}

impl OfClass {
    pub(super) fn count(outcomes: &[&Outcome], class: Verdict) -> Self {
        let count = |which: &dyn Fn(&Outcome) -> bool| {
            outcomes.iter().filter(|outcome| which(outcome)).count()
        };
        Self {
            are: count(&|it| it.is(class)),
            found: count(&|it| it.is(class) && it.is_found()),
            said: count(&|it| it.was_said(class)),
            right: count(&|it| it.was_said(class) && it.is_right()),
        }
    }
}

/// Ranges of confidence.
pub(super) const RANGES: [(f64, f64); 5] = [
    (0.0, 0.5),
    (0.5, 0.7),
    (0.7, 0.85),
    (0.85, 0.95),
    (0.95, 1.01),
];

/// What was said with a confidence of some range.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct OfRange {
    /// How many verdicts.
    pub(super) said: usize,
    /// How many of them are right.
    pub(super) right: usize,
    /// The mean confidence.
    pub(super) mean: f64,
}

impl OfRange {
    /// Of verdicts of one class, or of all. Those without a stated confidence are left out.
    pub(super) fn count(
        outcomes: &[&Outcome],
        (low, high): (f64, f64),
        class: Option<Verdict>,
    ) -> Self {
        let mut range = Self::default();
        for outcome in outcomes {
            let is_it = |said: &Said| {
                let of_class = class.is_none_or(|class| said.verdict == class);
                of_class && said.confidence > 0.0 && (low..high).contains(&said.confidence)
            };
            if let Some(said) = outcome.said.filter(is_it) {
                range.said += 1;
                range.right += usize::from(outcome.is_right());
                range.mean += said.confidence;
            }
        }
        range.mean /= range.said.max(1) as f64;
        range
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn outcome(right: &[Verdict], said: Option<(Verdict, f64)>) -> Outcome {
        Outcome {
            name: "c:one".into(),
            kind: "cache".into(),
            half: Half::Design,
            at: 120,
            right: right.to_vec(),
            said: said.map(|(verdict, confidence)| Said {
                verdict,
                confidence,
                rate: verdict.grows().then_some(100.0),
            }),
            rate: 50.0,
        }
    }

    #[test]
    fn what_is_right_and_what_is_found_are_counted() {
        let outcomes = [
            outcome(&[Verdict::Leak], Some((Verdict::Leak, 0.9))),
            outcome(&[Verdict::Leak], Some((Verdict::Growing, 0.8))),
            outcome(&[Verdict::Leak], None),
            outcome(
                &[Verdict::Plateau, Verdict::Churn],
                Some((Verdict::Churn, 0.6)),
            ),
            outcome(&[Verdict::Plateau], Some((Verdict::Leak, 0.9))),
        ];
        let all: Vec<&Outcome> = outcomes.iter().collect();
        let class = |are, found, said, right| OfClass {
            are,
            found,
            said,
            right,
        };
        assert_eq!(OfClass::count(&all, Verdict::Leak), class(3, 1, 2, 1));
        assert_eq!(OfClass::count(&all, Verdict::Growing), class(0, 0, 1, 1));
        assert_eq!(OfClass::count(&all, Verdict::Plateau), class(2, 1, 0, 0));
        assert_eq!(OfClass::count(&all, Verdict::Churn), class(0, 0, 1, 1));
        let missed = all.iter().filter(|it| it.is_missed_leak()).count();
        let false_ones = all.iter().filter(|it| it.is_false_leak()).count();
        assert_eq!((missed, false_ones), (2, 1));
        let leaks = OfRange::count(&all, (0.85, 0.95), Some(Verdict::Leak));
        assert_eq!((leaks.said, leaks.right), (2, 1));
        assert!((leaks.mean - 0.9).abs() < 1e-9);
        let of = |range| OfRange::count(&all, range, None);
        assert_eq!(RANGES.map(|range| of(range).said), [0, 1, 1, 2, 0]);
    }
}
