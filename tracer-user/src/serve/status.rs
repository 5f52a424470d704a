//! What is known now, for those who ask: it is made anew with each window, and whoever reads
//! it meanwhile keeps what he has.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::look::Looked;
use crate::model::balance::PartName;
use crate::model::{Balance, Finding, FindingKind, Loss, Process, ProcessEnd, Report};
use crate::report::{json, pprof};
use crate::serve::container::Container;
use crate::serve::gzip;

/// All that is told.
#[derive(Debug, Default)]
pub struct Status {
    now: watch::Sender<Arc<Host>>,
}

impl Status {
    /// What there is now.
    pub fn now(&self) -> Arc<Host> {
        Arc::clone(&self.now.borrow())
    }

    /// There is something new.
    pub fn put(&self, host: Host) {
        self.now.send_replace(Arc::new(host));
    }

    /// Waits for what is new.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Host>> {
        self.now.subscribe()
    }
}

/// The host at the end of a window.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// When the window ended, milliseconds since 1970; 0 before the first one.
    pub ended: u64,
    /// Its services, by name.
    pub services: Vec<Arc<Service>>,
    /// The last closer look at each service, by name.
    pub looks: BTreeMap<String, Arc<Looked>>,
    /// What the tracer itself is at.
    pub tracer: Tracer,
}

impl Host {
    /// A service by its name.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services
            .iter()
            .find(|service| service.summary.name == name)
    }
}

/// The tracer's own numbers.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Tracer {
    /// Processes that are watched.
    pub watched: u64,
    /// Processes of services that there was no room for at the last look.
    pub left_out: u64,
    /// Windows that were kept since the tracer began.
    pub windows_kept: u64,
    /// Windows that could not be kept: the disk was full, or the tracer had no time.
    pub windows_lost: u64,
    /// Windows that were longer than asked, since the one before was not kept yet.
    pub windows_postponed: u64,
    /// Closer looks that were begun.
    pub looks: u64,
    /// Times that a configuration was read, and that one was refused.
    pub reloads: u64,
    /// See `reloads`.
    pub refused_reloads: u64,
    /// Memory of the kernel's maps, bytes (computed; all that they take from the start).
    pub kernel_bytes: u64,
    /// The most that it can be, bytes (computed).
    pub kernel_bytes_at_most: u64,
    /// Processor time of the tracer itself, seconds.
    pub seconds: f64,
    /// What tracing took of the watched processes' time, seconds: an estimate.
    pub target_seconds: f64,
    /// What of both together was allowed until now, seconds.
    pub allowed_seconds: f64,
    /// Page faults that were followed.
    pub faults_followed: u64,
    /// Page faults that were not, to keep the budget.
    pub faults_not_followed: u64,
    /// What was lost, by cause; causes that did not occur are left out.
    pub losses: Vec<Lost>,
}

/// What was lost for one cause, of all services together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lost {
    /// The cause.
    pub cause: String,
    /// How many events.
    pub count: u64,
}

impl Lost {
    /// From a report's.
    pub fn of(loss: &Loss) -> Self {
        Self {
            cause: loss.cause.clone(),
            count: loss.count,
        }
    }
}

/// A service at the end of a window.
#[derive(Debug)]
pub struct Service {
    /// Its numbers.
    pub summary: Summary,
    /// Its findings since its processes are watched.
    pub findings: Vec<Finding>,
    /// Its profile: pprof, compressed by gzip.
    pub profile: Vec<u8>,
    /// All of its report: JSON, compressed by gzip.
    pub report: Vec<u8>,
}

/// The numbers of a service in a window.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Summary {
    /// The service.
    pub name: String,
    /// When the window began, milliseconds since 1970.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// The containers of its processes; none if they are in none.
    pub containers: Vec<Container>,
    /// Its processes: each is a series.
    pub series: Vec<Series>,
    /// What they have in memory, bytes.
    pub resident_bytes: u64,
    /// The same by kind.
    pub resident: Resident,
    /// By how much that has grown since each is watched, bytes.
    pub growth_bytes: i64,
    /// Memory that was first touched since then and is there yet, by the paths that were
    /// followed, bytes.
    pub live_bytes: u64,
    /// Memory that came in since then, where page faults of its processes were not followed, to
    /// keep the budget, bytes: of no known path.
    pub not_followed_bytes: u64,
    /// Memory that came in since then without a page fault that was told of, bytes: of no known
    /// path.
    pub untold_bytes: u64,
    /// By how much `live_bytes` has grown in this window, bytes.
    pub new_bytes: i64,
    /// Call paths.
    pub paths: u64,
    /// Findings that are a reason to worry.
    pub growing: u64,
    /// By how many bytes a second it grows, by these findings; nothing if there are none.
    pub bytes_per_second: Option<f64>,
}

