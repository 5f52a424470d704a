//! What ends a run: a signal, the time, the target, or who looks at its screen.

use std::sync::Arc;

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::privilege::capability::Phase;

/// The signals that end a run.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// Who else may end the run.
    asked: Arc<Notify>,
}

/// Ends a run from another thread.
pub struct Ender(Arc<Notify>);

impl Ender {
    /// Ends it, as SIGINT does.
    pub fn end(&self) {
        self.0.notify_one();
    }
}

impl Signals {
    /// Catches SIGINT, SIGTERM and SIGHUP from now on.
    ///
    /// # Errors
    /// Fails if a handler cannot be set.
    pub fn catch() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            asked: Arc::default(),
        })
    }

    /// For another thread, which then may end the run.
    pub fn ender(&self) -> Ender {
        Ender(Arc::clone(&self.asked))
    }

    /// Waits for one of them; returns its number.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.hangup.recv() => libc::SIGHUP,
            () = self.asked.notified() => libc::SIGINT,
        }
    }

    /// From now on the second signal ends the program at once: 128 + its
    /// number. The first ended the run, unless something else did; then it
    /// `has_come` not yet, and asks only for what is being done already.
    pub fn leave_on_second(mut self, has_come: bool) {
        std::thread::spawn(move || {
            // It reads nothing and makes nothing: a refusal does no harm.
            let _refused = Phase::Waiting.enter();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            if let Ok(runtime) = runtime {
                if !has_come {
                    runtime.block_on(self.next());
                }
                let number = runtime.block_on(self.next());
                std::process::exit(128 + number);
            }
        });
    }
}
