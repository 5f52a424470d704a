//! Looking for who holds live blocks, while the run goes on or when it has been counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::holders::Job;
use crate::process::processor_time::Work;
use crate::session::Session;
use crate::session::hold::Holder;
use crate::session::holders::{Asked, BETWEEN, Looks};
use crate::session::stop::Signals;

/// How often events of the kernel are read meanwhile.
const GAP: Duration = Duration::from_millis(20);

/// A search that goes on. Dropping it calls it off.
pub struct Search {
    begin: Instant,
    /// When that was, seconds since the run's start, if the run goes on.
    at: Option<f64>,
    stage: Stage,
    /// Processor time that looks took.
    time: Duration,
    is_off: Arc<AtomicBool>,
}

enum Stage {
    First(Looking),
    /// Until then nothing is done.
    Between(Instant, Looks),
    Second(Looking),
}

/// A look that goes on, and the processor time that it took.
type Looking = JoinHandle<(Looks, Duration)>;

impl Search {
    /// Begins to look, on a thread of its own.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn begin(session: &mut Session, asked: Asked) -> Result<Self> {
        let at = matches!(asked, Asked::Now(_)).then(|| session.elapsed());
        let is_off = Arc::default();
        let jobs = session.holder_jobs(asked, &is_off)?;
        Ok(Self {
            begin: Instant::now(),
            at,
            stage: Stage::First(look(jobs)),
            time: Duration::ZERO,
            is_off,
        })
    }

    /// Waits until there is something to do: what was seen until then. Nothing is lost if
    /// nobody waits any longer.
    ///
    /// # Errors
    /// The thread panicked.
    pub async fn news(&mut self) -> Result<Looks> {
        match &mut self.stage {
            Stage::First(task) | Stage::Second(task) => {
                let (looks, time) = task.await?;
                self.time += time;
                Ok(looks)
            }
            Stage::Between(end, looks) => {
                sleep_until(*end).await;
                Ok(std::mem::take(looks))
            }
        }
    }

    /// Processor time that was used until now, of looks that have ended.
    pub const fn time(&self) -> Duration {
        self.time
    }

    /// Goes on with what [`Self::news`] said. Returns whether it is done, and what was found is
    /// with the session.
    ///
    /// # Errors
    /// Fails if the kernel does.
    pub fn go_on(&mut self, session: &mut Session, looks: Looks) -> Result<bool> {
        self.stage = match self.stage {
            Stage::First(_) => Stage::Between(Instant::now() + BETWEEN, looks),
            Stage::Between(..) => {
                let jobs = session.second_holder_jobs(looks, &self.is_off)?;
                Stage::Second(look(jobs))
            }
            Stage::Second(_) => {
                session.note_search(self.at, self.begin.elapsed());
                session.keep_holders(looks);
                return Ok(true);
            }
        };
        Ok(false)
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.is_off.store(true, Ordering::Relaxed);
    }
}

/// Looks twice when the run has been counted; a signal ends it, and nothing is said of holders
/// then.
///
/// # Errors
/// Fails if the kernel does.
pub async fn search(
    session: &mut Session,
    holder: &mut Option<Holder>,
    signals: &mut Signals,
) -> Result<()> {
    // Memory that is gone holds nothing.
    if session.is_over() {
        return Ok(());
    }
    session.end_counting()?;
    let mut search = Search::begin(session, Asked::AtTheEnd)?;
    let mut beat = interval(GAP);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = signals.next() => {
                session.note_search(None, search.begin.elapsed());
                return Ok(());
            }
            looks = search.news() => {
                if search.go_on(session, looks?)? {
                    return Ok(());
                }
            }
            _ = beat.tick() => follow(session)?,
            () = news_of(holder) => {
                if let Some(holder) = holder {
                    session.serve(holder)?;
                }
            }
        }
    }
}

/// Looks at all processes, on a thread of its own.
fn look(jobs: Vec<(u64, Job)>) -> Looking {
    spawn_blocking(move || {
        let work = Work::begin();
        // One that is gone holds nothing any more.
        let looks = jobs.into_iter();
        let looks = looks
            .filter_map(|(image, job)| Some((image, job.run().ok()?)))
            .collect::<Looks>();
        (looks, work.taken())
    })
}

/// Waits for programs that wait.
pub async fn news_of(holder: &mut Option<Holder>) {
    match holder {
        Some(holder) => holder.news().await,
        None => std::future::pending().await,
    }
}

/// Waits for news of a search, if one goes on.
///
/// # Errors
/// See [`Search::news`].
pub async fn news_of_search(search: &mut Option<Search>) -> Result<Looks> {
    match search {
        Some(search) => search.news().await,
        None => std::future::pending().await,
    }
}

/// Follows what happened.
fn follow(session: &mut Session) -> Result<()> {
    if session
        .budget_due()
        .is_some_and(|due| due <= std::time::Instant::now())
    {
        session.step_budget()?;
    }
    session.poll_code()?;
    session.poll()
}
