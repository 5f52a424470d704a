//! What tracing has cost the targets' threads: hits by kind, times what one of the kind
//! costs here.

use tracer_ebpf::hits::{Cost, KINDS, Kind};

use super::traps::{Estimate, Traps};

/// What a hit costs, apart from how long our program runs, and what there was before any
/// target was traced.
pub struct Prices {
    /// The kernel's part of a hit.
    traps: Traps,
    /// What a program does before its time is taken, and after.
    around: Estimate,
    /// Hits of the calibration, and the times that it found.
    before: [Cost; KINDS],
}

/// The hits of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Hits {
    /// Which kind.
    pub kind: Kind,
    /// How many there were.
    pub count: u64,
    /// How many of them ended before anybody asked whose they were: hardly more than
    /// the kernel's part.
    pub in_passing: u64,
    /// How many of them were timed.
    pub timed: u64,
    /// What one costs apart from our program.
    pub trap: Estimate,
    /// How long our program runs: the mean, and twice its standard error.
    pub program: Estimate,
}

impl Hits {
    /// Adds hits that ended before anybody asked whose they were.
    pub fn add_in_passing(&mut self, hits: u64) {
        self.count += hits;
        self.in_passing += hits;
    }

    /// All of them, seconds.
    pub fn seconds(&self) -> f64 {
        let followed = (self.count - self.in_passing) as f64;
        let traps = self.count as f64 * self.trap.nanoseconds;
        (traps + followed * self.program.nanoseconds) / 1e9
    }

    /// How far that may be from the truth, seconds.
    pub fn spread(&self) -> f64 {
        let followed = (self.count - self.in_passing) as f64;
        (self.count as f64 * self.trap.spread + followed * self.program.spread) / 1e9
    }
}

impl Prices {
    /// What these hits would take if every call were followed to its end, and if none
    /// were, seconds. Page faults are no calls.
    pub fn forecast(&self, hits: &[Hits]) -> (f64, f64) {
        let at_entry = |hits: &&Hits| !hits.kind.is_end() && hits.kind != Kind::Fault;
        let calls = |hits: &&Hits| matches!(hits.kind, Kind::Entry | Kind::SteppedEntry);
        let entered = hits.iter().filter(at_entry);
        let traps = |hits: &Hits| hits.count as f64 * hits.trap.nanoseconds;
        let programs = |hits: &Hits| hits.count as f64 * hits.program.nanoseconds;
        let passed: f64 = entered.clone().map(traps).sum();
        let followed: f64 = entered.map(programs).sum();
        let calls: u64 = hits.iter().filter(calls).map(|hits| hits.count).sum();
        let end = |hits: &Hits| hits.trap.nanoseconds + hits.program.nanoseconds;
        let ends = hits
            .iter()
            .filter(|hits| hits.kind.is_end() && hits.count > 0);
        let end = match ends.map(end).reduce(f64::max) {
            Some(end) => end,
            None => end(&hits[Kind::Return as usize]),
        };
        let exact = passed + followed + calls as f64 * end;
        (exact / 1e9, passed / 1e9)
    }

    /// What was found by calibration. `before` is what was counted until now.
    pub(super) const fn new(traps: Traps, around: Estimate, before: [Cost; KINDS]) -> Self {
        Self {
            traps,
            around,
            before,
        }
    }

    /// Leaves out hits of our own that came later.
    pub fn forgive(&mut self, kind: Kind, hits: u64) {
        self.before[kind as usize].hits += hits;
    }

    /// What a single step costs beyond an emulated instruction, nanoseconds.
    pub fn of_a_step(&self) -> f64 {
        self.traps.stepped.minus(self.traps.emulated).nanoseconds
    }

    /// What there was since: `costs` is all that was counted.
    pub fn of(&self, costs: &[Cost; KINDS]) -> Vec<Hits> {
        let hits = Kind::ALL.into_iter().map(|kind| {
            let (now, before) = (&costs[kind as usize], &self.before[kind as usize]);
            Hits {
                kind,
                count: now.hits.saturating_sub(before.hits),
                in_passing: 0,
                timed: now.timed.saturating_sub(before.timed),
                trap: self.trap(kind),
                program: program(now, before),
            }
        });
        hits.collect()
    }

    fn trap(&self, kind: Kind) -> Estimate {
        let trap = match kind {
            Kind::Entry | Kind::Free | Kind::JumpEnd => self.traps.emulated,
            Kind::SteppedEntry | Kind::SteppedFree => self.traps.stepped,
            Kind::Return => self.traps.returning,
            Kind::End => self.traps.end,
            // Its calibration has what is around in it.
            Kind::Fault => return self.traps.fault,
        };
        trap.plus(self.around)
    }

