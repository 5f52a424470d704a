//! `unfreed serve`: watch services for as long as the host runs.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, interval_at, sleep_until};

use super::looking::{Looking, Scene};
use super::record::{budget_due, news_after, runtime};
use super::said::Said;
use crate::cli::serve::ServeArgs;
use crate::engine::{Options, preflight};
use crate::privilege::capability::{Duties, Phase};
use crate::serve::config::Config;
use crate::serve::discovery::{Discovery, Found};
use crate::serve::http::{self, Answers, Auth, Certificate, Identity};
use crate::serve::keeper::{Closed, Keeper};
use crate::serve::listen::Listen;
use crate::serve::push::{Destinations, Pushing};
use crate::serve::services::Services;
use crate::serve::status::{Status, Tracer};
use crate::serve::store::Store;
use crate::serve::wanted::Wanted;
use crate::session::Session;
use crate::session::target::Target;
use crate::tables::Builder;
use crate::visible::clean;

/// What happened is looked at this often; news of mapped code are not read more often.
const LOOK: Duration = Duration::from_secs(1);

/// The token, in the folder of the state.
const TOKEN: &str = "token";

/// Runs the verb.
///
/// # Errors
/// Says what failed and what mends it.
pub fn run(args: &ServeArgs) -> Result<ExitCode> {
    let config = config_of(args)?;
    let identity = identity(&config)?;
    if args.check {
        Destinations::of(&config, &[])?;
        return Ok(check(&config));
    }
    preflight::check()?;
    let place = config.listen.clone();
    let listener = config.listen.open()?;
    let said = Said { quiet: args.quiet };
    let (store, gap) = Store::open(&config.state, now())?;
    let (size, age) = config.retention();
    said.fit(store.fit(size, age));
    let destinations = Destinations::of(&config, &[])?;
    let certificate = identity.map(|it| Arc::new(Certificate::new(it)));
    let answers = Arc::new(Answers {
        status: Arc::new(Status::default()),
        store: Arc::new(store),
        auth: RwLock::new(auth(&config, &config.state)?),
        is_ready: AtomicBool::new(false),
        wanted: Wanted::default(),
    });
    // Before there are other threads.
    let duties = Duties {
        opens_events: true,
        ..Duties::default()
    };
    Phase::Tracing(duties).start()?;
    said.gap(gap, answers.store.began().saturating_sub(now()));
    let ended = runtime()?.block_on(async {
        let mut watcher = Watcher::start(config, Arc::clone(&answers), said)?;
        watcher.certificate.clone_from(&certificate);
        watcher.pushing.change(destinations)?;
        if let Some(listener) = listener {
            let place = listener.place(certificate.is_some());
            said.remark(&format!("listening at {place}"));
            http::start(listener, certificate, Arc::clone(&answers))?;
        }
        watcher.watch(args).await
    });
    if let Listen::Unix(path) = place {
        // It is gone if somebody took it away.
        let _ = std::fs::remove_file(path);
    }
    ended?;
    let noted = answers.store.stop(now());
    noted.context("cannot note that this run has ended as it should")?;
    Ok(ExitCode::SUCCESS)
}

fn config_of(args: &ServeArgs) -> Result<Config> {
    Config::new(args.config.as_deref(), args.flags())
}

/// Who we are to those who ask with TLS.
fn identity(config: &Config) -> Result<Option<Identity>> {
    let files = config.tls();
    files
        .map(|(certificate, key)| Identity::read(certificate, key))
        .transpose()
}

/// Who may ask. Without a token of the user's it is the one in the folder of the state.
fn auth(config: &Config, state: &Path) -> Result<Auth> {
    let own = state.join(TOKEN);
    let token = match &config.token_file {
        Some(file) => http::token(file, false)?,
        None => http::token(&own, true)?,
    };
    let mut users = config.users.clone();
    users.extend([0, rustix::process::geteuid().as_raw()]);
    Ok(Auth { token, users })
}

