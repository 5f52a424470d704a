//! What is told of a closer look at a service.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::agenda::Why;
use super::status::{Lost, milliseconds, packed};
use crate::model::{Finding, Report};
use crate::report::held_by;
use crate::report::pprof;
use crate::report::units;

/// A look by the allocators' probes. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Look {
    /// The service.
    pub service: String,
    /// Why it is looked at.
    pub why: String,
    /// When it began.
    pub began: u64,
    /// When it ended, if it has.
    pub ended: Option<u64>,
    /// Why it could not look, if it could not.
    pub failure: Option<String>,
    /// The processes that are looked at.
    pub processes: Vec<u32>,
    /// Processes of the service that are not: there are too many, or they cannot be traced.
    pub left_out: u64,
    /// Searches for who holds what that have ended. Nothing where `holders = false` keeps them away.
    #[serde(default)]
    pub searches: Option<u64>,
    /// What it costs.
    pub cost: Cost,
    /// What was lost of these processes, by cause.
    pub losses: Vec<Lost>,
}

/// What a look costs until now, seconds of processor time.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Cost {
    /// What was asked for.
    pub budget: String,
    /// What that allowed.
    pub allowed_seconds: f64,
    /// What its start took of the tracer's: the kernel verifies the programs.
    pub start_seconds: f64,
    /// What the tracer took since, in the look's own thread.
    pub tracer_seconds: f64,
    /// What searching for who holds what leaks took of the tracer's, beside that.
    #[serde(default)]
    pub search_seconds: f64,
    /// What tracing took of the processes' time: an estimate.
    pub target_seconds: f64,
    /// Bursts in which all was followed; 0 if all was followed all the time.
    pub bursts: u64,
    /// The part of the time in which allocations were followed.
    pub duty: f64,
    /// Memory of the kernel's maps and buffers that it took from the start, bytes (computed).
    pub kernel_bytes: u64,
}

/// What a look has seen until a moment.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Until when, milliseconds since 1970.
    pub at: u64,
    /// When the look that saw it began.
    pub began: u64,
    /// What is to be said.
    pub findings: Vec<Finding>,
    /// The heap profile since the look began: pprof, compressed by gzip.
    pub profile: Vec<u8>,
    /// All of its report: JSON, compressed by gzip. Nothing if a run before has seen it: then
    /// findings and profile were kept.
    pub report: Option<Vec<u8>>,
}

/// The last look at a service, and what the last one that saw anything has seen.
#[derive(Debug, Clone, Default)]
pub struct Looked {
    /// The last look.
    pub look: Look,
    /// What was seen.
    pub seen: Option<Seen>,
}

impl Look {
    /// One that begins now.
    pub fn new(service: &str, why: Why, began: u64) -> Self {
        Self {
            service: service.to_owned(),
            why: describe(why),
            began,
            ..Self::default()
        }
    }

    /// The time so many seconds after it began.
    pub fn after(&self, seconds: f64) -> u64 {
        self.began + milliseconds(seconds)
    }

    /// Enters what a report says of its cost.
    pub fn enter(&mut self, report: &Report) {
        self.losses = report.occurred_losses().map(Lost::of).collect();
        let Some(budget) = &report.budget else {
            return;
        };
        self.cost.allowed_seconds = budget.allowed_seconds;
        self.cost.tracer_seconds = budget.tracer_seconds;
        self.cost.target_seconds = budget.target_seconds;
        self.cost.bursts = budget.bursts;
        self.cost.duty = budget.duty;
    }
}

impl Looked {
    /// Whether it began less than `age` before a time, milliseconds since 1970.
    pub fn is_since(&self, time: u64, age: Duration) -> bool {
        Duration::from_millis(time.saturating_sub(self.look.began)) < age
    }
}

impl Seen {
    /// How long ago it saw the last.
    pub fn age(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap_or_default()
            .saturating_sub(Duration::from_millis(self.at))
    }

    /// From a judged report of a look.
    ///
    /// # Errors
    /// The profile or the report cannot be written.
    pub fn of(report: &Report, began: u64, at: u64) -> anyhow::Result<Self> {
        let mut profile = Vec::new();
        pprof::write(report, &mut profile)?;
        Ok(Self {
            at,
            began,
            findings: report.findings.iter().map(told).collect(),
            profile,
            report: Some(packed(report)?),
        })
    }
}

/// A finding as it is told: who holds what it is about is evidence.
fn told(finding: &Finding) -> Finding {
    let mut told = finding.clone();
    let held = finding.holders.as_ref().map(held_by::sentence);
    told.evidence.extend(held);
    told
}

fn describe(why: Why) -> String {
    match why {
        Why::Asked => "its rule asks for it".to_owned(),
        Why::Grows(rate, windows) => format!(
            "it grows by {}/s, in {windows} windows one after the other",
            units::bytes_per_second(rate)
        ),
    }
}
