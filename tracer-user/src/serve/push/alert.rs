//! Which findings are told, and when again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::window::host;
use crate::model::Finding;
use crate::serve::config::Alert;
use crate::serve::container::Container;
use crate::serve::look::Looked;
use crate::serve::status::{Host, Service};
use crate::serve::store::Store;
use crate::serve::store::outbox::{Queue, Told};

/// The version of what is sent; what it has only grows within one.
const VERSION: u32 = 1;

/// Why a finding is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    /// It is as sure as was asked.
    Found,
    /// Its forecast is nearer than was asked.
    Near,
    /// And at half of what it was when that was told last, or less.
    Nearer,
    /// Who holds what it is about is known: it is a closer look's.
    Held,
}

/// What is sent.
#[derive(Debug, Serialize)]
struct Body<'a> {
    version: u32,
    reason: Reason,
    /// When the window ended, milliseconds since 1970.
    at: u64,
    host: String,
    service: &'a str,
    /// The process that the finding is of; 0 if it is not known.
    pid: u32,
    containers: &'a [Container],
    /// As in a report.
    finding: &'a Finding,
}

/// Tells findings to a destination.
#[derive(Debug)]
pub struct Teller {
    confidence: f64,
    within: Option<Duration>,
    queue: Arc<Queue>,
    store: Arc<Store>,
}

impl Teller {
    /// One for an alert.
    pub fn new(alert: &Alert, queue: Arc<Queue>, store: Arc<Store>) -> Self {
        Self {
            confidence: alert.confidence,
            within: alert.within,
            queue,
            store,
        }
    }

    /// Enters what of a window is to be told into the queue.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn tell(&self, host: &Host) -> Result<()> {
        for service in &host.services {
            for finding in service.findings.iter().filter(|it| it.kind.is_growth()) {
                self.look(service, finding)?;
            }
        }
        for looked in host.looks.values() {
            if let Some(service) = host.service(&looked.look.service) {
                self.look_at_held(service, looked)?;
            }
        }
        Ok(())
    }

    /// Tells who holds what a look of this run has found.
    fn look_at_held(&self, service: &Service, looked: &Looked) -> Result<()> {
        let seen = looked.seen.as_ref().filter(|seen| seen.report.is_some());
        let Some(seen) = seen else {
            return Ok(());
        };
        let growing = seen.findings.iter().filter(|it| it.kind.is_growth());
        for finding in growing.filter(|it| self.is_held(it)) {
            let name = format!("{}\nheld", name(service, finding));
            if self.store.told(&self.queue, &name)?.is_none() {
                let pid = match looked.look.processes[..] {
                    [only] => only,
                    _ => 0,
                };
                self.enqueue(service, (finding, pid), &name, Reason::Held)?;
            }
        }
        Ok(())
    }

    /// Whether a finding is as sure as was asked, and anything is known of who holds its blocks.
    fn is_held(&self, finding: &Finding) -> bool {
        let holders = finding.holders.as_ref();
        finding.confidence >= self.confidence
            && holders.is_some_and(|it| it.lost > 0 || !it.chains.is_empty())
    }

    fn look(&self, service: &Service, finding: &Finding) -> Result<()> {
        let name = name(service, finding);
        let told = self.store.told(&self.queue, &name)?;
        let Some(reason) = self.reason(finding, told) else {
            return Ok(());
        };
        let process = service.summary.series.get(finding.process);
        let pid = process.map_or(0, |process| process.pid);
        self.enqueue(service, (finding, pid), &name, reason)
    }

    fn enqueue(
        &self,
        service: &Service,
        (finding, pid): (&Finding, u32),
        name: &str,
        reason: Reason,
    ) -> Result<()> {
        let summary = &service.summary;
        let body = Body {
            version: VERSION,
            reason,
            at: summary.ended,
            host: host(),
            service: &summary.name,
            pid,
            containers: &summary.containers,
            finding,
        };
        let now = Told {
            at: summary.ended,
            near: match reason {
                Reason::Found | Reason::Held => None,
                Reason::Near | Reason::Nearer => seconds(finding),
            },
        };
        let body = serde_json::to_string(&body)?;
        self.store.tell(&self.queue, name, now, body)
    }

    fn reason(&self, finding: &Finding, told: Option<Told>) -> Option<Reason> {
        let within = self.within.map(|within| within.as_secs_f64());
        let seconds = seconds(finding);
        let is_near = seconds.zip(within).is_some_and(|(it, within)| it <= within);
        match told.map(|told| told.near) {
            _ if finding.confidence < self.confidence => None,
            Some(Some(before)) => seconds
                .is_some_and(|it| is_near && it <= before / 2.0)
                .then_some(Reason::Nearer),
            Some(None) => is_near.then_some(Reason::Near),
            None if is_near => Some(Reason::Near),
            None => Some(Reason::Found),
        }
    }
}

fn seconds(finding: &Finding) -> Option<f64> {
    finding.forecast.as_ref().map(|forecast| forecast.seconds)
}

/// What a finding is known by: its service and where it is in the call tree, or, if it is
/// nowhere there, what it is about. That lasts over a restart of the service's processes, and
/// of the tracer.
fn name(service: &Service, finding: &Finding) -> String {
    format!("{}\n{}", service.summary.name, finding.place())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FindingKind, Forecast};

    fn teller() -> (tempfile::TempDir, Teller) {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), 0).unwrap();
        let teller = Teller {
            confidence: 0.8,
            within: Some(Duration::from_secs(1000)),
            queue: Queue::after(&[], "a".to_owned(), 10, false),
            store: Arc::new(store),
        };
        (folder, teller)
    }

    fn finding(confidence: f64, seconds: f64) -> Finding {
        Finding {
            forecast: Some(Forecast {
                limit: "machine".to_owned(),
                limit_bytes: 1 << 30,
                left_bytes: 1 << 20,
                seconds,
            }),
            ..Finding::new(FindingKind::Leak, 0, confidence)
        }
    }

    #[test]
    fn a_finding_is_told_once_and_when_it_comes_closer() {
        let (_folder, teller) = teller();
        let told = |near| Some(Told { at: 0, near });
        for (finding, before, reason) in [
            (finding(0.7, 10.0), None, None),
            (finding(0.9, 5000.0), None, Some(Reason::Found)),
            (finding(0.9, 4000.0), told(None), None),
            (finding(0.9, 900.0), None, Some(Reason::Near)),
            (finding(0.9, 900.0), told(None), Some(Reason::Near)),
            (finding(0.9, 800.0), told(Some(900.0)), None),
            (finding(0.9, 450.0), told(Some(900.0)), Some(Reason::Nearer)),
        ] {
            assert_eq!(teller.reason(&finding, before), reason, "{before:?}");
        }
    }
}
