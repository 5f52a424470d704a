//! `unfreed record`: trace live processes by pid.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, sleep_until};

use super::answering::Answering;
use super::holders::{self, Search, news_of, news_of_search};
use super::publisher::{Destination, Publisher};
use crate::asking::Listener;
use crate::cli::args::{OutputArgs, RecordArgs, TraceArgs};
use crate::engine::{Options, preflight};
use crate::explain;
use crate::jvm::flight::Flight;
use crate::kernel::program::Programs;
use crate::model::{Report, RowNumber, Untraced};
use crate::privilege::capability::{Duties, Phase};
use crate::process::clock::monotonic_ns;
use crate::process::code::CodeSpace;
use crate::process::file::ModuleFiles;
use crate::report::gate;
use crate::report::output::{self, Output};
use crate::report::text::{self, Layout};
use crate::session::Session;
use crate::session::attach::NothingToProbe;
use crate::session::giving_up::all_reasons;
use crate::session::hold::Holder;
use crate::session::holders::Asked;
use crate::session::progress::Progress;
use crate::session::stop::Signals;
use crate::session::target::Target;
use crate::tables::Builder;
use crate::top::feed::Feed;

/// The kernel is not asked more often what happened.
const SHORTEST_POLL: Duration = Duration::from_millis(1);
/// The same if what tracing costs is bounded.
const POLL_WITHIN_BUDGET: Duration = Duration::from_secs(1);

/// How long a program may take to give back its memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// News of mapped code, of any process, are read at most this often.
const GAP: Duration = Duration::from_millis(1);
/// The same while nothing is followed, within a budget.
const GAP_AT_REST: Duration = Duration::from_secs(1);

/// Said when reports are written slower than they are asked for.
const BEHIND: &str = "the report of this interval is left out: those before it are not written yet; the next one has all that is new since";

/// Said on a screen when what was asked for is known.
const SEARCHED: &str = "searched: the details (Enter) say who holds it";

/// Runs the verb.
///
/// # Errors
/// Says what failed and what mends it.
pub fn run(mut args: RecordArgs) -> Result<ExitCode> {
    let outputs = output::resolve(&args.output.outputs, args.output.format)?;
    output::check(&outputs)?;
    let mut pids = args.pids.clone();
    pids.sort_unstable();
    pids.dedup();
    // What cannot be is said before anything is done.
    Options::new(&args.trace)?;
    preflight::check()?;
    // Before there are other threads.
    let duties = Duties {
        ends_program: false,
        asks_jvms: args.java.java_heap || args.trace.jvm_attach,
        opens_events: true,
    };
    Phase::Tracing(duties).start()?;
    let (targets, untraced) = find_targets(pids)?;
    runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        let allowed = args.trace.allowance();
        // Somebody may ask for them while it goes on.
        let search = |options: &mut Options| options.holders = Some(allowed);
        // Before anything is counted: a JVM takes memory for that.
        let mut flights = flights(&targets, &args);
        while !flights.iter_mut().all(Flight::has_begun) {
            tokio::select! {
                number = signals.next() => return Ok(signalled(number)),
                () = sleep(GAP) => {}
            }
        }
        let mut session = attached(targets, untraced, &mut args.trace, search)?;
        if args.trace.holders {
            session.search_java_holders();
        }
        if args.java.java_heap {
            session.ask_flights(flights);
            session.watch_java_heaps(args.java.live, args.trace.duration);
            while !session.java_heaps_have_begun() {
                tokio::select! {
                    number = signals.next() => return Ok(signalled(number)),
                    () = sleep(GAP) => {}
                }
            }
        }
        session.start()?;
        Phase::Tracing(Duties {
            opens_events: session.may_open_events(),
            ..duties
        })
        .start()?;
        // Who hears that it traces may ask at once.
        let listener = listener(&args.trace);
        announce(&mut session, &args.trace);
        let plan = Plan {
            trace: &args.trace,
            output: &args.output,
            outputs: Arc::new(outputs),
            screen: None,
            listener,
            check_lost: false,
        };
        let (end, publisher) = trace(&mut session, &mut None, &plan, &mut signals).await?;
        signals.leave_on_second(matches!(end, End::Signal(_)));
        finish(session, publisher, &plan)
    })
}

