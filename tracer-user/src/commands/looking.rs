//! Which service `unfreed serve` looks at closer, and when.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;

use super::look::{Looker, Order};
use crate::budget::Budget;
use crate::serve::agenda::{Agenda, Candidate};
use crate::serve::config::{Config, Depth};
use crate::serve::keeper::Looks;
use crate::serve::look::Look;
use crate::serve::services::Services;
use crate::serve::status::Host;

/// Closer looks, one at a time.
#[derive(Default)]
pub struct Looking {
    agenda: Agenda,
    current: Option<Looker>,
    /// The end of the last window that the agenda knows.
    noted: u64,
    /// What looks that have ended took of processes' time, and was not told yet, seconds.
    owed: f64,
    /// Looks that were begun.
    pub begun: u64,
}

/// What decides what is looked at.
pub struct Scene<'a> {
    /// Now, milliseconds since 1970.
    pub now: u64,
    /// What was found until the last window.
    pub host: &'a Host,
    /// What is watched.
    pub services: &'a Services,
    /// What is to be done.
    pub config: &'a Config,
    /// No messages but warnings.
    pub quiet: bool,
}

impl Looking {
    /// Ends a look that has had its time, and begins the one that is due.
    ///
    /// # Errors
    /// There are no threads left.
    pub fn step(&mut self, scene: &Scene<'_>, looks: impl FnOnce() -> Looks) -> Result<()> {
        let running = scene.services.running_by_service();
        let candidates = candidates(&running, scene.host);
        if scene.host.ended > self.noted {
            self.noted = scene.host.ended;
            self.agenda.note(&candidates);
        }
        let length = scene.config.look();
        let has_ended = self.current.as_ref().is_some_and(Looker::has_ended);
        if has_ended || self.agenda.is_over(scene.now, length, &candidates) {
            self.end(scene.now, scene.config.budget());
        }
        let Some((service, why)) = self.agenda.next(scene.now, length, &candidates) else {
            return Ok(());
        };
        let Some((depth, pids)) = running.get(service.as_str()) else {
            return Ok(());
        };
        self.current = Some(Looker::start(Order {
            look: Look::new(&service, why, scene.now),
            ordered: Instant::now(),
            pids: pids.clone(),
            budget: depth.budget.within(scene.config.budget()),
            searching: scene.config.searching(*depth),
            looks: looks(),
            retention: scene.config.retention(),
            asker: None,
            quiet: scene.quiet,
        })?);
        self.agenda.begin(&service, scene.now);
        self.begun += 1;
        Ok(())
    }

    /// A window ended at this time, milliseconds since 1970.
    pub fn window_ended(&self, at: u64) {
        if let Some(current) = &self.current {
            current.window_ended(at);
        }
    }

    /// Somebody wants a service's memory searched. Without a look at it nothing is.
    pub fn search(&self, service: &str) {
        if let Some(current) = &self.current {
            current.search(service);
        }
    }

    /// What looks took of processes' time since the last call, seconds: an estimate.
    pub fn new_cost(&mut self) -> f64 {
        let new = self.current.as_mut().map_or(0.0, Looker::new_cost);
        new + std::mem::take(&mut self.owed)
    }

    /// Ends the look that goes on, now, milliseconds since 1970, and waits until its probes
    /// are gone. `budget` is the host's.
    pub fn end(&mut self, now: u64, budget: Budget) {
        if let Some(current) = self.current.take() {
            let (own, cost) = current.end();
            self.owed += cost;
            // What there is in a second if nothing is used.
            let rate = budget.allowance(1.0, 0.0);
            self.agenda.end(now, own, rate);
        }
    }
}

/// The services that have processes, and how fast those grow that do.
fn candidates(running: &BTreeMap<&str, (Depth, Vec<u32>)>, host: &Host) -> Vec<Candidate> {
    running
        .iter()
        .map(|(service, (depth, _))| Candidate {
            service: (*service).to_owned(),
            depth: *depth,
            grows: host.service(service).and_then(|it| it.growth()),
        })
        .collect()
}
