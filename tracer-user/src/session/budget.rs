//! Keeping a budget (`--overhead`): what is followed when, and what that says of the whole
//! run.
//!
//! A run begins with following all for [`FIRST`], which tells how often the targets
//! allocate. From then on the policy decides ([`crate::budget`]). In a burst the probes of
//! allocators are placed, all allocations are followed for [`ALLOCATIONS`] and frees for
//! [`FREES`] more; then the probes go, in a thread of their own since the kernel takes its
//! time. So each block that was allocated in a burst is followed for [`FREES`] at least.

mod accounts;
mod deltas;
mod describe;
mod pace;

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracer_ebpf::phase::Choice;

use self::accounts::{Moment, Reading, counted_since, seconds_of, seconds_of_faults};
use self::deltas::Deltas;
use self::pace::Background;
use super::Session;
use super::faults::FaultsState;
use crate::attach::probes::drop_all;
use crate::budget::{Attention, Budget, Forecast, Ledger, Policy, Regime};
use crate::duty::{Duty, Pace, Part, Spell, Work};
use crate::engine::cost::Hits;
use crate::process::clock::monotonic_ns;
use crate::process::processor_time::own_thread_time;

/// How long all allocations are followed in a burst, at least and at most.
const ALLOCATIONS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// How long probes are in place beyond that, about.
const COMING_AND_GOING: Duration = Duration::from_millis(10);
/// What a burst costs the tracer, about, seconds.
const OWN: f64 = 0.0025;
/// How long frees are followed after that.
const FREES: Duration = Duration::from_millis(5);
/// What targets have to get done in a burst for it to stand for anything, seconds.
const LEAST_WORK: f64 = 20e-6;
/// After how long they are looked at first.
const FIRST: Duration = Duration::from_millis(20);
/// A look at the costs of a burst counts for so many seconds at most.
const ONE_BURST: f64 = 2.0;
/// How often costs are looked at while probes stay.
const LOOK: Duration = Duration::from_millis(250);

/// A budget, and what was seen within it.
pub(super) struct BudgetState {
    asked: Budget,
    ledger: Ledger,
    policy: Policy,
    forecast: Forecast,
    /// What was spent and used until the last look.
    last: Reading,
    step: Step,
    next: Instant,
    /// When each regime began.
    regimes: Vec<(Regime, u64)>,
    /// Takes probes away; the processor time that it took.
    leaving: Option<JoinHandle<Duration>>,
    /// When allocations began to be looked at how closely, in bursts.
    paces: Vec<(Attention, u64)>,
    background: Background,
    /// How long the next burst follows allocations.
    length: Duration,
    /// The hits until the last look.
    before: Vec<Hits>,
    burst: Burst,
    /// When the last spell ended.
    spell_ended: Moment,
    /// How fast the targets are in bursts.
    pace: Pace,
    /// What the dearest burst took of the targets' time, seconds.
    dearest: f64,
    duty: Duty,
    deltas: Deltas,
}

/// The burst that goes on.
#[derive(Debug, Clone, Default)]
struct Burst {
    began: Moment,
    /// Until then allocations were followed.
    until: Moment,
}

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing, until the next burst.
    Waiting,
    /// A burst that began then follows allocations.
    Allocations,
    /// It follows frees alone.
    Frees,
    /// Probes stay in place, since then.
    Full { began: u64 },
    /// Nothing, for the rest of the run.
    Over,
}

impl BudgetState {
    /// Within kernel maps of `sites` call paths.
    pub(super) fn new(asked: Budget, sites: u32) -> Self {
        Self {
            asked,
            ledger: Ledger::default(),
            policy: Policy::default(),
            forecast: Forecast::default(),
            last: Reading::default(),
            step: Step::Over,
            next: Instant::now(),
            regimes: Vec::new(),
            leaving: None,
            paces: Vec::new(),
            background: Background::default(),
            length: ALLOCATIONS.0,
            before: Vec::new(),
            burst: Burst::default(),
            spell_ended: Moment::default(),
            pace: Pace::default(),
            dearest: 0.0,
            duty: Duty::new(2 * sites as usize),
            deltas: Deltas::default(),
        }
    }

    fn note_regime(&mut self, now: u64) {
        self.regimes.push((self.policy.regime(), now));
        if self.policy.regime() != Regime::Bursts {
            self.note_attention(Attention::Full, now);
        }
    }
}

impl Session {
    /// When [`Self::step_budget`] is to be called next; `None` without a budget.
    pub fn budget_due(&self) -> Option<Instant> {
        let budget = self.budget.as_ref();
        let budget = budget.filter(|budget| budget.step != Step::Over);
        let next = budget.map(|budget| budget.next);
        next.into_iter()
            .chain(self.faults.as_ref().map(FaultsState::due))
            .min()
    }

