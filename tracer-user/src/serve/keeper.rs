//! Naming, judging and keeping windows, on a thread of its own: files are read for names,
//! and a disk may be slow, while the kernel side must not wait.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use flate2::read::GzDecoder;

use super::container::Container;
use super::status::{Host, Lost, Service, Status, Tracer};
use super::store::{Kept, Store};
use crate::grouping::Rules;
use crate::model::Report;
use crate::privilege::capability::Phase;
use crate::session::snapshot::Snapshot;
use crate::symbolize::Symbolizer;
use crate::verdict;
use crate::window::windows::Windows;

/// What is kept of files for names from one window to the next, bytes: beyond it they are
/// read again.
const MAX_PARSED: usize = 48 << 20;

/// A window that was closed.
pub struct Closed {
    /// When the run began, milliseconds since 1970.
    pub run: u64,
    /// When the window ended.
    pub ended: u64,
    /// What there was of each service, by name.
    pub services: Vec<(String, Snapshot)>,
    /// The containers of each service's processes.
    pub containers: HashMap<String, Vec<Container>>,
    /// The tracer's own numbers.
    pub tracer: Tracer,
    /// How many bytes of windows are kept at most, and for how long.
    pub retention: (u64, Duration),
}

/// The thread.
pub struct Keeper {
    queue: SyncSender<Closed>,
    thread: JoinHandle<Result<()>>,
    /// Windows that are on their way.
    pending: Arc<AtomicUsize>,
}

impl Keeper {
    /// Starts it. What it finds is told to `status` and kept in `store`.
    pub fn start(status: Arc<Status>, store: Arc<Store>) -> Self {
        let (queue, jobs) = sync_channel(1);
        let pending = Arc::new(AtomicUsize::new(0));
        let own = Arc::clone(&pending);
        let thread = std::thread::spawn(move || work(&jobs, &status, &store, &own));
        Self {
            queue,
            thread,
            pending,
        }
    }

    /// Whether a window is on its way: another is not to be closed until then.
    pub fn is_busy(&self) -> bool {
        // If it has ended, handing over says so.
        self.pending.load(Ordering::Acquire) > 0 && !self.thread.is_finished()
    }

    /// Hands over a window.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn keep(&self, closed: Closed) -> Result<()> {
        self.pending.fetch_add(1, Ordering::AcqRel);
        self.queue
            .send(closed)
            .map_err(|_| anyhow!("the thread that keeps windows has ended"))
    }

    /// Waits until all is kept.
    ///
    /// # Errors
    /// Says why the thread had ended before.
    pub fn end(self) -> Result<()> {
        drop(self.queue);
        self.thread
            .join()
            .map_err(|_| anyhow!("the thread that keeps windows panicked"))?
    }
}

fn work(
    jobs: &Receiver<Closed>,
    status: &Status,
    store: &Store,
    pending: &AtomicUsize,
) -> Result<()> {
    Phase::Reporting
        .enter()
        .context("cannot give up capabilities")?;
    let mut names = Names::new()?;
    let mut counts = (0, 0);
    for closed in jobs {
        let retention = closed.retention;
        let ended = closed.ended;
        let mut host = names.host(closed)?;
        let kept = kept(&host).and_then(|kept| store.keep(ended, &kept, retention.0, retention.1));
        match kept {
            Ok(()) => counts.0 += 1,
            Err(error) => {
                counts.1 += 1;
                eprintln!("unfreed: warning: this window is told, and not kept: {error:#}");
            }
        }
        host.tracer.windows_kept += counts.0;
        host.tracer.windows_lost += counts.1;
        status.put(host);
        pending.fetch_sub(1, Ordering::AcqRel);
    }
    Ok(())
}

/// What is needed to name and judge windows.
struct Names {
    symbolizer: Symbolizer,
    rules: Rules,
    /// What there was of each service at the end of its last window.
    windows: HashMap<String, Windows>,
    /// When the last window ended, seconds since the run's start.
    at: f64,
}

impl Names {
    fn new() -> Result<Self> {
        Ok(Self {
            symbolizer: Symbolizer::default(),
            rules: Rules::new(&[])?,
            windows: HashMap::new(),
            at: 0.0,
        })
    }

    fn host(&mut self, mut closed: Closed) -> Result<Host> {
        let mut host = Host {
            ended: closed.ended,
            services: Vec::new(),
            tracer: closed.tracer,
        };
        let mut before = std::mem::take(&mut self.windows);
        let mut at = self.at;
        for (name, snapshot) in closed.services {
            let mut windows = before
                .remove(&name)
                .unwrap_or_else(|| Windows::since(self.at));
            let report = self.report(snapshot, &mut windows);
            note_tracer(&mut host.tracer, &report);
            at = report.duration;
            let mut service = Service::of(name.clone(), &report, closed.run, closed.ended)?;
            service.summary.containers = closed.containers.remove(&name).unwrap_or_default();
            host.services.push(Arc::new(service));
            self.windows.insert(name, windows);
        }
        self.at = at;
        if self.symbolizer.parsed() > MAX_PARSED {
            self.symbolizer = Symbolizer::default();
        }
        Ok(host)
    }

    fn report(&mut self, snapshot: Snapshot, windows: &mut Windows) -> Report {
        let mut report = snapshot.report(&mut self.symbolizer, Some(windows), &self.rules);
        report.count_again();
        verdict::conclude(&mut report);
        advise(&mut report);
        report
    }
}

/// The run goes on by itself: what is left to do is to ask who keeps what was touched.
fn advise(report: &mut Report) {
    for finding in &mut report.findings {
        let process = report.processes.get(finding.process);
        finding.advice = match process.filter(|_| finding.kind.is_growth()) {
            Some(process) => format!(
                "who never frees it: sudo unfreed record -p {} --overhead 1% --duration 10m",
                process.pid
            ),
            None => String::new(),
        };
    }
}

/// What any report says of the tracer, which is of all services.
fn note_tracer(tracer: &mut Tracer, report: &Report) {
    tracer.losses = report
        .occurred_losses()
        .map(|loss| Lost {
            cause: loss.cause.clone(),
            count: loss.count,
        })
        .collect();
    let Some(budget) = &report.budget else {
        return;
    };
    tracer.seconds = budget.tracer_seconds;
    tracer.target_seconds = budget.target_seconds;
    tracer.allowed_seconds = budget.allowed_seconds;
    if let Some(faults) = &budget.faults {
        tracer.faults_followed = faults.followed;
        tracer.faults_not_followed = faults.not_followed;
    }
}

/// What is written of a window.
fn kept(host: &Host) -> Result<Vec<Kept>> {
    let services = host.services.iter();
    services
        .map(|service| {
            let mut profile = Vec::new();
            GzDecoder::new(service.profile.as_slice()).read_to_end(&mut profile)?;
            Ok(Kept {
                service: service.summary.name.clone(),
                summary: serde_json::to_vec(&service.summary)?,
                findings: serde_json::to_vec(&service.findings)?,
                profile,
            })
        })
        .collect()
}
