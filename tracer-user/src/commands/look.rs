//! Closer looks of `unfreed serve`: a session of its own on a thread of its own, which follows
//! the allocations of one service for some minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::record::{budget_due, news_after, runtime};
use super::searching::Searches;
use crate::budget::Budget;
use crate::engine::Options;
use crate::privilege::capability::{Duties, Phase};
use crate::process::processor_time::own_thread_time;
use crate::process::vitals::resident;
use crate::serve::config::Searching;
use crate::serve::keeper::{Asker, Looks, SeenCloser};
use crate::serve::look::Look;
use crate::session::Session;
use crate::session::snapshot::Snapshot;
use crate::session::target::Target;
use crate::tables::Builder;
use crate::visible::clean;

/// What happened is looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// Processes that are looked at together, at most: those with most in memory.
const MOST_PROCESSES: usize = 16;

/// What is to be looked at.
pub struct Order {
    /// The look that begins.
    pub look: Look,
    /// When it was ordered: as `look` says, by another clock.
    pub ordered: std::time::Instant,
    /// The service's processes.
    pub pids: Vec<u32>,
    /// What it may cost.
    pub budget: Budget,
    /// How who holds what leaks is searched for, if it is.
    pub searching: Option<Searching>,
    /// Whom to tell.
    pub looks: Looks,
    /// How much is kept, and for how long.
    pub retention: (u64, Duration),
    /// Who is told what was found in it.
    pub asker: Option<Asker>,
    /// No messages but warnings.
    pub quiet: bool,
}

/// What is asked of a look.
enum Request {
    /// To tell what was seen until now: a window ended at this time, milliseconds since 1970.
    Tell(u64),
    /// To search for who holds what holds most.
    Search,
}

/// A look that goes on.
pub struct Looker {
    service: String,
    requests: UnboundedSender<Request>,
    thread: JoinHandle<f64>,
    spent: Arc<AtomicU64>,
    charged: u64,
}

impl Looker {
    /// Begins a look. Nothing waits for it.
    ///
    /// # Errors
    /// There are no threads left.
    pub fn start(order: Order) -> Result<Self> {
        let (requests, received) = unbounded_channel();
        let spent = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&spent);
        let service = order.look.service.clone();
        let thread = std::thread::Builder::new()
            .name("closer".to_owned())
            .spawn(move || work(order, received, &told))
            .context("cannot start the thread of a closer look")?;
        Ok(Self {
            service,
            requests,
            thread,
            spent,
            charged: 0,
        })
    }

    /// A window ended at this time, milliseconds since 1970: what was seen until now is to be
    /// kept with it.
    pub fn window_ended(&self, at: u64) {
        // A look that has ended has told all.
        let _ = self.requests.send(Request::Tell(at));
    }

    /// Somebody wants a service's memory searched, if it is this one's.
    pub fn search(&self, service: &str) {
        if self.service == service {
            let _ = self.requests.send(Request::Search);
        }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// What tracing took of the processes' time since the last call, seconds: an estimate.
    pub fn new_cost(&mut self) -> f64 {
        let (spent, new) = new_seconds(&self.spent, self.charged);
        self.charged = spent;
        new
    }

    /// Ends it, and waits until its probes are gone. What its start and its searches took of
    /// processor time, and what is new of its cost ([`Self::new_cost`]), seconds.
    pub fn end(self) -> (f64, f64) {
        drop(self.requests);
        // What it panicked of is said.
        let own = self.thread.join().unwrap_or_default();
        (own, new_seconds(&self.spent, self.charged).1)
    }
}

/// What was spent, nanoseconds, and what of it is not charged yet, seconds.
fn new_seconds(spent: &AtomicU64, charged: u64) -> (u64, f64) {
    let spent = spent.load(Ordering::Acquire);
    let new = Duration::from_nanos(spent.saturating_sub(charged));
    (spent, new.as_secs_f64())
}

/// Looks until it is told to end. What the start and searches took, seconds.
fn work(mut order: Order, requests: UnboundedReceiver<Request>, spent: &AtomicU64) -> f64 {
    let (searches, asker) = Searches::new(order.searching);
    let ended = begin(&mut order).and_then(|mut session| {
        order.asker = asker;
        let followed = follow(&mut session, &mut order, requests, (searches, spent));
        let followed = runtime()?.block_on(followed);
        finish(session, &mut order, spent).and(followed)
    });
    let cost = &order.look.cost;
    match ended {
        Ok(()) => cost.start_seconds + cost.search_seconds,
        Err(error) => {
            let searched = cost.search_seconds;
            fail(&mut order, &error);
            own_thread_time().as_secs_f64() + searched
        }
    }
}

/// Places the probes.
fn begin(order: &mut Order) -> Result<Session> {
    let pids = largest(&order.pids);
    let options = Options {
        holders: order.searching.map(|it| it.allowed),
        ..Options::closer(order.budget)?
    };
    let mut session = Session::load(options, Builder::start()?)?;
    let targets: Vec<Target> = pids
        .iter()
        .filter_map(|pid| Target::find(*pid).ok())
        .collect();
    let traced = session.attach_all(targets);
    say(&mut session, order);
    traced?;
    session.start()?;
    Phase::Tracing(Duties {
        opens_events: session.may_open_events(),
        ..Duties::default()
    })
    .start()?;
    let look = &mut order.look;
    look.searches = order.searching.map(|_| 0);
    look.began = look.after(order.ordered.elapsed().as_secs_f64());
    look.processes = session.watched_pids();
    look.left_out = order.pids.len().saturating_sub(look.processes.len()) as u64;
    look.cost.start_seconds = own_thread_time().as_secs_f64();
    look.cost.budget = order.budget.to_string();
    look.cost.kernel_bytes = session.footprint().fixed;
    let sentence = format!(
        "looking closer at {}, since {}: {} of its processes, within {}; its start took {:.1} s",
        look.service,
        look.why,
        look.processes.len(),
        order.budget,
        look.cost.start_seconds,
    );
    order.remark(&sentence);
    order.tell(None, order.look.began);
    Ok(session)
}