    /// Whether nothing is followed that new code could matter for at once.
    pub fn is_resting(&self) -> bool {
        match (&self.budget, &self.faults) {
            (Some(budget), _) => matches!(budget.step, Step::Waiting | Step::Over),
            (None, faults) => faults.as_ref().is_some_and(|it| !it.follows()),
        }
    }

    /// The run begins: all probes are in place.
    pub(super) fn begin_budget(&mut self) -> Result<()> {
        let now = monotonic_ns();
        let used = self.processor_time();
        let hits = self.hits()?;
        let tracer = self.own_seconds();
        let Some(budget) = &mut self.budget else {
            return Ok(());
        };
        budget.duty.schedule.begin(now);
        budget.last = Reading {
            at: now,
            targets: seconds_of(&hits),
            faults: seconds_of_faults(&hits),
            tracer,
            used,
        };
        budget.note_regime(now);
        self.stay(Regime::Exact)?;
        if let Some(budget) = &mut self.budget {
            budget.next = Instant::now() + FIRST;
        }
        Ok(())
    }

    /// Does what is due, if anything is.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn step_budget(&mut self) -> Result<()> {
        self.step_faults()?;
        self.step_allocations()
    }

    fn step_allocations(&mut self) -> Result<()> {
        let Some(budget) = &mut self.budget else {
            return Ok(());
        };
        if Instant::now() < budget.next {
            return Ok(());
        }
        match budget.step {
            Step::Waiting => self.place_for_burst(),
            Step::Allocations => self.follow_frees(),
            Step::Frees => self.end_burst(),
            Step::Full { .. } => self.look_at_costs(),
            Step::Over => Ok(()),
        }
    }

    /// The run ends: what goes on is brought to its end.
    pub(super) fn end_budget(&mut self) -> Result<()> {
        while let Some(budget) = &mut self.budget {
            match budget.step {
                Step::Allocations => budget.next = Instant::now(),
                Step::Frees => {
                    std::thread::sleep(budget.next.saturating_duration_since(Instant::now()));
                }
                Step::Full { .. } | Step::Waiting | Step::Over => break,
            }
            self.step_allocations()?;
        }
        self.close_spell()?;
        let moment = self.moment()?;
        self.account(&moment);
        if let Some(budget) = &mut self.budget {
            budget.step = Step::Over;
        }
        Ok(())
    }

    /// Waits for probes that are on their way out.
    pub(super) fn wait_for_probes(&mut self) {
        let leaving = self.budget.as_mut().and_then(|it| it.leaving.take());
        if let Some(leaving) = leaving {
            // It cannot panic.
            self.helpers += leaving.join().unwrap_or_default();
        }
    }

    fn place_for_burst(&mut self) -> Result<()> {
        let is_leaving = |leaving: &JoinHandle<Duration>| !leaving.is_finished();
        if let Some(budget) = &mut self.budget
            && budget.leaving.as_ref().is_some_and(is_leaving)
        {
            budget.next = Instant::now() + Duration::from_millis(2);
            return Ok(());
        }
        self.wait_for_probes();
        self.poll_code()?;
        // What is placed would go over a hook.
        self.guard_code();
        let refused = self.engine.probes.bring_back(&mut self.engine.object);
        for (pid, error) in refused {
            self.give_up(pid, &error)?;
        }
        self.begin_burst()
    }

    fn begin_burst(&mut self) -> Result<()> {
        let moment = self.moment()?;
        let began = monotonic_ns();
        let followed = nanoseconds(FREES);
        self.engine.object.begin_phase(Choice::All, began, followed);
        if let Some(budget) = &mut self.budget {
            budget.burst = Burst {
                began: Moment {
                    at: began,
                    ..moment
                },
                ..Burst::default()
            };
            budget.step = Step::Allocations;
            budget.next = Instant::now() + budget.length;
        }
        Ok(())
    }

    fn follow_frees(&mut self) -> Result<()> {
        self.engine.object.choose(Choice::Frees);
        let until = self.moment()?;
        if let Some(budget) = &mut self.budget {
            budget.burst.until = until;
            budget.step = Step::Frees;
            budget.next = Instant::now() + FREES;
        }
        Ok(())
    }

    fn end_burst(&mut self) -> Result<()> {
        self.engine.object.choose(Choice::Pause);
        let ended = self.moment()?;
        let Some(budget) = &mut self.budget else {
            return Ok(());
        };
        let burst = &budget.burst;
        let before = burst.began.since(&budget.spell_ended);
        // The kernel's account of their time moves with its ticks, so it is divided by the
        // clock, and several bursts are taken together.
        let whole = ended.since(&burst.began).used;
        let length = seconds(ended.at - burst.began.at).max(1e-9);
        let part = |end: &Moment, begin: &Moment| Part {
            used: whole * seconds(end.at - begin.at) / length,
            ..end.since(begin)
        };
        let all = part(&burst.until, &burst.began);
        let frees = part(&ended, &burst.until);
        budget.pace.add(&all, &frees);
        let speeds = budget.pace.speeds();
        let allocations = all.used * speeds.all;
        let followed = allocations + frees.used * speeds.frees;
        let used = all.used + frees.used;
        let spell = Spell {
            began: burst.began.at,
            allocations_until: burst.until.at,
            ended: ended.at,
            burst: Some(Work {
                since: (before.used - before.lost).max(0.0) + followed,
                allocations,
                frees: followed,
                speed: if used > 0.0 { followed / used } else { 1.0 },
            }),
            let_go: None,
        };
        self.foresee(&ended, &spell);
        let (elapsed, ..) = self.account(&ended);
        // Where the targets hardly ran there was nothing to see; the next one stands for
        // that time, too.
        let is_void = spell
            .burst
            .is_some_and(|work| work.allocations < LEAST_WORK);
        if !is_void {
            if let Some(budget) = &mut self.budget {
                budget.spell_ended = ended;
            }
            self.note_spell(spell);
        }
        self.make_room_for_blocks()?;
        let Some(budget) = &mut self.budget else {
            return Ok(());
        };
        let now = monotonic_ns();
        // One burst alone does not change the regime.
        let look = (elapsed.min(ONE_BURST), 0.0);
        let regime = budget.policy.decide(look, &budget.forecast, &budget.ledger);
        if let Some(regime) = regime {
            budget.note_regime(now);
            if regime.is_full_time() {
                return self.stay(regime);
            }
        }
        self.leave()
    }

    /// Follows allocations all the time from now on.
    fn stay(&mut self, regime: Regime) -> Result<()> {
        let began = monotonic_ns();
        let choice = choice(regime);
        self.engine.object.begin_phase(choice, began, u64::MAX);
        if let Some(budget) = &mut self.budget {
            budget.step = Step::Full { began };
            budget.next = Instant::now() + LOOK;
        }
        Ok(())
    }

    /// Takes the probes away, until the next burst or for good.
    fn leave(&mut self) -> Result<()> {
        self.engine.object.choose(Choice::Pause);
        let links = self.engine.probes.take_away();
        let leaving = std::thread::spawn(move || {
            drop_all(links);
            own_thread_time()
        });
        let Some(budget) = &mut self.budget else {
            return Ok(());
        };
        budget.leaving = Some(leaving);
        if budget.policy.regime() == Regime::Off {
            budget.step = Step::Over;
            return Ok(());
        }
        budget.step = Step::Waiting;
        budget.background.is_open = false;
        self.wait_for_burst();
        Ok(())
    }

    /// Looks at what it costs that probes stay, and decides whether they do.
    fn look_at_costs(&mut self) -> Result<()> {
        let before = self.budget.as_ref().map(|it| it.before.clone());
        let moment = self.moment()?;
        let (elapsed, spent, by_calls) = self.account(&moment);
        let hits = moment.hits;
        let Some(budget) = &mut self.budget else {
            return Ok(());
        };
        let now = monotonic_ns();
        budget.next = Instant::now() + LOOK;
        let counted = counted_since(&hits, &before.unwrap_or_default());
        let (exact, sampled) = self.engine.prices.forecast(&counted);
        budget.before = hits;
        budget.forecast.exact = exact / elapsed;
        budget.forecast.sampled = sampled / elapsed;
        let is_first = budget.regimes.len() == 1 && elapsed < seconds(nanoseconds(LOOK));
        let (policy, forecast) = (&mut budget.policy, &budget.forecast);
        let regime = match is_first {
            true => policy.begin(forecast, &budget.ledger),
            false => policy.decide((elapsed, by_calls / elapsed), forecast, &budget.ledger),
        };
        let Some(regime) = regime else {
            return Ok(());
        };
        if budget.forecast.burst <= 0.0 {
            let length = budget.length + FREES + COMING_AND_GOING;
            budget.forecast.burst = exact / elapsed * length.as_secs_f64() + spent.tracer;
        }
        budget.note_regime(now);
        if regime.is_full_time() {
            self.engine.object.choose(choice(regime));
            return Ok(());
        }
        self.close_spell()?;
        self.leave()
    }

    /// Ends the time in which nothing was missed, and begins another at once: what was
    /// seen until now is all that there is.
    pub(super) fn close_spell(&mut self) -> Result<()> {
        let Some(budget) = &mut self.budget else {
            return Ok(());
        };
        let Step::Full { began } = budget.step else {
            return Ok(());
        };
        let moment = self.moment()?;
        let now = moment.at;
        if let Some(budget) = &mut self.budget {
            budget.step = Step::Full { began: now };
            budget.spell_ended = moment;
        }
        self.note_spell(Spell {
            began,
            allocations_until: now,
            ended: now,
            burst: None,
            let_go: None,
        });
        Ok(())
    }
}

/// What is followed where probes stay.
fn choice(regime: Regime) -> Choice {
    match regime {
        Regime::Sampled => Choice::Sample,
        _ => Choice::All,
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
