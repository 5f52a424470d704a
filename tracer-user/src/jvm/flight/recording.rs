//! A flight recording of ours in a JVM: started, asked, and ended in every outcome.
//!
//! It is in the JVM's memory: only while it is asked there are files, in a folder of our own and in
//! JFR's. That of JFR stays behind, empty, and is removed if it was not there before and nobody else
//! records. If we are killed, the JVM ends the recording when its time is over; what it would then
//! write goes to `/dev/null`.

use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use super::FlightError;
use crate::jvm::attach::{AttachError, Folder, Listener};
use crate::process::clock::monotonic_ns;

/// How long the JVM may take to start: it loads the classes of its recorder, a second.
const START: Duration = Duration::from_secs(30);
/// How long it may search its heap.
const SEARCH: Duration = Duration::from_secs(300);
/// How long it may take to end a recording; and if we leave at once.
const STOP: Duration = Duration::from_secs(30);
const STOP_AT_EXIT: Duration = Duration::from_secs(2);

/// More of a recording is not read: a JVM keeps 10 MiB in memory, if it is not told otherwise.
const MAX_BYTES: u64 = 64 << 20;
/// The JVM's queue of objects: a part of the largest heap, its least size, and what an entry takes (16
/// bytes: the other half is for roots, and for objects that were made since they were counted).
const QUEUE_PART: u64 = 20;
const QUEUE_LEAST: u64 = 32 << 20;
const QUEUE_ENTRY: u64 = 32;
/// Letters of an answer that are told.
const MAX_WORDS: usize = 200;

/// What a recording of ours has: samples of objects, without searching for ways to them until it is
/// asked to.
const SETTINGS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<configuration version="2.0"><event name="jdk.OldObjectSample"><setting name="enabled">true</setting><setting name="stackTrace">false</setting><setting name="cutoff">0 ns</setting></event></configuration>
"#;
/// The files of ours.
const SETTINGS_FILE: &str = "unfreed.jfc";
const DUMP_FILE: &str = "unfreed.jfr";
const FILES: &[&str] = &[SETTINGS_FILE, DUMP_FILE];

/// What a JVM without recordings answers.
const NO_RECORDING: &str = "No available recordings";

/// The recordings that there are now.
static PRESENT: Mutex<Vec<Arc<Active>>> = Mutex::new(Vec::new());

/// A recording that goes on.
pub struct Recording(Arc<Active>);

struct Active {
    listener: Listener,
    name: String,
    /// JFR's own folder before we asked, if there was one.
    repository: Option<String>,
}

/// What a JVM wrote when it was asked.
pub struct Dump {
    /// In JFR's format.
    pub file: Vec<u8>,
    /// How long it took, seconds.
    pub answered_in: f64,
    /// How long all Java threads stood still meanwhile, seconds; none if the JVM does not count.
    pub pause: Option<f64>,
}

impl Recording {
    /// Starts one, which ends by itself after `lasts`.
    ///
    /// # Errors
    /// Says why the JVM does not record.
    pub fn start(listener: Listener, lasts: Duration) -> Result<Self, FlightError> {
        stop_at_exit();
        let repository = repository(&listener, START)?;
        let active = Arc::new(Active {
            name: format!("unfreed-{}-{}", std::process::id(), monotonic_ns()),
            listener,
            repository,
        });
        let folder = Folder::make(&active.listener, FILES).map_err(FlightError::Folder)?;
        let written = folder.write(SETTINGS_FILE, SETTINGS.as_bytes());
        written.map_err(FlightError::Folder)?;
        let command = format!(
            "JFR.start name={} settings={} disk=false duration={}s filename=/dev/null",
            active.name,
            folder.path(SETTINGS_FILE),
            lasts.as_secs().max(1),
        );
        // It may begin even if we hear nothing of it.
        present().push(Arc::clone(&active));
        let recording = Self(active);
        let answer = recording.0.listener.command(&command, START);
        let answer = answer.map_err(FlightError::Asked).and_then(|answer| {
            let has_begun = answer.contains("Started recording");
            has_begun.then_some(()).ok_or_else(|| refused(&answer))
        });
        match answer {
            Ok(()) => Ok(recording),
            Err(problem) => {
                recording.stop();
                Err(problem)
            }
        }
    }

    /// Has the JVM search for ways to the objects that were sampled, and write them; its heap has so
    /// many `objects`.
    ///
    /// # Errors
    /// Says why there is no file, or why the JVM must not search.
    pub fn dump(&self, objects: u64) -> Result<Dump, FlightError> {
        let listener = &self.0.listener;
        check(listener, objects)?;
        let folder = Folder::make(listener, FILES).map_err(FlightError::Folder)?;
        let command = format!(
            "JFR.dump name={} filename={} path-to-gc-roots=true",
            self.0.name,
            folder.path(DUMP_FILE),
        );
        let stopped = || listener.counters()?.stopped();
        let (before, begin) = (stopped(), Instant::now());
        let answer = listener
            .command(&command, SEARCH)
            .map_err(FlightError::Asked)?;
        let answered_in = begin.elapsed().as_secs_f64();
        let pause = stopped().zip(before);
        if !answer.contains("Dumped recording") {
            return Err(refused(&answer));
        }
        let file = folder
            .read(DUMP_FILE, MAX_BYTES)
            .map_err(FlightError::File)?;
        Ok(Dump {
            file,
            answered_in,
            pause: pause.map(|(after, before)| after.saturating_sub(before).as_secs_f64()),
        })
    }

