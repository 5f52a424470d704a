//! Threads that speak with others, and have no rights.

use std::sync::mpsc::sync_channel;

use anyhow::{Context, Result};

use crate::privilege::capability::Phase;

/// Starts a thread that gives up all capabilities, and then works until the program ends.
/// Returns once it has given them up. `over` is what is so if it fails later.
///
/// # Errors
/// There are no threads left, or the kernel refuses to take capabilities.
pub fn start(
    name: &str,
    over: &'static str,
    work: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<()> {
    let (tell, told) = sync_channel(1);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let gave_up = Phase::Parsing.enter();
            let may_go_on = gave_up.is_ok();
            if tell.send(gave_up).is_ok()
                && may_go_on
                && let Err(error) = work()
            {
                eprintln!("unfreed: warning: {over}: {error:#}");
            }
        })
        .with_context(|| format!("cannot start the thread {name:?}"))?;
    told.recv()
        .with_context(|| format!("the thread {name:?} ended"))?
        .context("cannot give up capabilities")
}
