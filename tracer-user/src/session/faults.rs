//! Page faults within a budget (`--overhead`): when they are followed, and what their
//! number and the memory of the targets say of how closely to look at allocations.

use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_ebpf::hits::{Cost, KINDS, Kind};

use super::Session;
use crate::budget::{Attention, Budget, FaultPrices, Following, Gate, Ledger, Rise, Spent};
use crate::engine::Options;
use crate::engine::cost::Hits;
use crate::model::FaultsReport;
use crate::process::clock::monotonic_ns;
use crate::process::processor_time::Work;

/// How often the targets are looked at.
const SURVEY: Duration = Duration::from_secs(1);
/// What that may take, and what counting their page faults: each one part in so many.
const LOOKS_TAKE: u32 = 400;
/// After how long it is decided first: the load may be any.
const FIRST: Duration = Duration::from_millis(5);
/// The part of a budget that page faults may take beside allocations.
const BESIDE: f64 = 0.25;
/// Where page faults alone are followed they have what the tracer itself leaves, and this
/// part at least.
const LEAST: f64 = 0.2;
/// Of what is left for them so much is planned with: a look comes late, or the load rises.
const PLANNED: f64 = 0.85;
/// Within so many seconds a debt is to be paid.
const REPAID: f64 = 5.0;
/// What may be spent until it is known what the targets use, seconds a second.
const AT_FIRST: f64 = crate::budget::FLOOR;

/// What becomes of page faults within a budget.
pub(super) struct FaultsState {
    asked: Budget,
    gate: Gate,
    rise: Rise,
    /// What was allowed and spent, where nothing else is followed.
    ledger: Option<Ledger>,
    next: Instant,
    /// When it was decided last, and how many faults there were then: those that were
    /// followed, or all by the kernel's count.
    decided: (u64, u64),
    surveyed: Survey,
    next_survey: Instant,
    /// Nanoseconds of each [`Following`].
    spans: [u64; 3],
    /// Faults that were passed over, and those that came while there were no programs.
    passed_over: u64,
    missed: u64,
    pauses: u64,
    /// There is no room for more pages.
    is_full: bool,
}

/// What there was at the last look at the targets.
#[derive(Debug, Clone, Copy, Default)]
struct Survey {
    at: u64,
    used: f64,
    /// What page faults have cost them, and tracing the tracer, seconds.
    spent: Spent,
}

impl FaultsState {
    /// Nothing, if page faults are not followed, or cost what they cost.
    pub(super) fn new(options: &Options) -> Option<Self> {
        let asked = options.budget.filter(|_| options.follows_pages())?;
        Some(Self {
            asked,
            gate: Gate::new(AT_FIRST),
            rise: Rise::default(),
            ledger: options.growth.then(Ledger::default),
            next: Instant::now(),
            decided: (0, 0),
            surveyed: Survey::default(),
            next_survey: Instant::now(),
            spans: [0; 3],
            passed_over: 0,
            missed: 0,
            pauses: 0,
            is_full: false,
        })
    }

    /// When it is to be decided next.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// How closely to look at allocations.
    pub(super) fn attention(&self) -> Attention {
        self.rise.attention(seconds(self.surveyed.at))
    }

    /// Goes on with the account of a run that has ended: what was allowed and spent since its
    /// last look is entered at the next one.
    fn go_on_from(&mut self, ended: &Self) {
        self.ledger = ended.ledger;
        self.surveyed.at = ended.surveyed.at;
        self.surveyed.spent.tracer = ended.surveyed.spent.tracer;
    }

    /// Whether page faults are followed now.
    pub(super) fn follows(&self) -> bool {
        self.gate.following() == Following::Followed
    }

