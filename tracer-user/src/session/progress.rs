//! Progress on standard error while tracing; silent when not a terminal.

use std::time::Duration;

use indicatif::{
    HumanBytes, HumanCount, HumanFloatCount, ProgressBar, ProgressDrawTarget, ProgressStyle,
};

use super::Session;

/// A line that is rewritten in place.
pub struct Progress {
    bar: ProgressBar,
    events: u64,
    at: std::time::Instant,
}

impl Progress {
    /// Shows nothing if `quiet`, or if standard error is not a terminal.
    pub fn new(quiet: bool) -> Self {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            events: 0,
            at: std::time::Instant::now(),
        }
    }

    /// Shows the state of the run.
    pub fn update(&mut self, session: &Session) {
        if self.bar.is_hidden() || self.at.elapsed() < Duration::from_millis(500) {
            return;
        }
        let totals = session.totals();
        let events = totals.allocated_count + totals.freed_count;
        let rate = (events - self.events.min(events)) as f64 / self.at.elapsed().as_secs_f64();
        self.events = events;
        self.at = std::time::Instant::now();
        let (sites, lost) = session.sites_and_losses();
        let lost = if lost > 0 {
            format!(", {} lost", HumanCount(lost))
        } else {
            String::new()
        };
        self.bar.set_message(format!(
            "live {} in {} blocks, {sites} call paths, {} events/s{lost}",
            HumanBytes(totals.live_bytes),
            HumanCount(totals.live_count),
            HumanFloatCount(rate.round()),
        ));
        self.bar.tick();
    }

    /// Prints lines above it.
    pub fn say(&self, lines: Vec<String>) {
        for line in lines {
            self.bar.suspend(|| eprintln!("unfreed: {line}"));
        }
    }

    /// Removes the line.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
