//! How far apart bursts are, and how closely that looks at allocations.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::Session;
use super::super::faults::FaultsState;
use super::{BudgetState, Step};
use crate::budget::{Attention, Gaps};
use crate::process::clock::monotonic_ns;

/// What tracing costs between two bursts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Background {
    /// Seconds a second.
    rate: f64,
    /// Whether there was a look since the probes of the last burst were gone.
    pub(super) is_open: bool,
}

impl Background {
    /// Enters what was spent in each second since the last look.
    fn note(&mut self, spent: f64, leaving: Option<&JoinHandle<Duration>>) {
        if self.is_open {
            self.rate = match self.rate > 0.0 {
                true => self.rate * 0.8 + spent * 0.2,
                false => spent,
            };
        }
        let is_gone = leaving.is_none_or(JoinHandle::is_finished);
        self.is_open = is_gone;
    }

    pub(super) fn rate(self) -> f64 {
        self.rate
    }
}

impl BudgetState {
    /// Has bursts at another pace from now on.
    pub(super) fn note_attention(&mut self, attention: Attention, now: u64) {
        if self.attention() != attention {
            self.paces.push((attention, now));
        }
    }

    fn attention(&self) -> Attention {
        self.paces.last().map_or(Attention::Full, |(it, _)| *it)
    }
}

impl Session {
    /// Draws how long there is nothing until the next burst.
    pub(super) fn wait_for_burst(&mut self) {
        let attention = self.attention();
        let Some(budget) = &mut self.budget else {
            return;
        };
        budget.note_attention(attention, monotonic_ns());
        // On average as much is spent as is allowed; a debt takes longer.
        let rate = budget.ledger.rate().max(1e-9);
        let debt = (-budget.ledger.credit() - budget.forecast.burst).max(0.0);
        let mean = budget.forecast.burst / (rate * attention.share());
        let gap = Gaps::of_mean(mean).draw(fastrand::f64()) + debt / rate;
        budget.next = Instant::now() + Duration::from_secs_f64(gap.min(3600.0));
    }

    /// How closely to look at allocations.
    fn attention(&self) -> Attention {
        let faults = self.faults.as_ref();
        faults.map_or(Attention::Full, FaultsState::attention)
    }

    /// The targets were looked at. `spent` is what tracing cost in each second since the
    /// last look. If something begins to grow, the next burst comes sooner: at a moment
    /// that is drawn anew, since what a burst sees must not hang on when it is.
    pub(in crate::session) fn note_survey(&mut self, spent: f64) {
        let attention = self.attention();
        let Some(budget) = &mut self.budget else {
            return;
        };
        if budget.step != Step::Waiting {
            budget.background.is_open = false;
            return;
        }
        budget.background.note(spent, budget.leaving.as_ref());
        if (budget.attention(), attention) != (Attention::Base, Attention::Full) {
            return;
        }
        let next = budget.next;
        self.wait_for_burst();
        if let Some(budget) = &mut self.budget {
            budget.next = budget.next.min(next);
        }
    }
}
