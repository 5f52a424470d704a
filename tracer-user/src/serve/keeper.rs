//! Naming, judging and keeping windows, on a thread of its own: files are read for names,
//! and a disk may be slow, while the kernel side must not wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::mpsc::UnboundedSender;

use super::account::Account;
use super::container::Container;
use super::gzip;
use super::look::{Look, Looked, Seen};
use super::searches::{Suspect, suspects};
use super::status::{Host, Service, Status, Tracer};
use super::store::{Kept, Store};
use crate::grouping::Rules;
use crate::model::{FindingKind, Report};
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

/// What a closer look has seen.
pub struct SeenCloser {
    /// The look.
    pub look: Look,
    /// Until when it has seen it, milliseconds since 1970.
    pub at: u64,
    /// What it has seen, if it has yet.
    pub snapshot: Option<Snapshot>,
    /// See [`Closed::retention`].
    pub retention: (u64, Duration),
    /// Who wants to know what was found in it.
    pub asker: Option<Asker>,
}

/// Is told what findings are as sure as it says.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Findings from this confidence on.
    pub confidence: f64,
    /// To whom.
    pub tell: UnboundedSender<Vec<Suspect>>,
}

impl Asker {
    fn tell(&self, report: &Report) {
        // The look may have ended.
        let _ = self.tell.send(suspects(report, self.confidence));
    }
}

/// What is to be named, judged and kept.
enum Job {
    Window(Box<Closed>),
    Look(Box<SeenCloser>),
}

/// Jobs that may wait: a window, and what a closer look has seen at its beginning, at a window
/// and at its end.
const WAITING: usize = 4;

/// The thread.
pub struct Keeper {
    queue: SyncSender<Job>,
    thread: JoinHandle<Result<()>>,
    /// Windows that are on their way.
    pending: Arc<AtomicUsize>,
}

/// Hands over what a closer look has seen.
#[derive(Clone)]
pub struct Looks(SyncSender<Job>);

impl Looks {
    /// Hands it over, if there is room: what is next has all of it.
    pub fn tell(&self, seen: SeenCloser) {
        // Without a thread windows cannot be handed over either, which says so.
        let _ = self.0.try_send(Job::Look(Box::new(seen)));
    }

    /// Hands over the last there is, and waits for room.
    pub fn tell_end(&self, seen: SeenCloser) {
        let _ = self.0.send(Job::Look(Box::new(seen)));
    }
}

impl Keeper {
    /// Starts it. What it finds is told to `status` and kept in `store`; what runs before have
    /// seen closer is told from the first answer on.
    pub fn start(status: Arc<Status>, store: Arc<Store>) -> Self {
        let looks = looks_before(&store).unwrap_or_else(|error| {
            eprintln!("unfreed: warning: closer looks of before cannot be read: {error:#}");
            BTreeMap::new()
        });
        status.put(Host {
            looks,
            ..Host::default()
        });
        let (queue, jobs) = sync_channel(WAITING);
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
            .send(Job::Window(Box::new(closed)))
            .map_err(|_| anyhow!("the thread that keeps windows has ended"))
    }

