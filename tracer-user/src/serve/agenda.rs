//! Which service is looked at closer, and for how long: plain data and arithmetic. Times are
//! milliseconds of one clock.

use std::collections::HashMap;
use std::time::Duration;

use super::config::{Depth, Mode};

/// A service that grows in so many windows one after the other is to be looked at.
const GROWS_FOR: u32 = 3;
/// One that was looked at, and grows yet, is looked at again after so many looks' time.
const RESTS_FOR: u32 = 10;

/// A service at the end of a window.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub service: String,
    /// How closely it may be looked at.
    pub depth: Depth,
    /// How fast it grows, bytes a second, if a finding says that it does.
    pub grows: Option<f64>,
}

/// Why a service is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why {
    /// It grows by so many bytes a second, and did in so many windows.
    Grows(f64, u32),
    /// Its rule says so.
    Asked,
}

/// The look that goes on.
#[derive(Debug, Clone, PartialEq)]
struct Current {
    service: String,
    began: u64,
}

/// What was looked at when, and what grows since when.
#[derive(Debug, Default)]
pub struct Agenda {
    /// In how many windows, up to the last one, each service that grows did.
    streaks: HashMap<String, u32>,
    /// When the last look at each service ended.
    looked: HashMap<String, u64>,
    current: Option<Current>,
    /// No look begins before: each costs a start, and searches.
    not_before: u64,
}

impl Agenda {
    /// A window was closed.
    pub fn note(&mut self, candidates: &[Candidate]) {
        let known = |service: &str| candidates.iter().any(|it| it.service == service);
        self.looked.retain(|service, _| known(service));
        let before = std::mem::take(&mut self.streaks);
        let growing = candidates.iter().filter(|it| it.grows.is_some());
        for service in growing.map(|it| &it.service) {
            let streak = before.get(service).map_or(1, |streak| streak + 1);
            self.streaks.insert(service.clone(), streak);
        }
    }