    /// Says whether there is room for more pages.
    pub(super) fn note_room(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Whether some page faults were not followed.
    pub(super) fn has_gaps(&self) -> bool {
        self.passed_over + self.missed > 0
    }

    /// Enters how many faults there were since it was decided last.
    fn note(&mut self, now: u64, faults: u64) {
        let place = match self.gate.following() {
            Following::Followed => 0,
            Following::PassedOver => {
                self.passed_over += faults;
                1
            }
            Following::Detached => {
                self.missed += faults;
                2
            }
        };
        self.spans[place] += now.saturating_sub(self.decided.0);
    }
}

impl Session {
    /// The run begins.
    pub(super) fn begin_faults(&mut self) -> Result<()> {
        if self.faults.is_none() {
            return Ok(());
        }
        let now = monotonic_ns();
        let survey = Survey {
            at: now,
            used: self.processor_time(),
            spent: self.spent(),
        };
        let counted = self.faults_counted(Following::Followed);
        self.faults_of_targets();
        let resident = self.resident_now();
        if let Some(faults) = &mut self.faults {
            faults.decided = (now, counted);
            faults.surveyed = survey;
            faults.rise.enter(seconds(now), resident, None);
            faults.next_survey = Instant::now() + SURVEY;
            faults.next = Instant::now() + FIRST;
        }
        Ok(())
    }

    /// Decides whether page faults are followed from now on, if that is due.
    pub(super) fn step_faults(&mut self) -> Result<()> {
        let Some(faults) = &self.faults else {
            return Ok(());
        };
        let now = Instant::now();
        if now < faults.next {
            return Ok(());
        }
        if now >= faults.next_survey {
            self.survey(self.spent());
        }
        let prices = self.fault_prices();
        let work = Work::begin();
        let (before, elapsed, counted) = self.count_faults();
        let rest = work.taken() * LOOKS_TAKE;
        let Some(faults) = &mut self.faults else {
            return Ok(());
        };
        let mut wait = faults.gate.decide(elapsed, counted, &prices);
        if faults.is_full {
            faults.gate.close();
        }
        let after = faults.gate.following();
        if after != Following::Followed {
            // No period of the program falls in step with it.
            wait *= 0.5 + fastrand::f64();
        }
        let least = match before == after {
            true => rest,
            false => Duration::ZERO,
        };
        faults.next = Instant::now() + Duration::from_secs_f64(wait).max(least);
        self.change_following(before, after)
    }

    /// The run ends: what there was is counted.
    pub(super) fn end_faults(&mut self) -> Result<()> {
        if self.faults.is_none() {
            return Ok(());
        }
        self.count_faults();
        let spent = self.spent_by(&self.engine.object.costs()?);
        self.survey(spent);
        Ok(())
    }

    /// Enters what there was since it was decided last: how faults were followed, for how
    /// many seconds, and how many there were.
    fn count_faults(&mut self) -> (Following, f64, u64) {
        let Some(following) = self.faults.as_ref().map(|it| it.gate.following()) else {
            return (Following::Followed, 0.0, 0);
        };
        let (now, counted) = (monotonic_ns(), self.faults_counted(following));
        let Some(faults) = &mut self.faults else {
            return (following, 0.0, 0);
        };
        let new = counted.saturating_sub(faults.decided.1);
        let elapsed = now.saturating_sub(faults.decided.0);
        faults.note(now, new);
        faults.decided = (now, counted);
        (following, seconds(elapsed), new)
    }

    /// Page faults until now: those that were followed, of which the last of each thread
    /// are not known yet, or all of the targets.
    fn faults_counted(&mut self, following: Following) -> u64 {
        match following {
            Following::Followed => self.engine.object.handed_over()[Kind::Fault as usize].hits,
            _ => self.faults_of_targets(),
        }
    }

    fn fault_prices(&self) -> FaultPrices {
        let costs = self.engine.object.handed_over();
        let (followed, passed_over) = self.engine.prices.of_faults(&costs);
        FaultPrices {
            followed: followed / 1e9,
            passed_over: passed_over / 1e9,
        }
    }

    /// Has page faults followed, passed over, or nobody told of them.
    fn change_following(&mut self, before: Following, after: Following) -> Result<()> {
        if before == after {
            return Ok(());
        }
        if after == Following::Followed {
            if self.engine.faults.is_none() {
                self.engine.faults = Some(self.engine.object.attach_faults()?);
            }
            // What came in between.
            let counted = self.faults_of_targets();
            self.engine.object.follow_faults(true);
            if let Some(faults) = &mut self.faults {
                let late = counted.saturating_sub(faults.decided.1);
                match before {
                    Following::PassedOver => faults.passed_over += late,
                    _ => faults.missed += late,
                }
            }
        } else {
            self.engine.object.follow_faults(false);
        }
        if after == Following::Detached {
            self.engine.faults = None;
        }
        let counted = self.faults_counted(after);
        if let Some(faults) = &mut self.faults {
            faults.decided = (monotonic_ns(), counted);
            faults.pauses += u64::from(before == Following::Followed);
        }
        Ok(())
    }