/// Those that have most in memory.
fn largest(pids: &[u32]) -> Vec<u32> {
    let mut sized: Vec<(u64, u32)> = pids
        .iter()
        .filter_map(|pid| Some((resident(*pid)?, *pid)))
        .collect();
    sized.sort_unstable_by(|one, other| other.cmp(one));
    sized.truncate(MOST_PROCESSES);
    sized.into_iter().map(|(_, pid)| pid).collect()
}

/// Follows allocations until there are no requests any more, or no processes. A search that goes on
/// then is called off.
async fn follow(
    session: &mut Session,
    order: &mut Order,
    mut requests: UnboundedReceiver<Request>,
    (mut searches, spent): (Searches, &AtomicU64),
) -> Result<()> {
    // SAFETY: an `OwnedFd` has one descriptor, open as long as it lives.
    let news = unsafe { AsyncFd::register_with_interest(session.news()?, Interest::READABLE)? };
    let begin = Instant::now();
    let mut next_look = begin;
    let mut poll = interval(LOOK);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            request = requests.recv() => {
                match request {
                    None => return Ok(()),
                    Some(Request::Search) => searches.want(),
                    Some(Request::Tell(at)) => {
                        session.poll()?;
                        order.tell(Some(session), at);
                    }
                }
            }
            () = sleep_until(budget_due(session, begin)), if session.budget_due().is_some() => {
                session.step_budget()?;
            }
            step = searches.news() => {
                if let Some(time) = searches.go_on(session, step) {
                    order.note_search(time);
                    session.poll()?;
                    tell_now(session, order);
                }
            }
            ready = news_after(&news, next_look) => {
                ready?.clear_ready();
                session.poll_code()?;
                next_look = Instant::now() + LOOK;
            }
            _ = poll.tick() => {
                session.poll()?;
                say(session, order);
                note_cost(session, spent);
                if let Some(time) = searches.begin_wanted(session) {
                    order.note_search(time);
                    tell_now(session, order);
                }
                if session.is_over() {
                    return Ok(());
                }
            }
        }
    }
}

/// Tells what was seen until now.
fn tell_now(session: &mut Session, order: &Order) {
    let at = order.look.after(session.elapsed());
    order.tell(Some(session), at);
}

/// Notes what it has cost its processes until now, nanoseconds.
fn note_cost(session: &Session, spent: &AtomicU64) {
    let cost = Duration::from_secs_f64(session.cost_of_targets().max(0.0));
    let nanoseconds = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
    spent.store(nanoseconds, Ordering::Release);
}

/// Takes the probes away, and tells the last there is.
fn finish(mut session: Session, order: &mut Order, spent: &AtomicU64) -> Result<()> {
    session.detach()?;
    note_cost(&session, spent);
    say(&mut session, order);
    let seconds = session.elapsed();
    let ended = order.look.after(seconds);
    order.look.ended = Some(ended);
    let snapshot = session.snapshot()?;
    let (cost, own) = (session.cost_of_targets(), own_thread_time().as_secs_f64());
    drop(session);
    order.remark(&format!(
        "the closer look at {} has ended after {seconds:.0} s: it took {own:.1} s of processor time, and of its processes' {cost:.2} s",
        order.look.service
    ));
    order.looks.tell_end(order.seen(Some(snapshot), ended));
    Ok(())
}

/// It could not look, or not any longer.
fn fail(order: &mut Order, error: &anyhow::Error) {
    let reason = clean(&format!("{error:#}")).into_owned();
    eprintln!(
        "unfreed: warning: no closer look at {}: {reason}",
        order.look.service
    );
    order.look.failure = Some(reason);
    order.look.ended = order.look.ended.or(Some(order.look.began));
    let at = order.look.began;
    order.looks.tell_end(order.seen(None, at));
}

fn say(session: &mut Session, order: &Order) {
    for notice in session.take_notices(order.quiet) {
        eprintln!("unfreed: closer look at {}: {notice}", order.look.service);
    }
}

impl Order {
    fn remark(&self, text: &str) {
        if !self.quiet {
            eprintln!("unfreed: {}", clean(text));
        }
    }

    fn seen(&self, snapshot: Option<Snapshot>, at: u64) -> SeenCloser {
        SeenCloser {
            look: self.look.clone(),
            at,
            snapshot,
            retention: self.retention,
            asker: self.asker.clone(),
        }
    }

    /// A search took so much processor time.
    fn note_search(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.look.cost.search_seconds += seconds;
        self.look.searches = self.look.searches.map(|it| it + 1);
        self.remark(&format!(
            "who holds what leaks at {} was searched for: it took {seconds:.1} s of processor time",
            self.look.service
        ));
    }

    /// Tells what was seen until a moment; without a session that it has begun.
    fn tell(&self, session: Option<&mut Session>, at: u64) {
        let snapshot = session.map(Session::snapshot).transpose();
        match snapshot {
            Ok(snapshot) => self.looks.tell(self.seen(snapshot, at)),
            Err(error) => eprintln!(
                "unfreed: warning: closer look at {}: {error:#}",
                self.look.service
            ),
        }
    }
}
