//! Who holds objects, by the JVM's own flight recorder (`--jfr`): where the heap cannot be read from
//! outside.
//!
//! A recording of ours samples some of the objects that are allocated (`jdk.OldObjectSample`, and
//! nothing else). When the run has ended, and only if something that grows has no holder, the JVM is
//! asked for the ways to those that live: for that it stops all its threads and searches its heap.

mod error;
pub mod reader;
mod recording;
mod ways;

use std::collections::HashMap;
use std::thread::JoinHandle;
use std::time::Duration;

pub use self::error::FlightError;
use self::recording::{Dump, Recording};
use crate::jvm::attach::Listener;
use crate::model::{FlightRecording, Holders};
use crate::privilege::capability::Phase;

/// A recording lasts so much longer than a run whose length is known, and so long at most otherwise:
/// then the JVM ends it itself, if nobody is left to do so.
const MARGIN: Duration = Duration::from_secs(600);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The recording of one JVM, from the moment when it is asked for.
pub struct Flight {
    pid: u32,
    starting: Option<JoinHandle<Result<Recording, FlightError>>>,
    recording: Option<Result<Recording, FlightError>>,
}

/// What a JVM told, and of each class who holds its objects.
pub struct Told {
    /// How it was asked.
    pub recording: FlightRecording,
    /// By the classes' names; none where it could not be asked.
    pub holders: HashMap<String, Holders>,
}

impl Flight {
    /// Has a JVM begin, on a thread of its own; the run takes `duration`, if that is known.
    pub fn start(pid: u32, duration: Option<Duration>) -> Self {
        let lasts = duration.map_or(LONGEST, |it| it.saturating_add(MARGIN));
        let starting = std::thread::spawn(move || {
            Phase::Asking.enter().map_err(FlightError::Credentials)?;
            let listener = Listener::find(pid).map_err(FlightError::Asked)?;
            Recording::start(listener, lasts.min(LONGEST))
        });
        Self {
            pid,
            starting: Some(starting),
            recording: None,
        }
    }

    /// The process id in our namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it records, or cannot.
    pub fn has_begun(&mut self) -> bool {
        if self.starting.as_ref().is_some_and(JoinHandle::is_finished) {
            self.settle();
        }
        self.starting.is_none()
    }

    /// Why it does not record.
    pub fn problem(&self) -> Option<String> {
        let problem = self.recording.as_ref()?.as_ref().err()?;
        Some(problem.to_string())
    }

    /// Asks who holds the objects of these classes, and waits for the answer; the heap has so many
    /// `objects`.
    pub fn ask(&self, classes: &[String], objects: u64) -> Told {
        let recording = match &self.recording {
            Some(Ok(recording)) => recording,
            Some(Err(problem)) => return Told::failed(problem.to_string()),
            None => return Told::failed(FlightError::NotBegun.to_string()),
        };
        let dump = on_a_thread(Phase::Asking, || recording.dump(objects));
        let told = dump.and_then(|dump| on_a_thread(Phase::Parsing, || Told::read(&dump, classes)));
        told.unwrap_or_else(|problem| Told::failed(problem.to_string()))
    }

    fn settle(&mut self) {
        if let Some(starting) = self.starting.take() {
            let started = starting.join();
            self.recording = Some(started.unwrap_or(Err(FlightError::Thread)));
        }
    }
}

impl Told {
    fn read(dump: &Dump, classes: &[String]) -> Result<Self, FlightError> {
        let is_asked = |class: &str| classes.contains(&ways::name(class));
        let samples = reader::samples(&dump.file, &is_asked).map_err(FlightError::Broken)?;
        let of = |class: &String| (class.clone(), ways::holders(class, &samples));
        Ok(Self {
            recording: FlightRecording::Asked {
                objects: samples.all,
                answered_in: dump.answered_in,
                pause: dump.pause,
            },
            holders: classes.iter().map(of).collect(),
        })
    }

    fn failed(problem: String) -> Self {
        Self {
            recording: FlightRecording::Failed { problem },
            holders: HashMap::new(),
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.settle();
        if let Some(Ok(recording)) = self.recording.take() {
            let _thread_failed = on_a_thread(Phase::Asking, || {
                recording.stop();
                Ok(())
            });
        }
    }
}

/// Acts with what a phase needs, and no other capabilities.
fn on_a_thread<T: Send>(
    phase: Phase,
    act: impl FnOnce() -> Result<T, FlightError> + Send,
) -> Result<T, FlightError> {
    std::thread::scope(|scope| {
        let acted = scope.spawn(|| {
            phase.enter().map_err(FlightError::Credentials)?;
            act()
        });
        acted.join().unwrap_or(Err(FlightError::Thread))
    })
}
