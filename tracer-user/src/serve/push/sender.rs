//! One destination's task: what waits in its queue goes, one after the other, and what does
//! not arrive is tried again, ever less often.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::sleep;

use super::alert::Teller;
use super::client::{Client, Failure};
use super::window::Window;
use super::{otlp, pyroscope};
use crate::serve::config::Protocol;
use crate::serve::status::Host;
use crate::serve::store::Store;
use crate::serve::store::outbox::{Job, Queue, count};

/// The first pause after a failure; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_mins(5);

/// Sends what waits for a destination.
#[derive(Debug)]
pub struct Sender {
    client: Client,
    /// How windows go there.
    protocol: Option<Protocol>,
    queue: Arc<Queue>,
    store: Arc<Store>,
    pause: Pause,
}

impl Sender {
    /// One for a destination; alerts alone go where there is no protocol.
    pub fn new(
        client: Client,
        protocol: Option<Protocol>,
        queue: Arc<Queue>,
        store: Arc<Store>,
    ) -> Self {
        Self {
            client,
            protocol,
            queue,
            store,
            pause: Pause::default(),
        }
    }

    /// Sends until nobody makes anything new, or `over` is closed: not in the middle of an entry.
    pub async fn run(
        mut self,
        mut news: watch::Receiver<Arc<Host>>,
        teller: Option<Teller>,
        mut over: watch::Receiver<()>,
    ) {
        loop {
            self.tell(&mut news, teller.as_ref());
            let goes_on = match self.step().await {
                Next::Now => over.has_changed().is_ok(),
                Next::News => tokio::select! {
                    changed = news.changed() => {
                        // It is told at once.
                        news.mark_changed();
                        changed.is_ok()
                    }
                    _ = over.changed() => false,
                },
                Next::After(pause) => tokio::select! {
                    () = sleep(pause) => true,
                    _ = over.changed() => false,
                },
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Enters alerts of the last window, if it is new.
    fn tell(&self, news: &mut watch::Receiver<Arc<Host>>, teller: Option<&Teller>) {
        let (Some(teller), true) = (teller, news.has_changed().unwrap_or(false)) else {
            news.mark_unchanged();
            return;
        };
        let host = Arc::clone(&news.borrow_and_update());
        if let Err(error) = teller.tell(&host) {
            eprintln!("unfreed: warning: findings cannot be told: {error:#}");
        }
    }

    /// Sends the oldest entry, if there is one.
    async fn step(&mut self) -> Next {
        self.try_step().await.unwrap_or_else(|error| {
            let text = format!("its queue cannot be read: {error:#}");
            Next::After(self.pause_after(Failure::Later(text, None)))
        })
    }

    async fn try_step(&mut self) -> Result<Next> {
        let Some((number, job)) = self.store.next_job(&self.queue)? else {
            return Ok(Next::News);
        };
        let counts = &self.queue.counts;
        match self.send(job).await {
            Ok(true) => {
                self.store.job_done(&self.queue, number)?;
                count(&counts.sent, 1);
                self.arrived();
            }
            Ok(false) => {
                self.store.job_done(&self.queue, number)?;
                count(&counts.expired, 1);
            }
            Err(Failure::Refused(why)) => {
                self.store.job_done(&self.queue, number)?;
                count(&counts.refused, 1);
                self.warn(&format!("will not have it: {why}"));
            }
            Err(failure) => return Ok(Next::After(self.pause_after(failure))),
        }
        Ok(Next::Now)
    }

    /// Sends an entry; false if what it is of is not kept any more.
    async fn send(&self, job: Job) -> Result<bool, Failure> {
        match (job, self.protocol) {
            (Job::Alert { body }, _) => {
                let body = body.into_bytes();
                self.client.post("", "application/json", body).await?;
            }
            (Job::Window { service, ended }, Some(protocol)) => {
                let window = Window::kept(&self.store, &service, ended);
                let window = window.map_err(|error| Failure::Refused(format!("{error:#}")))?;
                let Some(window) = window else {
                    return Ok(false);
                };
                match protocol {
                    Protocol::OtlpGrpc => otlp::call(&self.client, &window).await?,
                    Protocol::OtlpHttp => otlp::post(&self.client, &window).await?,
                    Protocol::Pyroscope => pyroscope::push(&self.client, &window).await?,
                }
            }
            (Job::Window { .. }, None) => return Ok(false),
        }
        Ok(true)
    }

    /// Counts a failure; how long to wait after it.
    fn pause_after(&mut self, failure: Failure) -> Duration {
        count(&self.queue.counts.failed, 1);
        let (why, least) = match failure {
            Failure::Forbidden(why) => (why, LONGEST),
            Failure::Later(why, after) => (why, after.unwrap_or_default()),
            Failure::Refused(why) => (why, Duration::ZERO),
        };
        if self.pause.is_first() {
            self.warn(&format!("does not take it, and is tried again: {why}"));
        }
        self.pause.next(least)
    }

    fn arrived(&mut self) {
        if !self.pause.is_first() {
            eprintln!("unfreed: {} takes it again", self.queue.name);
            self.pause = Pause::default();
        }
    }

    fn warn(&self, text: &str) {
        eprintln!("unfreed: warning: {} {text}", self.queue.name);
    }
}

/// What a sender does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Looks for the next entry.
    Now,
    /// Waits until there may be one.
    News,
    /// Waits for so long.
    After(Duration),
}

/// How long to wait after failures in a row.
#[derive(Debug, Default)]
struct Pause {
    failures: u32,
}

impl Pause {
    fn is_first(&self) -> bool {
        self.failures == 0
    }

    /// The next pause: so long at least, as far as that is within bounds. A part of it is
    /// chance, so that hosts do not come all at once.
    fn next(&mut self, least: Duration) -> Duration {
        let factor = 1 << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let whole = FIRST.saturating_mul(factor).min(LONGEST);
        whole
            .mul_f64(0.75 + fastrand::f64() / 4.0)
            .max(least.min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let mut pause = Pause::default();
        let first = pause.next(Duration::ZERO);
        assert!((Duration::from_millis(750)..=FIRST).contains(&first));
        let second = pause.next(Duration::ZERO);
        assert!((Duration::from_millis(1500)..=2 * FIRST).contains(&second));
        for _ in 0..100 {
            assert!(pause.next(Duration::ZERO) <= LONGEST);
        }
        let mut pause = Pause::default();
        let asked = Duration::from_secs(20);
        assert_eq!(pause.next(asked), asked);
        assert_eq!(pause.next(Duration::MAX), LONGEST);
    }
}
