//! Naming and writing reports, on a thread of its own: files are read for names,
//! and a reader may be slow, while the kernel side must not wait.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};

use crate::asking::{Answer, Asked};
use crate::cli::table::TableArgs;
use crate::grouping::{Asked as Group, Rules};
use crate::model::Report;
use crate::privilege::capability::Phase;
use crate::report::output::{self, Output};
use crate::report::text;
use crate::session::snapshot::Snapshot;
use crate::symbolize::Symbolizer;
use crate::top::feed::Feed;
use crate::verdict::{self, Since};
use crate::window::windows::Windows;

/// Where reports go.
#[derive(Clone)]
pub struct Destination {
    /// What the table shows, if it is printed.
    pub table: Option<TableArgs>,
    /// What is written.
    pub outputs: Arc<Vec<Output>>,
    /// The screen that shows reports while the run goes on, in the place of both.
    pub screen: Option<Arc<Feed>>,
}

impl Destination {
    /// Prints the table, unless standard output is taken, and writes the outputs.
    ///
    /// # Errors
    /// Fails if one cannot be written; the others are written all the same.
    pub fn publish(&self, report: &Report) -> Result<()> {
        if let Some(table) = &self.table
            && !output::takes_stdout(&self.outputs)
        {
            text::print(report, table)?;
        }
        output::write(&self.outputs, report)
    }
}

/// What the thread is to do.
enum Job {
    /// Name and publish what is new, while the run goes on.
    Window(Snapshot),
    /// Name what there is until now, for somebody who has asked.
    Answer(Snapshot, Asked),
    /// Name the whole run, and end.
    Last(Snapshot),
}

/// The thread that names reports, and publishes those of a run that goes on.
pub struct Publisher {
    queue: SyncSender<Job>,
    thread: JoinHandle<Result<Option<Report>>>,
}

impl Publisher {
    /// Starts the thread. Names that `groups` mean become one: it makes rules of them, which
    /// takes a while.
    pub fn start(destination: Destination, groups: Vec<Group>) -> Self {
        // One waits, at most: what it would show is in the next one too.
        let (queue, jobs) = sync_channel(1);
        let thread = std::thread::spawn(move || work(&jobs, &destination, &groups));
        Self { queue, thread }
    }

    /// Hands over what is to be published. Returns false if two others are on
    /// their way: then the next one shows what this one would have. One that
    /// could not be published ends the thread, which [`Self::last`] tells.
    pub fn publish(&self, snapshot: Snapshot) -> bool {
        let sent = self.queue.try_send(Job::Window(snapshot));
        !matches!(sent, Err(TrySendError::Full(_)))
    }

    /// Hands over what somebody has asked for. If others are on their way, who asks has to
    /// wait.
    pub fn answer(&self, snapshot: Snapshot, asked: Asked) -> Option<Asked> {
        match self.queue.try_send(Job::Answer(snapshot, asked)) {
            Err(TrySendError::Full(Job::Answer(_, asked))) => Some(asked),
            _ => None,
        }
    }

    /// Whether a report could not be published.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until all is published, and names the report of the whole run.
    ///
    /// # Errors
    /// Fails if one before could not be published.
    pub fn last(self, snapshot: Snapshot) -> Result<Report> {
        // If nobody takes it, the thread says why.
        let _ = self.queue.send(Job::Last(snapshot));
        let report = self.end()?;
        report.context("the report was not made")
    }

    /// Waits until all is published.
    ///
    /// # Errors
    /// Fails if one could not be published.
    pub fn end(self) -> Result<Option<Report>> {
        drop(self.queue);
        self.thread
            .join()
            .map_err(|_| anyhow!("the thread that makes reports panicked"))?
    }
}

fn work(
    jobs: &Receiver<Job>,
    destination: &Destination,
    groups: &[Group],
) -> Result<Option<Report>> {
    Phase::Reporting
        .enter()
        .context("cannot give up capabilities")?;
    let rules = &Rules::new(groups)?;
    let mut symbolizer = Symbolizer::default();
    let mut windows = Windows::default();
    let mut since = Since::default();
    for job in jobs {
        match job {
            Job::Window(snapshot) => {
                let report = snapshot.report(&mut symbolizer, Some(&mut windows), rules);
                let mut report = verdict::concluded(report);
                since.enter(&mut report);
                match &destination.screen {
                    Some(screen) => screen.put(report),
                    None => destination.publish(&report)?,
                }
            }
            Job::Answer(snapshot, asked) => {
                let report = verdict::concluded(snapshot.report(&mut symbolizer, None, rules));
                asked.answer(Answer::Report(Box::new(report)));
            }
            Job::Last(snapshot) => {
                return Ok(Some(verdict::concluded(snapshot.report(
                    &mut symbolizer,
                    None,
                    rules,
                ))));
            }
        }
    }
    Ok(None)
}