    /// Looks at what the targets use, and so at what page faults may take, and whether
    /// anything grows.
    fn survey(&mut self, spent: Spent) {
        let work = Work::begin();
        let now = Survey {
            at: monotonic_ns(),
            used: self.processor_time(),
            spent,
        };
        let resident = self.resident_now();
        let Some(faults) = &mut self.faults else {
            return;
        };
        let before = std::mem::replace(&mut faults.surveyed, now);
        let elapsed = seconds(now.at.saturating_sub(before.at).max(1));
        let spent = Spent {
            targets: (now.spent.targets - before.spent.targets).max(0.0),
            tracer: now.spent.tracer - before.spent.tracer,
        };
        let used = now.used - before.used;
        let allowed = faults
            .asked
            .allowance(elapsed, (used - spent.targets).max(0.0));
        let rate = allowed / elapsed;
        let rate = match &mut faults.ledger {
            Some(ledger) => {
                ledger.enter(elapsed, allowed, spent);
                let debt = ledger.credit().min(0.0);
                (PLANNED * rate - spent.tracer / elapsed + debt / REPAID).max(LEAST * rate)
            }
            None => BESIDE * rate,
        };
        faults.gate.allow(rate);
        faults
            .rise
            .enter(seconds(now.at), resident, Some(used / elapsed));
        faults.next_survey = Instant::now() + SURVEY.max(work.taken() * LOOKS_TAKE);
        self.note_survey(spent.all() / elapsed);
    }

    /// What page faults have cost the targets until now, but for the last of each thread,
    /// and tracing the tracer.
    fn spent(&self) -> Spent {
        self.spent_by(&self.engine.object.handed_over())
    }

    fn spent_by(&self, costs: &[Cost; KINDS]) -> Spent {
        let hits = self.engine.prices.of(costs);
        let followed = hits[Kind::Fault as usize];
        let passed_over = self.faults_passed_over();
        let all = passed_over.iter().chain([&followed]);
        Spent {
            targets: all.map(Hits::seconds).sum::<f64>() + self.charged,
            tracer: self.own_seconds(),
        }
    }

    /// Charges the budget with what others took of the targets' processor time, seconds: page
    /// faults get what is left.
    pub fn charge(&mut self, seconds: f64) {
        self.charged += seconds.max(0.0);
    }

    /// Takes over the account of a run of this process that has ended: its budget is one. What
    /// it owes, this one owes.
    pub fn go_on_from(&mut self, ended: &Self) {
        if let (Some(faults), Some(ended)) = (&mut self.faults, &ended.faults) {
            faults.go_on_from(ended);
        }
    }

    /// Page faults that were passed over.
    pub(super) fn faults_passed_over(&self) -> Option<Hits> {
        let faults = self.faults.as_ref()?;
        Some(self.engine.prices.passed_over(faults.passed_over))
    }

    /// What became of page faults, and what was allowed and spent where nothing else is
    /// followed.
    pub(super) fn faults_report(&self) -> Option<(FaultsReport, Option<(Budget, Ledger)>)> {
        let faults = self.faults.as_ref()?;
        let [followed, passed_over, detached] = faults.spans.map(seconds);
        let costs = self.engine.object.costs().ok()?;
        let hits = self.engine.prices.of(&costs);
        let report = FaultsReport {
            followed: hits[Kind::Fault as usize].count,
            not_followed: faults.passed_over + faults.missed,
            pauses: faults.pauses,
            followed_seconds: followed,
            passed_over_seconds: passed_over,
            detached_seconds: detached,
        };
        Some((report, faults.ledger.map(|ledger| (faults.asked, ledger))))
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
