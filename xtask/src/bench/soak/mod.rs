//! A soak: `unfreed serve` beside services at work and processes that come and go, for an
//! hour; and whether it keeps what it promises.

mod ask;
mod host;
mod judge;
mod sample;
mod sink;
mod watcher;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use self::host::Host;
use self::judge::{Facts, checks, table};
use self::sample::{Sample, threads};
use self::sink::Sink;
use self::watcher::Watcher;
use crate::build::{self, Profile};
use crate::setup::{self, Group};
use crate::shell;
use crate::targets;

/// Samples are taken this often.
const EACH: Duration = Duration::from_secs(2);

/// How a soak goes.
#[derive(Debug, Clone, Copy)]
struct Course {
    /// How long it is.
    time: Duration,
    /// Processes of visitors that are there at once.
    visitors: usize,
    /// How long each stays.
    stay: Duration,
    /// How long a window of `serve` is.
    window: Duration,
    /// And a closer look.
    look: Duration,
}

impl Course {
    /// One of so many minutes. Visitors stay for half a minute, and a window is one of a minute
    /// as by default, if there is time for five of them.
    fn of(minutes: u32) -> Self {
        let time = Duration::from_secs(60) * minutes;
        let window = (time / 5).clamp(Duration::from_secs(12), Duration::from_secs(60));
        Self {
            time,
            visitors: 100,
            stay: (time / 6).clamp(Duration::from_secs(10), Duration::from_secs(30)),
            window,
            look: (time / 10).clamp(Duration::from_secs(10), Duration::from_secs(60)),
        }
    }
}

/// Soaks for so many minutes, prints a table of what was promised and what was kept.
///
/// # Errors
/// Fails if something cannot be started, or a promise was not kept.
pub(crate) fn run(minutes: u32) -> Result<()> {
    ensure!(minutes > 0, "a soak takes a minute at least");
    setup::ensure(&[Group::Test, Group::Bench])?;
    let unfreed = build::unfreed(Profile::Release)?;
    let visitor = targets::build_one("c/visitor.c")?;
    let facts = soak(&unfreed, &visitor, Course::of(minutes))?;
    let checks = checks(&facts);
    println!("{}", table(&facts, &checks));
    let broken: Vec<&str> = checks
        .iter()
        .filter(|it| !it.is_kept)
        .map(|it| it.what)
        .collect();
    ensure!(broken.is_empty(), "not kept: {}", broken.join("; "));
    Ok(())
}

fn soak(unfreed: &Path, visitor: &Path, course: Course) -> Result<Facts> {
    let host = Host::start(visitor, course)?;
    let sink = Sink::start()?;
    let watcher = Watcher::start(unfreed, course, &sink.url())?;
    let begin = Instant::now();
    let mut samples = Vec::new();
    let mut said = Instant::now();
    while begin.elapsed() < course.time {
        std::thread::sleep(EACH);
        samples.push(Sample::take(&watcher, host.alive())?);
        if said.elapsed() > Duration::from_secs(60) {
            said = Instant::now();
            let minutes = begin.elapsed().as_secs() / 60;
            let all = course.time.as_secs() / 60;
            shell::say(format!("soak: {minutes} of {all} min"));
        }
    }
    let wall = begin.elapsed();
    let before = watcher.services()?;
    let (threads, pushed) = (threads(watcher.pid())?, sink.taken());
    let outcome = host.end()?;
    let left = watcher.watched_after_all_have_ended(&outcome.pids)?;
    let remarks = watcher.remarks();
    let remaining = watcher.end()?;
    Ok(Facts {
        wall,
        window: course.window,
        samples,
        services: before,
        threads,
        pushed,
        outcome,
        left,
        remaining,
        remarks,
    })
}
