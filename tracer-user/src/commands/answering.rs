//! Answering who asks a run that goes on who holds what.

use std::sync::Arc;

use anyhow::Result;

use super::publisher::Publisher;
use crate::asking::{Answer, Asked, Listener, Questions};
use crate::session::Session;

/// Questions, one at a time.
pub struct Answering {
    questions: Option<Arc<Questions>>,
    current: Option<Asked>,
    /// Whether who holds what was searched for the current one.
    is_searched: bool,
}

impl Answering {
    /// Those that are asked there.
    pub fn new(listener: Option<&Listener>) -> Self {
        Self {
            questions: listener.map(|it| Arc::clone(&it.questions)),
            current: None,
            is_searched: false,
        }
    }

    /// Waits for a question, once the one before is answered. Nothing is lost if nobody waits any
    /// longer.
    pub async fn next(&self) -> Asked {
        match &self.questions {
            Some(questions) if self.current.is_none() => questions.next().await,
            _ => std::future::pending().await,
        }
    }

    /// The call paths that are to be searched for, if it is about a process that is traced. Else it
    /// is answered.
    pub fn take(&mut self, asked: Asked, traced: &[u32]) -> Option<Vec<u32>> {
        if !traced.contains(&asked.question.pid) {
            asked.answer(Answer::NotTraced);
            return None;
        }
        let sites = asked.question.sites.clone();
        self.current = Some(asked);
        Some(sites)
    }

    /// A search has ended, whoever asked for it.
    pub const fn searched(&mut self) {
        self.is_searched = self.current.is_some();
    }

    /// Answers what was searched for; later, if the thread that names reports has others to do.
    ///
    /// # Errors
    /// The kernel's maps cannot be read.
    pub fn step(&mut self, session: &mut Session, publisher: &Publisher) -> Result<()> {
        let Some(asked) = self.current.take_if(|_| self.is_searched) else {
            return Ok(());
        };
        session.poll()?;
        self.current = publisher.answer(session.snapshot()?, asked);
        self.is_searched = self.current.is_some();
        Ok(())
    }
}