    /// Ends it.
    pub fn stop(self) {
        present().retain(|other| !Arc::ptr_eq(other, &self.0));
        self.0.stop(STOP);
    }
}

impl Active {
    /// Ends it. A JVM that has ended, or does not answer in time, has nothing of ours on its disk.
    fn stop(&self, limit: Duration) {
        let command = format!("JFR.stop name={}", self.name);
        let stopped = self.listener.command(&command, limit);
        if stopped.is_ok() {
            let _stays_and_is_empty = self.tidy(limit);
        }
    }

    /// Removes JFR's own folder if it came by us alone and is empty.
    fn tidy(&self, limit: Duration) -> Result<(), FlightError> {
        let Some(repository) = repository(&self.listener, limit)? else {
            return Ok(());
        };
        let others = self.listener.command("JFR.check", limit);
        let is_alone = others.map_err(FlightError::Asked)?.contains(NO_RECORDING);
        if is_alone && self.repository.as_ref() != Some(&repository) {
            self.listener
                .remove_folder(Path::new(&repository))
                .map_err(FlightError::Asked)?;
        }
        Ok(())
    }
}

/// Whether the JVM can search a heap of so many objects without danger.
///
/// It keeps each object that it finds in a queue, of a size that depends on the largest heap. Once that
/// is full it goes on by recursion, 4,000 deep, for which the stack of its thread is too small: on a
/// longer list it dies of that (JDK 21, measured). So it is not asked where the queue could be full.
fn check(listener: &Listener, objects: u64) -> Result<(), FlightError> {
    let flags = listener.command("VM.flags", START);
    let flags = flags.map_err(FlightError::Asked)?;
    let most = most_objects(&flags).ok_or(FlightError::NoHeapSize)?;
    match objects > most {
        true => Err(FlightError::TooLarge { objects, most }),
        false => Ok(()),
    }
}

/// So many objects fit into the queue, whatever roots there are, by what the JVM says of its flags.
fn most_objects(flags: &str) -> Option<u64> {
    let mut flags = flags.split_ascii_whitespace();
    let heap = flags.find_map(|flag| flag.strip_prefix("-XX:MaxHeapSize="))?;
    let heap: u64 = heap.parse().ok()?;
    Some((heap / QUEUE_PART).max(QUEUE_LEAST) / QUEUE_ENTRY)
}

/// JFR's own folder, if it has one.
fn repository(listener: &Listener, limit: Duration) -> Result<Option<String>, FlightError> {
    let answer = listener.command("JFR.configure", limit);
    let answer = answer.map_err(|error| match error {
        AttachError::Command { text, .. } => refused(&text),
        other => FlightError::Asked(other),
    })?;
    let path = answer
        .lines()
        .find_map(|line| line.strip_prefix("Repository path: "));
    match path {
        None => Err(refused(&answer)),
        Some(path) => Ok(path.starts_with('/').then(|| path.trim_end().to_owned())),
    }
}

/// The JVM's words, the first line that has some.
fn refused(answer: &str) -> FlightError {
    let words = answer.lines().find(|line| !line.trim().is_empty());
    let words = words.unwrap_or("it says nothing").trim();
    let words = words.trim_end_matches('.');
    FlightError::Refused(words.chars().take(MAX_WORDS).collect())
}

fn present() -> std::sync::MutexGuard<'static, Vec<Arc<Active>>> {
    PRESENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A second Ctrl-C leaves by `exit`, which drops nothing.
fn stop_at_exit() {
    extern "C" fn stop_all() {
        if let Ok(present) = PRESENT.try_lock() {
            present.iter().for_each(|active| active.stop(STOP_AT_EXIT));
        }
    }
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // SAFETY: the function takes nothing, never unwinds and lives as long
        // as the program.
        unsafe { libc::atexit(stop_all) };
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_a_twentieth_of_the_largest_heap() {
        let most = |flags| most_objects(flags);
        assert_eq!(
            most("-XX:CICompilerCount=2 -XX:MaxHeapSize=3221225472 -XX:+UseZGC \n"),
            Some(5_033_164)
        );
        assert_eq!(most("-XX:MaxHeapSize=100663296"), Some(1 << 20));
        assert_eq!(most("-XX:MaxHeapSize=x"), None);
        assert_eq!(most("-XX:InitialHeapSize=1"), None);
    }

    #[test]
    fn the_jvms_words_are_told() {
        let told = |answer| refused(answer).to_string();
        assert!(
            told("\nFlight Recorder is disabled.\n\n").ends_with("us: Flight Recorder is disabled")
        );
        assert!(told("").ends_with("it says nothing"));
    }
}
