//! Holding programs of ours by ptrace(2), so that no stack ends in code that
//! nobody has told the kernel side of.
//!
//! A program waits each time it has called `exec`, while its loader maps
//! libraries, and whenever it opens further ones later, until tables of what it
//! has mapped are built and published. Otherwise it runs freely.

mod keeper;
mod ptrace;

use std::os::unix::process::ExitStatusExt;
use std::os::unix::thread::JoinHandleExt;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::sleep;

pub use self::keeper::{Answer, Stop, Told, Why, Wishes};
use self::keeper::{Keeper, Line};
use crate::privilege::capability::Phase;

/// A program waits for its tables so long, at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked whether tables are built that a program waits for.
const PERIOD: Duration = Duration::from_millis(1);

/// The programs that are held. They are let go when this is dropped.
pub struct Holder {
    stops: UnboundedReceiver<Stop>,
    answers: Sender<Answer>,
    is_over: Arc<AtomicBool>,
    status: Arc<OnceLock<i32>>,
    keeper: Option<(JoinHandle<()>, i32)>,
    is_let_go: Arc<AtomicBool>,
    waiting: Vec<Waiting>,
}

/// A thread that waits to be told to go on, until then at most.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// The thread, and why.
    pub stop: Stop,
    /// When it goes on in any case.
    pub until: Instant,
}

impl Holder {
    /// Takes hold of a child of ours that waits to call `exec`. It goes on as before.
    ///
    /// # Errors
    /// Fails where that is not allowed; then nothing is held.
    pub fn take(pid: u32, wishes: Wishes, told: Told) -> Result<Self> {
        let root = i32::try_from(pid)?;
        answer_wake_ups()?;
        let (stop, stops) = unbounded_channel();
        let (answers, answer) = channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let is_let_go = Arc::new(AtomicBool::new(false));
        let status = Arc::new(OnceLock::new());
        let line = Line {
            told,
            stops: stop,
            answers: answer,
            is_over: Arc::clone(&is_over),
            is_let_go: Arc::clone(&is_let_go),
            status: Arc::clone(&status),
        };
        let (begun, begins) = channel();
        let keeper = std::thread::spawn(move || {
            // Only the thread that takes hold may ask for anything later.
            let taken = Phase::Holding
                .enter()
                .and_then(|()| Keeper::take(root, wishes, line));
            match taken {
                Ok(keeper) => {
                    let _ = begun.send(Ok(rustix::thread::gettid().as_raw_pid()));
                    keeper.keep();
                }
                Err(error) => drop(begun.send(Err(error))),
            }
        });
        let thread = begins
            .recv()
            .context("the thread that holds programs panicked")?
            .context("cannot hold the program")?;
        Ok(Self {
            stops,
            answers,
            is_over,
            status,
            keeper: Some((keeper, thread)),
            is_let_go,
            waiting: Vec::new(),
        })
    }

    /// Waits until there is something to look at: a new stop, or one whose
    /// tables may be there by now.
    pub async fn news(&mut self) {
        let until = (!self.waiting.is_empty()).then_some(PERIOD);
        tokio::select! {
            stop = self.stops.recv() => match stop {
                Some(stop) => self.admit(stop),
                None => std::future::pending().await,
            },
            () = sleep(until.unwrap_or_default()), if until.is_some() => {}
        }
        while let Ok(stop) = self.stops.try_recv() {
            self.admit(stop);
        }
    }

    fn admit(&mut self, stop: Stop) {
        let until = Instant::now() + PATIENCE;
        self.waiting.push(Waiting { stop, until });
    }

    /// The threads that wait, to be answered or put back.
    pub fn take_waiting(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting)
    }

    /// A thread has to wait on.
    pub fn put_back(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
    }

    /// Lets a thread go on.
    pub fn answer(&self, answer: Answer) {
        // Without a keeper it went on by itself.
        let _ = self.answers.send(answer);
    }

    /// Lets all go, wherever they are. Nothing interrupts them.
    pub fn let_go(&mut self) {
        self.waiting.clear();
        self.is_over.store(true, Ordering::Release);
        let Some((keeper, thread)) = self.keeper.take() else {
            return;
        };
        // One that comes before it waits is lost.
        while !keeper.is_finished() {
            // SAFETY: a thread that was not joined yet.
            unsafe { libc::pthread_kill(keeper.as_pthread_t(), wake_up()) };
            std::thread::sleep(Duration::from_micros(100));
        }
        let _panicked = keeper.join();
        // The kernel lets them go a moment after it says that the thread ended.
        while Path::new(&format!("/proc/self/task/{thread}")).exists() {
            std::thread::yield_now();
        }
        self.is_let_go.store(true, Ordering::Release);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// A child of ours, which somebody may hold. As long as that is so nobody else
/// may wait for it: the kernel would tell any thread of ours of its stops.
pub struct Program {
    child: Child,
    /// Set by who holds it, once it has waited for it.
    status: Arc<OnceLock<i32>>,
    is_let_go: Arc<AtomicBool>,
}

impl Program {
    /// A child, and who holds it.
    pub fn new(child: Child, holder: Option<&Holder>) -> Self {
        match holder {
            Some(holder) => Self {
                child,
                status: Arc::clone(&holder.status),
                is_let_go: Arc::clone(&holder.is_let_go),
            },
            None => Self {
                child,
                status: Arc::default(),
                is_let_go: Arc::new(AtomicBool::new(true)),
            },
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// Fails if it cannot be waited for.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if let Some(status) = self.status.get() {
            return Ok(Some(ExitStatus::from_raw(*status)));
        }
        if !self.is_let_go.load(Ordering::Acquire) {
            return Ok(None);
        }
        self.child.try_wait().context("cannot wait for the program")
    }

    /// Waits for its end. Nobody may hold it any more.
    ///
    /// # Errors
    /// Fails if it cannot be waited for.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status.get() {
            return Ok(ExitStatus::from_raw(*status));
        }
        self.child.wait().context("cannot wait for the program")
    }
}

/// The signal that interrupts the keeper's wait.
fn wake_up() -> i32 {
    libc::SIGRTMIN() + 1
}

/// Has that signal do nothing else.
fn answer_wake_ups() -> Result<()> {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: an all-zero action is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
    // SAFETY: the handler does nothing, and the action is a local.
    let status = unsafe { libc::sigaction(wake_up(), &raw const action, std::ptr::null_mut()) };
    if status != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot set a signal's handler");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