/// Memory of processes by kind, bytes, as the kernel accounts it: the first three are what
/// is resident.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resident {
    /// Their own: heaps, stacks, and written copies of files' pages.
    pub anonymous_bytes: u64,
    /// Pages of files.
    pub file_bytes: u64,
    /// Shared memory: tmpfs, memfd, System V.
    pub shared_bytes: u64,
    /// In swap space; not in memory.
    pub swap_bytes: u64,
}

impl Resident {
    fn of<'a>(balance: impl Iterator<Item = &'a Balance>) -> Self {
        let mut sum = Self::default();
        for kinds in balance.map(|it| &it.kinds_end) {
            sum.anonymous_bytes += kinds.anonymous;
            sum.file_bytes += kinds.file;
            sum.shared_bytes += kinds.shared;
            sum.swap_bytes += kinds.swap;
        }
        sum
    }
}

/// One process of a service, from the start of its tracing or of the program that it
/// executed, to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Series {
    /// Its process id.
    pub pid: u32,
    /// Its short name.
    pub name: String,
    /// Since when it is watched, milliseconds since 1970.
    pub began: u64,
    /// When it ended, if it did.
    pub ended: Option<u64>,
}

impl Service {
    /// How fast it grows, bytes a second, if any finding says that it does.
    pub fn growth(&self) -> Option<f64> {
        self.summary.bytes_per_second
    }

    /// From a judged report of its processes, whose run began and whose window ended at
    /// these times, milliseconds since 1970.
    ///
    /// # Errors
    /// The profile or the report cannot be written.
    pub fn of(name: String, report: &Report, run: u64, ended: u64) -> anyhow::Result<Self> {
        let at = |seconds: f64| run + milliseconds(seconds);
        let window = report.window.as_ref();
        let balance = report.balance.iter();
        let growing = report.findings.iter().filter(|it| it.kind.is_growth());
        let summary = Summary {
            name,
            began: window.map_or(run, |window| at(window.began)),
            ended,
            containers: Vec::new(),
            series: report.processes.iter().map(|it| series(it, at)).collect(),
            resident_bytes: balance.clone().map(|it| it.resident_end).sum(),
            resident: Resident::of(balance.clone()),
            growth_bytes: balance.map(|it| it.growth).sum(),
            live_bytes: report.totals.live_bytes,
            not_followed_bytes: parts(report, PartName::NotFollowed),
            untold_bytes: parts(report, PartName::Untold),
            new_bytes: window.map_or(0, |window| window.sums.live_bytes),
            paths: report.sites.len() as u64,
            growing: growing.count() as u64,
            bytes_per_second: growth(&report.findings),
        };
        let mut profile = Vec::new();
        pprof::write(report, &mut profile)?;
        Ok(Self {
            summary,
            findings: report.findings.clone(),
            profile,
            report: packed(report)?,
        })
    }
}

/// What a part of its growth comes to of all processes together, bytes.
fn parts(report: &Report, name: PartName) -> u64 {
    let parts = report.balance.iter().map(|balance| balance.part(name));
    parts.filter_map(|bytes| u64::try_from(bytes).ok()).sum()
}

/// What findings that say so grow by, bytes a second, together. What is not counted in bytes
/// has no part in it.
fn growth(findings: &[Finding]) -> Option<f64> {
    let has_bytes = |it: &&Finding| it.kind.is_growth() && it.kind != FindingKind::Descriptors;
    let growing = findings.iter().filter(has_bytes);
    growing
        .map(|it| it.bytes_per_second)
        .reduce(|one, other| one + other)
}

/// A report as JSON, compressed by gzip.
///
/// # Errors
/// It cannot be written.
pub(super) fn packed(report: &Report) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    json::write(report, &mut text)?;
    gzip::pack(&text)
}

fn series(process: &Process, at: impl Fn(f64) -> u64) -> Series {
    let has_ended = process.end != ProcessEnd::Running || process.running == 0;
    Series {
        pid: process.pid,
        name: process.name.clone(),
        began: at(process.began),
        ended: has_ended.then(|| at(process.ended)),
    }
}

/// Milliseconds of a time in seconds.
pub(super) fn milliseconds(seconds: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time since the start, which a cast brings within what there is"
    )]
    let milliseconds = (seconds * 1e3) as u64;
    milliseconds
}
