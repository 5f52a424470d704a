//! Looking for who holds live blocks, while the run goes on.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::holders::Job;
use crate::session::Session;
use crate::session::hold::Holder;
use crate::session::holders::Looks;
use crate::session::stop::Signals;

/// How far two looks are apart: what was on its way has arrived by then.
const BETWEEN: Duration = Duration::from_millis(200);
/// How often events of the kernel are read meanwhile.
const GAP: Duration = Duration::from_millis(20);

/// Looks twice; a signal ends it, and nothing is said of holders then.
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
    let begin = Instant::now();
    let searched = async {
        let jobs = session.holder_jobs(None)?;
        let first = look(session, holder, jobs).await?;
        let end = Instant::now() + BETWEEN;
        while Instant::now() < end {
            follow(session, holder).await?;
        }
        let jobs = session.holder_jobs(Some(first))?;
        look(session, holder, jobs).await
    };
    let looks = tokio::select! {
        looks = searched => Some(looks?),
        _ = signals.next() => None,
    };
    session.note_search(begin.elapsed());
    if let Some(looks) = looks {
        session.keep_holders(looks);
    }
    Ok(())
}

/// Looks at all processes, on a thread of its own.
async fn look(
    session: &mut Session,
    holder: &mut Option<Holder>,
    jobs: Vec<(u64, Job)>,
) -> Result<Looks> {
    let run = move || {
        // One that is gone holds nothing any more.
        let looks = jobs.into_iter();
        looks
            .filter_map(|(image, job)| Some((image, job.run().ok()?)))
            .collect::<Looks>()
    };
    let mut task = tokio::task::spawn_blocking(run);
    loop {
        tokio::select! {
            biased;
            looks = &mut task => return Ok(looks?),
            followed = follow(session, holder) => followed?,
        }
    }
}

/// Follows what happens for a moment.
async fn follow(session: &mut Session, holder: &mut Option<Holder>) -> Result<()> {
    if let Some(holder) = holder {
        tokio::select! {
            () = holder.news() => session.serve(holder)?,
            () = sleep(GAP) => {}
        }
    } else {
        sleep(GAP).await;
    }
    if session
        .budget_due()
        .is_some_and(|due| due <= std::time::Instant::now())
    {
        session.step_budget()?;
    }
    session.poll_code()?;
    session.poll()
}