    /// The same with what was found out of page faults.
    pub(super) fn with_faults(mut self, traps: &Traps) -> Self {
        self.traps.fault = traps.fault;
        self.traps.passed_over = traps.passed_over;
        self
    }

    /// Page faults that were passed over.
    pub fn passed_over(&self, faults: u64) -> Hits {
        Hits {
            kind: Kind::Fault,
            count: faults,
            in_passing: faults,
            timed: 0,
            trap: self.traps.passed_over,
            program: Estimate::default(),
        }
    }

    /// Nanoseconds of a page fault that is followed, and of one that is passed over.
    pub fn of_faults(&self, costs: &[Cost; KINDS]) -> (f64, f64) {
        let followed = self.of(costs)[Kind::Fault as usize];
        let of_one = followed.trap.nanoseconds + followed.program.nanoseconds;
        (of_one, self.traps.passed_over.nanoseconds)
    }
}

/// Timed hits below which those of the calibration are believed too.
const FEW: u64 = 30;

/// The mean of timed runs and twice its standard error.
fn program(now: &Cost, before: &Cost) -> Estimate {
    let mut timed = now.timed.saturating_sub(before.timed);
    let mut sum = now.nanoseconds.saturating_sub(before.nanoseconds);
    let mut squares = now.squares.wrapping_sub(before.squares);
    if timed < FEW {
        (timed, sum, squares) = (now.timed, now.nanoseconds, now.squares);
    }
    if timed == 0 {
        return Estimate::default();
    }
    let count = timed as f64;
    let mean = sum as f64 / count;
    let variance = (squares as f64 / count - mean * mean).max(0.0);
    Estimate {
        nanoseconds: mean,
        spread: 2.0 * (variance / count).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exactly(nanoseconds: f64) -> Estimate {
        Estimate {
            nanoseconds,
            spread: 1.0,
        }
    }

    fn cost(hits: u64, times: &[u64]) -> Cost {
        Cost {
            hits,
            timed: times.len() as u64,
            nanoseconds: times.iter().sum(),
            squares: times.iter().map(|time| time * time).sum(),
            ..Cost::default()
        }
    }

    fn prices(before: [Cost; KINDS]) -> Prices {
        let traps = Traps {
            emulated: exactly(500.0),
            stepped: exactly(9_000.0),
            end: exactly(9_500.0),
            returning: exactly(300.0),
            fault: exactly(60.0),
            passed_over: exactly(20.0),
        };
        Prices::new(traps, exactly(40.0), before)
    }

    #[test]
    fn a_hit_costs_its_trap_what_is_around_and_the_mean_of_our_program() {
        let mut costs = [Cost::default(); KINDS];
        costs[Kind::SteppedFree as usize] = cost(1_000_000, &[100; 40]);
        let hits = prices([Cost::default(); KINDS]).of(&costs);
        let free = hits[Kind::SteppedFree as usize];
        assert!((free.seconds() - 9.14).abs() < 1e-9, "{}", free.seconds());
        assert!((free.spread() - 0.002).abs() < 1e-9, "{}", free.spread());
        assert!(hits.iter().filter(|hits| hits.count > 0).count() == 1);
    }

    #[test]
    fn a_hit_in_passing_costs_its_trap_and_what_is_around() {
        let mut costs = [Cost::default(); KINDS];
        costs[Kind::Entry as usize] = cost(1_000, &[100; 40]);
        let mut entry = prices([Cost::default(); KINDS]).of(&costs)[Kind::Entry as usize];
        entry.add_in_passing(9_000);
        assert_eq!(entry.count, 10_000);
        assert!(
            (entry.seconds() - 0.0055).abs() < 1e-9,
            "{}",
            entry.seconds()
        );
    }

    #[test]
    fn the_calibration_does_not_count_but_stands_in_for_what_was_not_timed() {
        let mut before = [Cost::default(); KINDS];
        before[Kind::Entry as usize] = cost(900, &[700; 100]);
        let mut costs = before;
        costs[Kind::Entry as usize].hits += 10;
        let mut prices = prices(before);
        let entry = prices.of(&costs)[Kind::Entry as usize];
        assert_eq!((entry.count, entry.timed), (10, 0));
        assert!((entry.program.nanoseconds - 700.0).abs() < 1e-9);
        costs[Kind::Entry as usize] = cost(
            900 + 64_000,
            &[[700; 100].as_slice(), &[900; 1000]].concat(),
        );
        prices.forgive(Kind::Entry, 1_000);
        let entry = prices.of(&costs)[Kind::Entry as usize];
        assert_eq!((entry.count, entry.timed), (63_000, 1000));
        assert!((entry.program.nanoseconds - 900.0).abs() < 1e-9);
        assert!(entry.program.spread < 1e-3, "{entry:?}");
    }
}