/// The JVMs' own recordings, if they are to be asked who holds what.
fn flights(targets: &[Target], args: &RecordArgs) -> Vec<Flight> {
    let asked = targets.iter().filter(|_| args.java.jfr);
    asked
        .map(|target| Flight::start(target.pid, args.trace.duration))
        .collect()
}

/// Where others may ask who holds what, if the run follows allocations. Where it cannot listen, as
/// without root, nobody asks.
pub fn listener(trace: &TraceArgs) -> Option<Listener> {
    if trace.growth || trace.programs != Programs::Counting {
        return None;
    }
    match Listener::start() {
        Ok(listener) => Some(listener),
        Err(error) => {
            if trace.verbose > 0 {
                eprintln!("unfreed: nobody can ask who holds what while it goes on: {error:#}");
            }
            None
        }
    }
}

/// The processes that can be traced, as far as can be seen from outside, and
/// the others with their reasons.
///
/// # Errors
/// Fails if there is none.
pub fn find_targets(pids: Vec<u32>) -> Result<(Vec<Target>, Vec<Untraced>)> {
    let (mut targets, mut untraced) = (Vec::new(), Vec::new());
    for pid in pids {
        match Target::find(pid) {
            Ok(target) => targets.push(target),
            Err(error) => untraced.push(Untraced::never(pid, &error)),
        }
    }
    if targets.is_empty() {
        bail!("{}", all_reasons(&untraced));
    }
    Ok((targets, untraced))
}

/// A session that traces these processes. Where none has an allocator that can be probed, it follows
/// their page faults, and the arguments say so from then on. `adapt` has a say in the options.
///
/// # Errors
/// Fails if none can be traced, and says why of each.
pub fn attached(
    targets: Vec<Target>,
    untraced: Vec<Untraced>,
    trace: &mut TraceArgs,
    adapt: impl Fn(&mut Options),
) -> Result<Session> {
    let attach = |targets: Vec<Target>, untraced: Vec<Untraced>, trace: &TraceArgs| {
        let mut options = Options::new(trace)?;
        adapt(&mut options);
        let mut session = Session::load(options, tables_of(&targets)?)?;
        session.note_untraced(untraced);
        session.attach_all(targets)?;
        anyhow::Ok(session)
    };
    let pids = targets.iter().map(|target| target.pid).collect();
    let error = match attach(targets, untraced, trace) {
        Err(error) if trace.may_follow_pages() => error.downcast::<NothingToProbe>()?,
        attached => return attached,
    };
    eprintln!("unfreed: {error}");
    eprintln!("unfreed: so page faults are followed in its place, as with --growth");
    (trace.growth, trace.growth_instead) = (true, true);
    let (targets, untraced) = find_targets(pids)?;
    let mut session = attach(targets, untraced, trace)?;
    session.note_pages_instead(error.left_alone);
    Ok(session)
}

/// The exit code when a signal ends it before there is anything to report.
pub fn signalled(number: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX))
}

/// Begins to build the unwind tables of live processes. That one is gone
/// shows later.
///
/// # Errors
/// Fails if there are no threads left.
pub fn tables_of(targets: &[Target]) -> Result<Builder> {
    let mut builder = Builder::start()?;
    let mut files = ModuleFiles::new();
    for target in targets {
        if let Ok(code) = CodeSpace::attach(target.pid, monotonic_ns(), &mut files) {
            builder.request(code.current());
        }
    }
    Ok(builder)
}

/// The runtime of a run: one thread is plenty.
///
/// # Errors
/// Fails if the system has no descriptors left.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// What to print and write, when.
pub struct Plan<'a> {
    /// How to trace.
    pub trace: &'a TraceArgs,
    /// What to write.
    pub output: &'a OutputArgs,
    /// The same, resolved.
    pub outputs: Arc<Vec<Output>>,
    /// Where reports are shown while the run goes on; otherwise they are printed and written.
    pub screen: Option<Arc<Feed>>,
    /// Where others ask who holds what, while the run goes on.
    pub listener: Option<Listener>,
    /// Whether it is a failure that blocks are lost.
    pub check_lost: bool,
}

