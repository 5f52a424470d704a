//! Runs in which the kernel kept something from the tracer.

use std::borrow::Borrow;

use anyhow::{Context, Result};

use crate::report::View;

/// Runs, at most.
const RUNS: u32 = 5;

/// Checks a run's report. On kernels that preempt programs at tracepoints, a busy
/// machine leaves some out, of any process, which the report counts
/// (`tracepoint_missed`). Only such a run may fail, and is made anew.
///
/// # Errors
/// A run fails, the check of a whole one does, or there is no whole one.
pub fn unless_missed<R: Borrow<View>>(
    mut run: impl FnMut() -> Result<R>,
    check: impl Fn(&R) -> Result<()>,
) -> Result<()> {
    let mut last = Ok(());
    for _ in 0..RUNS {
        let report = run()?;
        last = check(&report);
        let mut losses = report.borrow().losses.iter();
        let missed = losses.any(|loss| loss.cause == "tracepoint_missed" && loss.count > 0);
        if last.is_ok() || !missed {
            break;
        }
    }
    last.context("the kernel may have left programs out in each run")
}