    /// For closer looks. They have to be over before [`Self::end`].
    pub fn looks(&self) -> Looks {
        Looks(self.queue.clone())
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

fn work(jobs: &Receiver<Job>, status: &Status, store: &Store, pending: &AtomicUsize) -> Result<()> {
    Phase::Reporting
        .enter()
        .context("cannot give up capabilities")?;
    let mut names = Names::new()?;
    let mut counts = Counts::default();
    for job in jobs {
        match job {
            Job::Window(closed) => {
                keep_window(*closed, &mut names, &mut counts, status, store)?;
                pending.fetch_sub(1, Ordering::AcqRel);
            }
            Job::Look(seen) => keep_look(*seen, &mut names, status, store)?,
        }
    }
    Ok(())
}

/// How many windows were kept, and how many could not be.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    kept: u64,
    lost: u64,
}

fn keep_window(
    closed: Closed,
    names: &mut Names,
    counts: &mut Counts,
    status: &Status,
    store: &Store,
) -> Result<()> {
    let (size, age) = closed.retention;
    let ended = closed.ended;
    let mut host = names.host(closed)?;
    let kept = kept(&host).and_then(|kept| store.keep(ended, &kept, size, age));
    match kept {
        Ok(()) => counts.kept += 1,
        Err(error) => {
            counts.lost += 1;
            eprintln!("unfreed: warning: this window is told, and not kept: {error:#}");
        }
    }
    host.tracer.windows_kept += counts.kept;
    host.tracer.windows_lost += counts.lost;
    host.looks.clone_from(&status.now().looks);
    // What is not kept any more is told only of those that run.
    let services = &host.services;
    let runs = |name: &str| services.iter().any(|it| it.summary.name == name);
    host.looks
        .retain(|name, looked| looked.is_since(ended, age) || runs(name));
    status.put(host);
    Ok(())
}

/// Names and judges what a look has seen, tells it, and keeps it.
fn keep_look(seen: SeenCloser, names: &mut Names, status: &Status, store: &Store) -> Result<()> {
    let SeenCloser {
        mut look,
        at,
        snapshot,
        retention: (size, age),
        asker,
    } = seen;
    let mut host = Host::clone(&status.now());
    let before = host.looks.get(&look.service);
    let mut seen = before.and_then(|before| before.seen.clone());
    let has_seen = snapshot.is_some();
    if let Some(snapshot) = snapshot {
        let report = names.closer(snapshot);
        look.enter(&report);
        if let Some(asker) = asker {
            asker.tell(&report);
        }
        seen = Some(Seen::of(&report, look.began, at)?);
    }
    let service = look.service.clone();
    let looked = Looked { look, seen };
    if has_seen && let Err(error) = store.keep_look(&looked, size, age) {
        eprintln!("unfreed: warning: this closer look is told, and not kept: {error:#}");
    }
    host.looks.insert(service, Arc::new(looked));
    status.put(host);
    Ok(())
}

/// What was seen closer by runs before.
fn looks_before(store: &Store) -> Result<BTreeMap<String, Arc<Looked>>> {
    let looks = store.last_looks()?.into_iter();
    Ok(looks
        .map(|looked| (looked.look.service.clone(), Arc::new(looked)))
        .collect())
}

/// What is needed to name and judge windows.
struct Names {
    symbolizer: Symbolizer,
    rules: Rules,
    /// When the run began that the rest is of, milliseconds since 1970.
    run: u64,
    /// What there was of each service at the end of its last window.
    windows: HashMap<String, Windows>,
    /// When the last window ended, seconds since the run's start.
    at: f64,
    account: Account,
}

impl Names {
    fn new() -> Result<Self> {
        Ok(Self {
            symbolizer: Symbolizer::default(),
            rules: Rules::new(&[])?,
            run: 0,
            windows: HashMap::new(),
            at: 0.0,
            account: Account::default(),
        })
    }

    fn host(&mut self, mut closed: Closed) -> Result<Host> {
        let mut host = Host {
            ended: closed.ended,
            services: Vec::new(),
            looks: BTreeMap::new(),
            tracer: closed.tracer,
        };
        let mut before = std::mem::take(&mut self.windows);
        if self.run != closed.run {
            before.clear();
            (self.run, self.at) = (closed.run, 0.0);
            self.account.run_ends();
        }
        let mut at = self.at;
        for (name, snapshot) in closed.services {
            let mut windows = before
                .remove(&name)
                .unwrap_or_else(|| Windows::since(self.at));
            let report = self.report(snapshot, &mut windows);
            self.account.note(&report);
            at = report.duration;
            let mut service = Service::of(name.clone(), &report, closed.run, closed.ended)?;
            service.summary.containers = closed.containers.remove(&name).unwrap_or_default();
            host.services.push(Arc::new(service));
            self.windows.insert(name, windows);
        }
        self.at = at;
        self.account.tell(&mut host.tracer);
        if self.symbolizer.parsed() > MAX_PARSED {
            self.symbolizer = Symbolizer::default();
        }
        Ok(host)
    }

    fn closer(&mut self, snapshot: Snapshot) -> Report {
        verdict::concluded(snapshot.report(&mut self.symbolizer, None, &self.rules))
    }

    fn report(&mut self, snapshot: Snapshot, windows: &mut Windows) -> Report {
        let mut report = snapshot.report(&mut self.symbolizer, Some(windows), &self.rules);
        report.count_again();
        verdict::conclude(&mut report);
        advise(&mut report);
        report
    }
}

/// The run goes on by itself: what is left to do is to ask who keeps what was touched. What is in
/// no resident set was not touched.
fn advise(report: &mut Report) {
    const SAYS_ITSELF: [FindingKind; 2] = [FindingKind::Descriptors, FindingKind::FilesInMemory];
    let findings = report.findings.iter_mut();
    for finding in findings.filter(|it| !SAYS_ITSELF.contains(&it.kind)) {
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

/// What is written of a window.
fn kept(host: &Host) -> Result<Vec<Kept>> {
    let services = host.services.iter();
    services
        .map(|service| {
            Ok(Kept {
                service: service.summary.name.clone(),
                summary: serde_json::to_vec(&service.summary)?,
                findings: serde_json::to_vec(&service.findings)?,
                profile: gzip::unpack(&service.profile)?,
            })
        })
        .collect()
}
