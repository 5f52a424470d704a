//! Searches for who holds what leaks, in a closer look of `unfreed serve`. One that fails is said,
//! and the look goes on.

use std::time::Duration;

use anyhow::Result;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::holders::{Search, news_of_search};
use crate::serve::config::Searching;
use crate::serve::keeper::Asker;
use crate::serve::searches::{self, Suspect};
use crate::session::Session;
use crate::session::holders::{Asked, Looks};

/// Those of one look, one at a time.
pub struct Searches {
    begin: Instant,
    /// What the host's budget gives in a second, seconds.
    rate: f64,
    due: searches::Searches,
    /// What was found; nobody tells it if nothing is to be searched for.
    found: Option<UnboundedReceiver<Vec<Suspect>>>,
    current: Option<Search>,
    /// Whether somebody wants one.
    is_wanted: bool,
}

/// What happened.
pub enum Step {
    /// These findings are sure.
    Found(Vec<Suspect>),
    /// The search has something to go on with.
    Seen(Result<Looks>),
}

impl Searches {
    /// For a look that begins, and who tells what is found in it.
    pub fn new(searching: Option<Searching>) -> (Self, Option<Asker>) {
        let (tell, found) = unbounded_channel();
        let searches = Self {
            begin: Instant::now(),
            rate: searching.map_or(0.0, |it| it.rate),
            due: searches::Searches::default(),
            found: searching.map(|_| found),
            current: None,
            is_wanted: false,
        };
        let asker = searching.map(|Searching { confidence, .. }| Asker { confidence, tell });
        (searches, asker)
    }

    /// Waits until something happens. Nothing is lost if nobody waits any longer.
    pub async fn news(&mut self) -> Step {
        if self.current.is_some() {
            return Step::Seen(news_of_search(&mut self.current).await);
        }
        let found = match &mut self.found {
            Some(found) => found.recv().await,
            None => None,
        };
        match found {
            Some(found) => Step::Found(found),
            None => std::future::pending().await,
        }
    }

    /// Somebody wants to know who holds what holds most: one search more, as soon as those before
    /// are paid for.
    pub const fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Begins what is wanted, if it is time. If it cannot be, what it took: nothing.
    pub fn begin_wanted(&mut self, session: &mut Session) -> Option<Duration> {
        let is_due = self.is_wanted && self.found.is_some() && self.current.is_none();
        if !is_due || !self.due.are_paid(self.begin.elapsed()) {
            return None;
        }
        self.is_wanted = false;
        let begun = session
            .poll()
            .and_then(|()| Search::begin(session, Asked::Now(Vec::new())));
        match begun {
            Ok(search) => {
                self.current = Some(search);
                None
            }
            Err(error) => {
                warn(&error);
                Some(Duration::ZERO)
            }
        }
    }

    /// Goes on with that. If a search has ended, what it took of processor time.
    pub fn go_on(&mut self, session: &mut Session, step: Step) -> Option<Duration> {
        let gone_on = match step {
            Step::Found(found) => self.begin(session, &found).map(|()| false),
            Step::Seen(looks) => self.proceed(session, looks),
        };
        let is_over = gone_on.unwrap_or_else(|error| {
            warn(&error);
            true
        });
        let search = self.current.take_if(|_| is_over)?;
        self.due
            .ended(self.begin.elapsed(), search.time(), self.rate);
        Some(search.time())
    }

    fn begin(&mut self, session: &mut Session, found: &[Suspect]) -> Result<()> {
        let sites = self.due.due(self.begin.elapsed(), found);
        if !sites.is_empty() {
            session.poll()?;
            self.current = Some(Search::begin(session, Asked::Now(sites))?);
        }
        Ok(())
    }

    fn proceed(&mut self, session: &mut Session, looks: Result<Looks>) -> Result<bool> {
        match &mut self.current {
            Some(search) => search.go_on(session, looks?),
            None => Ok(true),
        }
    }
}

fn warn(error: &anyhow::Error) {
    eprintln!("unfreed: warning: who holds what leaks is not searched for: {error:#}");
}