impl Plan<'_> {
    fn destination(&self) -> Destination {
        Destination {
            table: (!self.trace.quiet).then(|| self.output.table.clone()),
            outputs: Arc::clone(&self.outputs),
            screen: self.screen.clone(),
        }
    }
}

/// Says that all probes are in place. Scripts wait for this line.
pub fn announce(session: &mut Session, trace: &TraceArgs) {
    say_notices(session, trace.quiet);
    if trace.quiet {
        return;
    }
    for line in session.describe() {
        eprintln!("tracing {line}");
    }
    for line in session.java_problems() {
        eprintln!("{line}");
    }
    let footprint = session.footprint();
    eprintln!(
        "kernel memory {} and {} a thread (at most {}); {}",
        indicatif::HumanBytes(footprint.fixed),
        indicatif::HumanBytes(footprint.per_thread),
        indicatif::HumanBytes(footprint.bound),
        match trace.duration {
            Some(time) => format!("ends after {}", humantime::format_duration(time)),
            None => "Ctrl-C ends".to_owned(),
        }
    );
    if trace.verbose > 0 {
        eprintln!("attached by {}", session.road());
        if !trace.growth {
            eprintln!("mappings are seen {}", session.system_calls());
        }
        for line in session
            .describe_probes()
            .into_iter()
            .chain(session.describe_tables())
        {
            eprintln!("{line}");
        }
    }
}

/// Says what happened meanwhile.
fn say_notices(session: &mut Session, quiet: bool) {
    for notice in session.take_notices(quiet) {
        eprintln!("unfreed: {notice}");
    }
}

/// Why tracing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The time was over, or the targets ended.
    Done,
    /// A signal came.
    Signal(i32),
}

/// Traces until the time is over, a signal comes or the targets have ended;
/// then takes the probes away. Reports of `--interval` may be on their way yet.
///
/// # Errors
/// Fails if the kernel does, or an output of `--interval` cannot be written.
pub async fn trace(
    session: &mut Session,
    holder: &mut Option<Holder>,
    plan: &Plan<'_>,
    signals: &mut Signals,
) -> Result<(End, Publisher)> {
    let mut progress = Progress::new(plan.trace.quiet);
    let begin = Instant::now();
    let deadline = plan.trace.duration.map(|duration| begin + duration);
    let shortest = match plan.trace.overhead {
        // Each look costs some of the budget.
        Some(_) => POLL_WITHIN_BUDGET,
        None => SHORTEST_POLL,
    };
    let mut poll = interval(plan.trace.poll.max(shortest));
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let period = plan
        .trace
        .interval
        .unwrap_or(Duration::from_secs(u64::from(u32::MAX)));
    let mut periodic = interval_at(begin + period, period);
    // SAFETY: an `OwnedFd` has one descriptor, open as long as it lives.
    let news = unsafe { AsyncFd::register_with_interest(session.news()?, Interest::READABLE)? };
    let mut next_look = begin;
    let publisher = Publisher::start(plan.destination(), plan.output.groups.clone());
    let mut searching: Option<Search> = None;
    let mut answering = Answering::new(plan.listener.as_ref());
    let end = loop {
        tokio::select! {
            biased;
            number = signals.next() => break End::Signal(number),
            () = sleep_until(deadline.unwrap_or(begin)), if deadline.is_some() => break End::Done,
            () = sleep_until(budget_due(session, begin)), if session.budget_due().is_some() => {
                session.step_budget()?;
            }
            _ = periodic.tick(), if plan.trace.interval.is_some() => {
                session.poll()?;
                session.mark(false);
                progress.clear();
                if publisher.has_failed() {
                    break End::Done;
                }
                if !publisher.publish(session.snapshot()?) && !plan.trace.quiet {
                    eprintln!("unfreed: {BEHIND}");
                }
            }
            asked = asked_on(plan.screen.as_deref()), if searching.is_none() => {
                searching = Some(Search::begin(session, Asked::Now(asked))?);
            }
            question = answering.next(), if searching.is_none() => {
                if let Some(sites) = answering.take(question, &session.watched_pids()) {
                    searching = Some(Search::begin(session, Asked::Now(sites))?);
                }
            }
            looks = news_of_search(&mut searching) => {
                let looks = looks?;
                if let Some(search) = &mut searching
                    && search.go_on(session, looks)?
                {
                    searching = None;
                    answering.searched();
                    if let Some(screen) = &plan.screen {
                        periodic.reset_immediately();
                        screen.say(SEARCHED.to_owned());
                    }
                    answering.step(session, &publisher)?;
                }
            }
            () = news_of(holder) => {
                if let Some(holder) = holder {
                    session.serve(holder)?;
                }
                if session.has_ended() {
                    break End::Done;
                }
            }
            ready = news_after(&news, next_look) => {
                ready?.clear_ready();
                session.poll_code()?;
                progress.say(session.take_notices(plan.trace.quiet));
                let gap = if session.is_resting() { GAP_AT_REST } else { GAP };
                next_look = Instant::now() + gap;
            }
            _ = poll.tick() => {
                session.poll()?;
                progress.say(session.take_notices(plan.trace.quiet));
                progress.update(session);
                answering.step(session, &publisher)?;
                if session.is_over() {
                    break End::Done;
                }
            }
        }
    };
    drop((searching, answering));
    if plan.trace.holders || plan.check_lost {
        holders::search(session, holder, signals).await?;
    }
    if let Some(holder) = holder {
        session.let_go(holder)?;
    }
    if session.has_ended() {
        wait_until_gone(session).await?;
    }
    session.detach()?;
    progress.clear();
    say_notices(session, plan.trace.quiet);
    Ok((end, publisher))
}