    /// What is to be looked at next, if anything is, where a look lasts for `look`: of what
    /// grows that which grows most, and else what was asked for, that first which was looked
    /// at longest ago.
    pub fn next(
        &self,
        now: u64,
        look: Duration,
        candidates: &[Candidate],
    ) -> Option<(String, Why)> {
        if self.current.is_some() || now < self.not_before {
            return None;
        }
        let growing = candidates
            .iter()
            .filter_map(|it| Some((it, self.why_of_growth(it, now, look)?)));
        let most = growing.max_by(|(one, _), (other, _)| {
            one.grows
                .partial_cmp(&other.grows)
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let asked = candidates
            .iter()
            .filter(|it| it.depth.mode == Mode::Overhead)
            .min_by_key(|it| self.looked.get(&it.service).copied().unwrap_or(0));
        let next = most.or_else(|| asked.map(|it| (it, Why::Asked)));
        next.map(|(it, why)| (it.service.clone(), why))
    }

    /// Why a service that grows is due.
    fn why_of_growth(&self, candidate: &Candidate, now: u64, look: Duration) -> Option<Why> {
        let rate = candidate.grows?;
        let streak = *self.streaks.get(&candidate.service)?;
        let rest = milliseconds(look * RESTS_FOR);
        let looked = self.looked.get(&candidate.service);
        let has_rested = looked.is_none_or(|ended| now >= ended + rest);
        let is_due = candidate.depth.mode == Mode::Closer && streak >= GROWS_FOR && has_rested;
        is_due.then_some(Why::Grows(rate, streak))
    }

    /// A look begins.
    pub fn begin(&mut self, service: &str, now: u64) {
        self.current = Some(Current {
            service: service.to_owned(),
            began: now,
        });
    }

    /// The look has ended. Its start, and its searches for holders, took so much processor time,
    /// seconds, of which there is `rate` in each second.
    pub fn end(&mut self, now: u64, own: f64, rate: f64) {
        let Some(current) = self.current.take() else {
            return;
        };
        let paid = Duration::try_from_secs_f64(own / rate.max(1e-6)).unwrap_or_default();
        self.not_before = current.began + milliseconds(paid);
        self.looked.insert(current.service, now);
    }

    /// Whether the look that goes on has had its time: then it ends, but for one that was
    /// asked for while nobody else waits. One that nobody wants any more ends at once.
    pub fn is_over(&self, now: u64, look: Duration, candidates: &[Candidate]) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let mut all = candidates.iter();
        let of_current = all.find(|it| it.service == current.service);
        let others = candidates.iter().filter(|it| it.service != current.service);
        match of_current.map_or(Mode::Growth, |it| it.depth.mode) {
            Mode::Growth => true,
            Mode::Closer => now >= current.began + milliseconds(look),
            Mode::Overhead => {
                let mut others = others;
                now >= current.began + milliseconds(look)
                    && others.any(|it| {
                        it.depth.mode == Mode::Overhead
                            || self.why_of_growth(it, now, look).is_some()
                    })
            }
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_secs(60);

    fn candidate(service: &str, mode: Mode, grows: Option<f64>) -> Candidate {
        Candidate {
            service: service.to_owned(),
            depth: Depth {
                mode,
                ..Depth::default()
            },
            grows,
        }
    }

    fn noted(candidates: &[Candidate], windows: u32) -> Agenda {
        let mut agenda = Agenda::default();
        (0..windows).for_each(|_| agenda.note(candidates));
        agenda
    }

    #[test]
    fn what_grows_most_comes_first_once_it_has_grown_for_some_windows() {
        let all = [
            candidate("slow", Mode::Closer, Some(1e3)),
            candidate("fast", Mode::Closer, Some(1e6)),
            candidate("never", Mode::Growth, Some(1e9)),
            candidate("still", Mode::Closer, None),
        ];
        assert_eq!(noted(&all, 2).next(0, LOOK, &all), None);
        let mut agenda = noted(&all, 3);
        let next = agenda.next(0, LOOK, &all);
        assert_eq!(next, Some(("fast".to_owned(), Why::Grows(1e6, 3))));
        agenda.begin("fast", 0);
        assert_eq!(agenda.next(0, LOOK, &all), None, "one at a time");
        assert!(!agenda.is_over(59_999, LOOK, &all));
        assert!(agenda.is_over(60_000, LOOK, &all));
        agenda.end(60_000, 0.0, 0.01);
        let next = agenda.next(60_000, LOOK, &all).map(|(service, _)| service);
        assert_eq!(next.as_deref(), Some("slow"));
        // It is looked at again when it goes on growing for long.
        let later = 60_000 + 600_000;
        let next = agenda.next(later, LOOK, &all).map(|(service, _)| service);
        assert_eq!(next.as_deref(), Some("fast"));
    }

    #[test]
    fn growth_that_pauses_counts_anew() {
        let growing = [candidate("a", Mode::Closer, Some(1.0))];
        let mut agenda = noted(&growing, 2);
        agenda.note(&[candidate("a", Mode::Closer, None)]);
        agenda.note(&growing);
        assert_eq!(agenda.next(0, LOOK, &growing), None);
    }

    #[test]
    fn what_was_asked_for_is_looked_at_while_nobody_else_waits() {
        let one = [candidate("asked", Mode::Overhead, None)];
        let mut agenda = noted(&one, 1);
        let next = agenda.next(0, LOOK, &one);
        assert_eq!(next, Some(("asked".to_owned(), Why::Asked)));
        agenda.begin("asked", 0);
        assert!(!agenda.is_over(1 << 30, LOOK, &one));
        let both = [one[0].clone(), candidate("grows", Mode::Closer, Some(1.0))];
        (0..3).for_each(|_| agenda.note(&both));
        assert!(!agenda.is_over(59_999, LOOK, &both), "it has its time");
        assert!(agenda.is_over(60_000, LOOK, &both));
        agenda.end(60_000, 0.0, 0.01);
        let next = agenda.next(60_000, LOOK, &both).map(|(service, _)| service);
        assert_eq!(next.as_deref(), Some("grows"));
        // Its rule says otherwise now, or it is gone.
        agenda.begin("grows", 60_000);
        assert!(agenda.is_over(60_001, LOOK, &one));
    }

    #[test]
    fn starts_are_paid_for_before_the_next() {
        let all = [candidate("asked", Mode::Overhead, None)];
        let mut agenda = Agenda::default();
        agenda.begin("asked", 1000);
        agenda.end(1500, 0.5, 0.02);
        assert_eq!(agenda.next(25_999, LOOK, &all), None);
        assert!(agenda.next(26_000, LOOK, &all).is_some());
    }
}
