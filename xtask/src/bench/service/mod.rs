//! Programs with a load, as people run them.

mod java;
mod launch;
mod pairs;
mod postgres;
mod redis;
mod time;
mod web;
mod wrk;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub(super) use self::launch::{Launch, Started};
pub(super) use self::time::{TICKS, descendants, ticks};
use super::target::Target;

/// How long a service may take to begin, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a service did under a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Operations in all, also those before the measured ones.
    pub(super) operations: u64,
    /// Operations a second.
    pub(super) rate: f64,
    /// The time within which 99 % of them were done, seconds, if it is known.
    pub(super) p99: Option<f64>,
}

/// A program that does operations when it is asked to.
pub(super) trait Service: Send {
    /// The process to trace.
    fn pid(&self) -> String;
    /// The process that we started, whose descendants are the tracer, if it was started
    /// under one, and the service.
    fn root(&self) -> String {
        self.pid()
    }
    /// Options for the tracer.
    fn options(&self) -> &[&'static str] {
        &[]
    }
    /// For how long it works before it is measured.
    fn warm_up(&self) -> Duration {
        Duration::from_millis(500)
    }
    /// Puts it under full load, for some such time.
    fn load(&mut self, time: Duration) -> Result<Load>;
    /// Puts it under a load of about `rate` operations a second, for some such time. What
    /// waits for nobody is under full load.
    fn steady_load(&mut self, time: Duration, _rate: f64) -> Result<Load> {
        self.load(time)
    }
    /// Processor time of all of its processes until now, seconds.
    fn processor_time(&self) -> Result<f64> {
        time::family(&self.pid())
    }
}

/// The services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pairs,
    Deep,
    Returns,
    Redis,
    Postgres,
    Java,
    Python,
    Nginx,
    Node,
    /// PostgreSQL with a connection a transaction.
    Reconnecting,
    /// nginx with workers.
    Forked,
}

impl Kind {
    /// Those that are measured.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [
            Self::Pairs,
            Self::Deep,
            Self::Returns,
            Self::Redis,
            Self::Postgres,
            Self::Java,
            Self::Python,
            Self::Nginx,
            Self::Node,
        ]
        .into_iter()
    }

    /// Its name on the command line.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::Deep => "deep",
            Self::Returns => "returns",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Java => "java",
            Self::Python => "python",
            Self::Nginx => "nginx",
            Self::Node => "node",
            Self::Reconnecting => "reconnecting",
            Self::Forked => "forked",
        }
    }

    /// What an operation is.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pairs => "a pair of malloc and free",
            Self::Deep => "the same from 60 calls further down",
            Self::Returns => "the same with results at return instructions",
            Self::Redis => "a redis request (`set`, its own jemalloc)",
            Self::Postgres => "a PostgreSQL transaction (`pgbench -S`)",
            Self::Java => "a request of the Java server above",
            Self::Python => "a request of a python3 server (asyncio, JSON)",
            Self::Nginx => "a small file of nginx",
            Self::Node => "a request of a node server (http, JSON)",
            Self::Reconnecting => "a PostgreSQL transaction with a connection of its own",
            Self::Forked => "a small file of nginx with four workers",
        }
    }

    /// Whether it is a loop that does nothing else, of which less is measured.
    pub(super) const fn is_loop(self) -> bool {
        matches!(self, Self::Pairs | Self::Deep | Self::Returns)
    }

    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// Fails if it does not.
    pub(super) fn start(self, launch: &Launch<'_>) -> Result<Box<dyn Service>> {
        Ok(match self {
            Self::Pairs => Box::new(pairs::Pairs::start(launch, 0, &[])?),
            Self::Deep => Box::new(pairs::Pairs::start(launch, 60, &[])?),
            Self::Returns => {
                let options = &["--returns", "instructions"];
                Box::new(pairs::Pairs::start(launch, 0, options)?)
            }
            Self::Redis => Box::new(redis::Redis::start(launch)?),
            Self::Postgres => Box::new(postgres::Postgres::start(launch)?),
            Self::Java => Box::new(java::Java::start(launch)?),
            Self::Python => Box::new(web::Web::python(launch)?),
            Self::Nginx => Box::new(web::Web::nginx(launch)?),
            Self::Node => Box::new(web::Web::node(launch)?),
            Self::Reconnecting => Box::new(postgres::Postgres::reconnecting(launch)?),
            Self::Forked => Box::new(web::Web::forked(launch)?),
        })
    }
}

/// A folder of a service's own, which goes with it.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// # Errors
    /// Fails if it cannot be made.
    pub(super) fn new(name: &str) -> Result<Self> {
        // Several of a kind may be there at once.
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("unfreed-bench-{name}-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is in the folder of temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits until something is so.
fn wait_until(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !is_so() {
        ensure!(begin.elapsed() < PATIENCE, "it takes too long: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The whole number nearest to a number of operations, at least 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates"
)]
fn whole(number: f64) -> u64 {
    (number.round() as u64).max(1)
}
