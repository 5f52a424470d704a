//! What a budget did to a run, for the report.

use std::collections::HashMap;

use tracer_ebpf::site::SiteKey;

use super::super::Session;
use super::seconds;
use crate::budget::Regime;
use crate::model::{BudgetReport, MemoryKind, RegimeTime, Survival};
use crate::targets::estimate::Estimates;
use crate::targets::share::Shares;
use crate::window::collect::CollectedSite;

impl Session {
    /// What the budget did to the run, if there is one.
    pub(in crate::session) fn budget_report(&self) -> Option<BudgetReport> {
        let faults = self.faults_report();
        let Some(budget) = &self.budget else {
            let (faults, alone) = faults?;
            let (asked, ledger) = alone?;
            return Some(BudgetReport {
                asked: asked.to_string(),
                allowed_seconds: ledger.allowed(),
                target_seconds: ledger.spent().targets,
                tracer_seconds: ledger.spent().tracer,
                used_seconds: self.usage.seconds,
                faults: Some(faults),
                ..BudgetReport::default()
            });
        };
        let now = self.now();
        let began = budget.duty.schedule.began();
        let regimes = budget.regimes.iter().map(|(it, at)| (it.name(), *at));
        let regimes = times(regimes, began, now);
        let spells = budget.duty.schedule.spells().iter();
        let followed: u64 = spells.map(|it| it.allocations_until - it.began).sum();
        let spent = budget.ledger.spent();
        Some(BudgetReport {
            asked: budget.asked.to_string(),
            allowed_seconds: budget.ledger.allowed(),
            target_seconds: spent.targets,
            tracer_seconds: spent.tracer,
            used_seconds: self.usage.seconds,
            regimes: regimes.into_iter().filter(|it| it.seconds > 0.0).collect(),
            bursts: budget.duty.schedule.bursts() as u64,
            duty: seconds(followed) / seconds(now.saturating_sub(began)).max(1e-9),
            followed_for: budget.duty.schedule.followed_for().map(seconds),
            scale_error: budget.duty.schedule.scale_error(),
            dearest_burst: budget.dearest,
            attention: times(
                budget.paces.iter().map(|(it, at)| (it.name(), *at)),
                began,
                now,
            ),
            faults: faults.map(|(faults, _)| faults),
        })
    }

    /// What following allocations took of the targets' processor time until the last look at
    /// it, seconds: an estimate.
    pub fn cost_of_targets(&self) -> f64 {
        let budget = self.budget.as_ref();
        budget.map_or(0.0, |budget| budget.ledger.spent().targets)
    }

    /// Whether nothing of the run was left out.
    pub(in crate::session) fn has_seen_all(&self) -> bool {
        let Some(budget) = &self.budget else {
            return self.options.sample == 0;
        };
        let mut regimes = budget.regimes.iter();
        regimes.all(|(regime, _)| *regime == Regime::Exact)
    }

    /// Whether blocks may have been freed without anybody seeing it.
    pub(in crate::session) fn misses_frees(&self) -> bool {
        let budget = self.budget.as_ref();
        let mut regimes = budget.into_iter().flat_map(|it| &it.regimes);
        regimes.any(|(regime, _)| matches!(regime, Regime::Bursts | Regime::Off))
    }

    /// The interval of samples that were chosen by chance, bytes; 0 if none were.
    pub(in crate::session) fn sample_interval(&self) -> u64 {
        let was_sampled = |budget: &super::BudgetState| {
            let mut regimes = budget.regimes.iter();
            regimes.any(|(regime, _)| *regime == Regime::Sampled)
        };
        match &self.budget {
            Some(budget) if !was_sampled(budget) => 0,
            _ => self.options.sample,
        }
    }

    /// Bursts in which all was followed.
    pub(in crate::session) fn bursts(&self) -> u64 {
        let budget = self.budget.as_ref();
        budget.map_or(0, |budget| budget.duty.schedule.bursts() as u64)
    }

    /// Puts what the whole run is like in place of what was seen of it.
    pub(in crate::session) fn estimate_sites(&mut self, sites: &mut [CollectedSite], now: u64) {
        let Some(budget) = &self.budget else {
            return;
        };
        let heap = |site: &&mut CollectedSite| site.kind == MemoryKind::Heap;
        if self.has_seen_all() {
            let blocks = sites.iter_mut().filter(heap);
            blocks.for_each(|site| site.estimates = None);
            return;
        }
        if budget.duty.schedule.is_whole() {
            return;
        }
        let mut known: HashMap<SiteKey, (Estimates, Survival)> = budget.duty.estimates(now);
        for site in sites.iter_mut().filter(heap).filter(|site| !site.is_rest) {
            let (estimates, survival) = known.remove(&site.key).unwrap_or_default();
            site.allocated = estimates.allocated.whole();
            site.freed = estimates.freed.whole();
            site.live = estimates.live.whole();
            site.estimates = Some(estimates);
            site.survival = Some(survival);
            // Who holds what was seen of it, which is little, is not known of the rest.
            site.shares = Shares::default();
            site.oldest = None;
        }
    }
}

/// How long there was each of what began at some times.
fn times(
    beginnings: impl Iterator<Item = (&'static str, u64)> + Clone,
    began: u64,
    now: u64,
) -> Vec<RegimeTime> {
    let ends = beginnings.clone().skip(1).map(|(_, at)| at).chain([now]);
    let time = |((name, at), end): ((&'static str, u64), u64)| RegimeTime {
        regime: name.to_owned(),
        since: seconds(at.saturating_sub(began)),
        seconds: seconds(end.saturating_sub(at)),
    };
    beginnings.zip(ends).map(time).collect()
}