/// What watches, with nothing to watch yet.
fn session(config: &Config) -> Result<Session> {
    let options = Options::service(config.budget())?;
    let mut session = Session::load(options, Builder::start()?)?;
    session.start()?;
    Ok(session)
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Says what would be watched.
fn check(config: &Config) -> ExitCode {
    let found = Discovery::default().scan(&config.rules);
    print!("{}", config.describe());
    for rule in &config.rules {
        println!("service {}", clean(&rule.to_string()));
    }
    for found in &found {
        println!(
            "would watch process {} as {}",
            found.pid,
            clean(&found.service)
        );
    }
    if found.is_empty() {
        println!("no process that runs now is one of these services");
    }
    ExitCode::SUCCESS
}

/// A configuration, and what is in the files that it names.
struct Read {
    config: Config,
    identity: Option<Identity>,
    auth: Auth,
    destinations: Destinations,
}

/// The service at work.
struct Watcher {
    session: Session,
    config: Config,
    discovery: Discovery,
    services: Services,
    keeper: Keeper,
    looking: Looking,
    answers: Arc<Answers>,
    /// That of who answers with TLS.
    certificate: Option<Arc<Certificate>>,
    pushing: Pushing,
    said: Said,
    /// When the run began, milliseconds since 1970.
    run: u64,
    reloads: (u64, u64),
    /// Windows that were not closed, since the one before was not kept yet.
    postponed: u64,
}

impl Watcher {
    fn start(config: Config, answers: Arc<Answers>, said: Said) -> Result<Self> {
        let session = session(&config)?;
        let run = now().max(answers.store.began());
        let (status, store) = (Arc::clone(&answers.status), Arc::clone(&answers.store));
        let pushing = Pushing::new(Arc::clone(&status), Arc::clone(&store));
        let keeper = Keeper::start(status, store);
        Ok(Self {
            session,
            config,
            discovery: Discovery::default(),
            services: Services::default(),
            keeper,
            looking: Looking::default(),
            answers,
            certificate: None,
            pushing,
            said,
            run,
            reloads: (0, 0),
            postponed: 0,
        })
    }

    /// Watches until a signal ends it.
    async fn watch(mut self, args: &ServeArgs) -> Result<()> {
        let mut ends = Ends::catch()?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut news = self.news()?;
        let mut begin = Instant::now();
        let mut next_look = begin;
        let mut look = calm(interval(LOOK));
        let mut scan = calm(interval(self.config.scan()));
        let mut window = self.windows();
        self.scan()?;
        self.announce();
        loop {
            tokio::select! {
                biased;
                () = ends.next() => break,
                _ = hangup.recv() => {
                    if self.reload(args) {
                        scan = calm(interval(self.config.scan()));
                        window = self.windows();
                    }
                }
                () = sleep_until(budget_due(&self.session, begin)), if self.session.budget_due().is_some() => {
                    self.session.step_budget()?;
                }
                _ = window.tick() => {
                    let is_closed = self.close_window()?;
                    if is_closed && self.session.is_worn() && self.begin_anew()? {
                        (news, begin) = (self.news()?, Instant::now());
                    }
                }
                _ = scan.tick() => self.scan()?,
                ready = news_after(&news, next_look) => {
                    ready?.clear_ready();
                    self.session.poll_code()?;
                    next_look = Instant::now() + LOOK;
                }
                _ = look.tick() => self.look()?,
            }
        }
        self.end()
    }

    /// What is readable when code was mapped.
    fn news(&self) -> Result<AsyncFd<OwnedFd>> {
        let news = self.session.news()?;
        // SAFETY: an `OwnedFd` has one descriptor, open as long as it lives.
        Ok(unsafe { AsyncFd::register_with_interest(news, Interest::READABLE)? })
    }

    /// Ends the run and begins another one, as if the service had been started anew: files that
    /// nobody maps any more have taken the room of those to come. Whether that could be noted.
    fn begin_anew(&mut self) -> Result<bool> {
        match self.answers.store.begin_anew(now()) {
            Ok(run) => self.run = run,
            Err(error) => {
                eprintln!("unfreed: warning: no new run can be begun: {error:#}");
                return Ok(false);
            }
        }
        self.session.detach()?;
        let mut next = session(&self.config)?;
        next.go_on_from(&self.session);
        self.session = next;
        self.services = Services::default();
        self.said
            .remark("a new run begins: most of the files that were met are not mapped any more");
        self.scan()?;
        Ok(true)
    }

    fn windows(&self) -> Interval {
        let window = self.config.window();
        calm(interval_at(Instant::now() + window, window))
    }

    /// Says that tracing has begun. Scripts wait for this line.
    fn announce(&self) {
        self.answers.is_ready.store(true, Ordering::Release);
        if self.said.quiet {
            return;
        }
        let footprint = self.session.footprint();
        eprintln!(
            "tracing {} processes of {} services' rules; kernel memory {}, at most {}",
            self.session.watched(),
            self.config.rules.len(),
            indicatif::HumanBytes(footprint.fixed),
            indicatif::HumanBytes(footprint.bound),
        );
    }

    fn say_notices(&mut self) {
        for notice in self.session.take_notices(self.said.quiet) {
            eprintln!("unfreed: {notice}");
        }
    }

    fn look(&mut self) -> Result<()> {
        self.session.poll()?;
        self.say_notices();
        self.look_closer()
    }

    /// Has one service looked at closer, if one is due, and charges the budget with that.
    fn look_closer(&mut self) -> Result<()> {
        self.session.charge(self.looking.new_cost());
        let host = self.answers.status.now();
        let scene = Scene {
            now: self.run_time(),
            host: &host,
            services: &self.services,
            config: &self.config,
            quiet: self.said.quiet,
        };
        self.looking.step(&scene, || self.keeper.looks())?;
        for service in self.answers.wanted.take() {
            self.looking.search(&service);
        }
        Ok(())
    }

    /// Ends the closer look that goes on.
    fn end_look(&mut self) {
        self.looking.end(self.run_time(), self.config.budget());
    }

    /// Looks for services' processes, and watches those that are there.
    fn scan(&mut self) -> Result<()> {
        self.session.poll()?;
        let found = self.discovery.scan(&self.config.rules);
        let changes = self.services.compare(&found);
        for pid in changes.end {
            self.session.let_target_go(pid)?;
            self.services.end(pid);
        }
        for found in changes.begin {
            self.begin(found)?;
        }
        self.say_notices();
        Ok(())
    }

    fn begin(&mut self, found: Found) -> Result<()> {
        let since = self.session.elapsed();
        let is_watched = match Target::find(found.pid) {
            Ok(target) => self.session.watch_target(target)?,
            Err(error) => {
                self.said.remark(&clean(&format!("{error:#}")));
                false
            }
        };
        if !is_watched {
            self.services.refuse(&found);
            return Ok(());
        }
        let (pid, service) = (found.pid, clean(&found.service).into_owned());
        self.said
            .remark(&format!("watching process {pid} as {service}"));
        self.services.begin(found, since);
        Ok(())
    }

    /// Closes the window, and hands it over to be named and kept, unless the one before is not
    /// kept yet. Whether it did.
    fn close_window(&mut self) -> Result<bool> {
        if self.keeper.is_busy() {
            self.postponed += 1;
            self.said
                .remark("this window is longer: the one before is not kept yet");
            return Ok(false);
        }
        self.session.poll()?;
        let snapshot = self.session.snapshot_of_window()?;
        let ended = self.run_time();
        let (names, shares): (Vec<_>, Vec<_>) = self
            .services
            .shares(snapshot.processes())
            .into_iter()
            .unzip();
        let parts = snapshot.split(&shares);
        self.session.release_ended()?;
        let containers = self.services.containers();
        self.services.forget_ended();
        self.looking.window_ended(ended);
        self.keeper.keep(Closed {
            run: self.run,
            ended,
            services: names.into_iter().zip(parts).collect(),
            containers,
            tracer: self.tracer(),
            retention: self.config.retention(),
        })?;
        Ok(true)
    }

    /// Milliseconds since 1970, by a clock that is never set back while the tracer runs.
    fn run_time(&self) -> u64 {
        let elapsed = Duration::from_secs_f64(self.session.elapsed().max(0.0));
        self.run + u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn tracer(&self) -> Tracer {
        let footprint = self.session.footprint();
        Tracer {
            watched: self.session.watched() as u64,
            left_out: self.services.left_out() as u64,
            reloads: self.reloads.0,
            refused_reloads: self.reloads.1,
            windows_postponed: self.postponed,
            looks: self.looking.begun,
            kernel_bytes: footprint.fixed,
            kernel_bytes_at_most: footprint.bound,
            ..Tracer::default()
        }
    }

    /// The configuration, with the files that it names.
    fn read(&self, args: &ServeArgs) -> Result<Read> {
        let config = config_of(args)?;
        Ok(Read {
            identity: identity(&config)?,
            auth: auth(&config, &self.config.state)?,
            destinations: Destinations::of(&config, &self.answers.store.queues())?,
            config,
        })
    }

    /// Reads the configuration again. One that is wrong is refused.
    fn reload(&mut self, args: &ServeArgs) -> bool {
        let read = match self.read(args) {
            Ok(read) => read,
            Err(error) => {
                self.reloads.1 += 1;
                eprintln!(
                    "unfreed: warning: the configuration is refused, and the old one stays: {error:#}"
                );
                return false;
            }
        };
        let fixed = self.config.fixed_changes(&read.config);
        if !fixed.is_empty() {
            eprintln!(
                "unfreed: warning: {} changed, which takes effect when the service is started anew",
                fixed.join(", ")
            );
        }
        if let (Some(certificate), Some(identity)) = (&self.certificate, read.identity) {
            certificate.replace(identity);
        }
        self.answers.let_in(read.auth);
        if let Err(error) = self.pushing.change(read.destinations) {
            eprintln!("unfreed: warning: destinations are not changed: {error:#}");
        }
        self.config = read.config;
        self.discovery.forget_decisions();
        self.reloads.0 += 1;
        self.said.remark("the configuration was read again");
        true
    }

    /// The last window is kept, and the probes go.
    fn end(mut self) -> Result<()> {
        self.end_look();
        if !self.keeper.is_busy() {
            self.close_window()?;
        }
        self.session.detach()?;
        drop(self.session);
        self.keeper.end().context("windows are not kept any more")
    }
}

/// One that does not make up for what it missed.
fn calm(mut interval: Interval) -> Interval {
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The signals that end it.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    fn catch() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
