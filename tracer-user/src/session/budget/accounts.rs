//! What tracing costs, and what it would.

use std::time::Duration;

use anyhow::Result;
use tracer_ebpf::hits::Kind;

use super::super::Session;
use super::{ALLOCATIONS, COMING_AND_GOING, FREES, OWN, Step, seconds};
use crate::budget::Spent;
use crate::duty::{Part, Spell};
use crate::engine::cost::Hits;
use crate::process::clock::monotonic_ns;

/// What a burst costs at least, seconds.
const SMALLEST: f64 = 0.0005;
/// The part of a budget that is left to bursts at least.
const LEFT: f64 = 0.05;

/// What was spent and used until a moment, seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    pub(super) at: u64,
    pub(super) targets: f64,
    pub(super) tracer: f64,
    pub(super) used: f64,
    /// What page faults took of `targets`.
    pub(super) faults: f64,
}

/// What was used and lost until a moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Moment {
    pub(super) at: u64,
    /// Processor time of the targets, seconds, and what of it was lost to tracing.
    pub(super) used: f64,
    pub(super) lost: f64,
    pub(super) hits: Vec<Hits>,
}

impl Moment {
    /// What there was since another moment.
    pub(super) fn since(&self, before: &Self) -> Part {
        Part {
            used: (self.used - before.used).max(0.0),
            lost: (self.lost - before.lost).max(0.0),
        }
    }
}

impl Session {
    /// What other regimes would cost, by the hits in a burst.
    pub(super) fn foresee(&mut self, ended: &Moment, spell: &Spell) {
        let (Some(budget), Some(work)) = (&mut self.budget, spell.burst) else {
            return;
        };
        let began = &budget.burst.began;
        let counted = counted_since(&ended.hits, &began.hits);
        let (exact, sampled) = self.engine.prices.forecast(&counted);
        let length = seconds(spell.ended - spell.began);
        // While allocations were not followed any more fewer calls were stopped for long;
        // and without tracing there would be more.
        budget.forecast.exact = exact / length / work.speed;
        budget.forecast.sampled = sampled / length / work.speed;
        // While probes come and go the target pays, too, and the tracer for itself; a burst
        // that is shorter than all that is worth little.
        let cost = ((ended.lost - began.lost) / length).max(1e-6);
        let worth = COMING_AND_GOING + Duration::from_secs_f64((OWN / cost).min(1.0));
        budget.length = worth
            .saturating_sub(FREES)
            .clamp(ALLOCATIONS.0, ALLOCATIONS.1);
    }

    /// What was used and lost until now.
    pub(super) fn moment(&mut self) -> Result<Moment> {
        let hits = self.hits()?;
        Ok(Moment {
            used: self.processor_time(),
            at: monotonic_ns(),
            lost: seconds_of(&hits),
            hits,
        })
    }

    /// Enters what was allowed and spent from the last time until a moment. Returns the
    /// seconds since then, what was spent in them, and what the targets spent of it because
    /// of their calls.
    pub(super) fn account(&mut self, until: &Moment) -> (f64, Spent, f64) {
        let tracer = self.own_seconds();
        let Some(budget) = &mut self.budget else {
            return (0.0, Spent::default(), 0.0);
        };
        let now = Reading {
            at: until.at,
            // The mean run of a program changes as more are timed.
            targets: until.lost.max(budget.last.targets),
            tracer,
            used: until.used,
            faults: seconds_of_faults(&until.hits).max(budget.last.faults),
        };
        let last = std::mem::replace(&mut budget.last, now);
        let elapsed = seconds(now.at.saturating_sub(last.at).max(1));
        let spent = Spent {
            targets: now.targets - last.targets,
            tracer: now.tracer - last.tracer,
        };
        let own = (now.used - last.used - spent.targets).max(0.0);
        budget
            .ledger
            .enter(elapsed, budget.asked.allowance(elapsed, own), spent);
        if matches!(budget.step, Step::Frees) {
            // At full pace all goes to bursts that is not spent between them anyway.
            let rate = budget.ledger.rate();
            let background = budget.background.rate();
            let own = (spent.all() - background * elapsed).max(SMALLEST);
            let effective = own * rate / (rate - background).max(LEFT * rate).max(1e-9);
            let burst = &mut budget.forecast.burst;
            *burst = match *burst > 0.0 {
                true => *burst * 0.7 + effective * 0.3,
                false => effective,
            };
            budget.dearest = budget.dearest.max(spent.targets);
        }
        let faults = now.faults - last.faults;
        (elapsed, spent, (spent.targets - faults).max(0.0))
    }
}

/// What was counted after there were others.
pub(super) fn counted_since(now: &[Hits], before: &[Hits]) -> Vec<Hits> {
    let mut counted = now.to_vec();
    for (hits, before) in counted.iter_mut().zip(before) {
        hits.count = hits.count.saturating_sub(before.count);
        hits.in_passing = hits.in_passing.saturating_sub(before.in_passing);
    }
    counted
}

pub(super) fn seconds_of(hits: &[Hits]) -> f64 {
    hits.iter().map(Hits::seconds).sum()
}

/// What page faults took of the targets' time, seconds.
pub(super) fn seconds_of_faults(hits: &[Hits]) -> f64 {
    let faults = hits.iter().filter(|hits| hits.kind == Kind::Fault);
    faults.map(Hits::seconds).sum()
}