/// A program that waited at its end goes on, and that it ended is seen.
async fn wait_until_gone(session: &mut Session) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !session.is_gone() && Instant::now() < deadline {
        sleep(SHORTEST_POLL).await;
        session.poll_code()?;
        session.poll()?;
    }
    Ok(())
}

/// When the budget is to be looked at.
pub fn budget_due(session: &Session, otherwise: Instant) -> Instant {
    session.budget_due().map_or(otherwise, Instant::from_std)
}

/// Waits until somebody at a screen asks who holds the blocks of some sites.
async fn asked_on(screen: Option<&Feed>) -> Vec<u32> {
    match screen {
        Some(screen) => screen.asked().await,
        None => std::future::pending().await,
    }
}

/// Waits for news, but not before `time`.
///
/// # Errors
/// Only those of the descriptor.
pub async fn news_after(
    news: &AsyncFd<OwnedFd>,
    time: Instant,
) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
    sleep_until(time).await;
    news.readable().await
}

/// Makes the report and writes it everywhere.
///
/// # Errors
/// Fails if an output cannot be written (the others are written all the same),
/// or if all that was left to trace had to be given up.
pub fn finish(mut session: Session, publisher: Publisher, plan: &Plan<'_>) -> Result<ExitCode> {
    if plan.trace.interval.is_some() {
        session.mark(true);
    }
    let snapshot = session.snapshot()?;
    let nothing_left = session.why_nothing_is_left();
    let knows_lost = session.knows_what_is_lost();
    drop(session);
    Phase::Reporting.start()?;
    let report = publisher.last(snapshot)?;
    plan.destination().publish(&report)?;
    if let Some(number) = plan.output.table.explain {
        explain(&report, number, &plan.outputs)?;
    }
    if let Some(reasons) = nothing_left {
        bail!("{reasons}");
    }
    let above = gate::exit_code(
        &report,
        plan.output.fail_above,
        plan.output.fail_growth_above,
    );
    Ok(match plan.check_lost && above == ExitCode::SUCCESS {
        true => gate::lost(&report, knows_lost),
        false => above,
    })
}

/// Explains what has a number, below the table. That nothing has it is no failure of the run.
fn explain(report: &Report, number: RowNumber, outputs: &[Output]) -> Result<()> {
    if output::takes_stdout(outputs) {
        eprintln!("unfreed: --explain {number} is left out: an output takes standard output");
        return Ok(());
    }
    match explain::render(report, number, &Layout::of_stdout()) {
        Ok(said) => text::print_text(&format!("\n{said}")),
        Err(error) => {
            eprintln!("unfreed: {error:#}");
            Ok(())
        }
    }
}
