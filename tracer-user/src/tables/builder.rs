//! Building tables in the background, each file's once.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, eventfd};

use crate::privilege::capability::Phase;
use crate::process::code::CodeMapping;
use crate::process::file::ModuleFile;
use crate::process::maps::FileId;
use crate::unwind::{Table, is_no_elf};

/// Threads, at most: tables are built while probes are placed.
const MAX_THREADS: usize = 4;

/// Tables that wait to be taken, at most; threads wait then. A table may be
/// large, and a process may map a thousand files.
const MAX_WAITING: usize = 4;

/// What became of a file.
pub struct Built {
    /// The file.
    pub file: Arc<ModuleFile>,
    /// Its table; none if it has no call frame information; or why it cannot
    /// be read.
    pub table: Result<Option<Table>, String>,
    /// How long it took.
    pub time: Duration,
}

/// A file whose table is wanted, and where its process sees it.
struct Job {
    file: Arc<ModuleFile>,
    path: PathBuf,
}

/// The threads that build.
pub struct Builder {
    jobs: Sender<Job>,
    done: Receiver<Built>,
    outstanding: usize,
    names: HashMap<FileId, String>,
    /// Written to when a table is done.
    news: Arc<OwnedFd>,
}

impl Builder {
    /// Starts the threads. They end with this value, once they have finished
    /// what they are at.
    ///
    /// # Errors
    /// Fails if there are no descriptors left.
    pub fn start() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let news = Arc::new(eventfd(0, flags).context("cannot make an eventfd")?);
        let (jobs, queue) = channel::<Job>();
        let (finished, done) = sync_channel(MAX_WAITING);
        let queue = Arc::new(Mutex::new(queue));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores.min(MAX_THREADS) {
            let (queue, finished) = (Arc::clone(&queue), finished.clone());
            let news = Arc::clone(&news);
            thread::spawn(move || work(&queue, &finished, &news));
        }
        Ok(Self {
            news,
            jobs,
            done,
            outstanding: 0,
            names: HashMap::new(),
        })
    }

    /// An eventfd that is written to when a table is done.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Has the tables of mapped files built, each file's once.
    pub fn request<'a>(&mut self, code: impl Iterator<Item = &'a CodeMapping>) {
        for mapping in code {
            if let Ok(file) = &mapping.file {
                self.request_file(file, || mapping.display_name());
            }
        }
    }

    /// Has the table of a file built, once.
    pub fn request_file(&mut self, file: &Arc<ModuleFile>, name: impl FnOnce() -> String) {
        if self.names.contains_key(&file.mapped) {
            return;
        }
        let name = name();
        let job = Job {
            file: Arc::clone(file),
            path: PathBuf::from(&name),
        };
        self.names.insert(file.mapped, name);
        if self.jobs.send(job).is_ok() {
            self.outstanding += 1;
        }
    }

    /// The name of a file whose table was asked for.
    pub fn name_of(&self, file: FileId) -> &str {
        self.names.get(&file).map_or("", String::as_str)
    }

    /// Whether any table is still to come.
    pub fn is_building(&self) -> bool {
        self.outstanding > 0
    }

    /// Whether the table of a file was asked for.
    pub fn has(&self, file: FileId) -> bool {
        self.names.contains_key(&file)
    }

    /// The files whose tables were asked for, and their names.
    pub fn requested(&self) -> impl Iterator<Item = (FileId, &str)> {
        self.names.iter().map(|(file, name)| (*file, name.as_str()))
    }

    /// The next that is built, waiting until `deadline` at most.
    pub fn next(&mut self, deadline: Instant) -> Option<Built> {
        if self.outstanding == 0 {
            return None;
        }
        let wait = deadline.saturating_duration_since(Instant::now());
        match self.done.recv_timeout(wait) {
            Ok(built) => {
                self.outstanding -= 1;
                Some(built)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.outstanding = 0;
                None
            }
        }
    }
}

/// Reads files that are open already, and that anybody may have made: so
/// without any capability, or not at all.
fn work(queue: &Mutex<Receiver<Job>>, finished: &SyncSender<Built>, news: &OwnedFd) {
    let refused = Phase::Parsing.enter().err();
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { file, path }) = job else {
            return;
        };
        let begin = Instant::now();
        let table = match &refused {
            Some(error) => Err(format!("cannot give up capabilities: {error}")),
            None if is_no_elf(&file.content) => Ok(None),
            None => Table::read(&file.content, &path).map_err(|error| format!("{error:#}")),
        };
        let built = Built {
            file,
            table,
            time: begin.elapsed(),
        };
        if finished.send(built).is_err() {
            return;
        }
        // It only wakes; its count may be full.
        let _ = rustix::io::write(news, &1u64.to_ne_bytes());
    }
}
