//! What the kernel says of a process's memory at one moment.

use std::io;
use std::time::{Duration, Instant};

use crate::process::account::Account;
use crate::process::arenas::Arenas;
use crate::process::books::{self, Books};
use crate::process::clock::monotonic_ns;
use crate::process::descriptors::Descriptors;
use crate::process::handle::ProcessHandle;
use crate::process::mappings::{self, Mapping};
use crate::process::pagemap::PageMap;
use crate::process::resident::Residents;
use crate::process::stack;

/// Threads that are asked where their stack is, at most: each costs some 10 us.
const MAX_THREADS: usize = 1024;

/// One look at a process.
#[derive(Debug, Default)]
pub struct Look {
    /// The kernel's account.
    pub account: Account,
    /// The pages that are in memory; none if it was only a glance.
    pub pages: Option<Residents>,
    /// What is open; none if it was only a glance.
    pub descriptors: Option<Descriptors>,
    /// All mappings.
    pub mappings: Vec<Mapping>,
    /// The stack pointers of threads that wait.
    pub stacks: Vec<u64>,
    /// glibc's arenas.
    pub arenas: Arenas,
    /// The books of other allocators.
    pub books: Vec<Books>,
    /// When its pages were looked at, nanoseconds of `CLOCK_MONOTONIC`.
    pub began: u64,
    /// How long it took.
    pub took: Duration,
}

impl Look {
    /// The account alone.
    ///
    /// # Errors
    /// Fails if the process is gone.
    pub fn glance(process: &ProcessHandle) -> io::Result<Self> {
        Ok(Self {
            account: Account::read(process)?,
            ..Self::default()
        })
    }

    /// The account, and the pages as far as they are read by the `deadline`, and as
    /// there is room for them.
    ///
    /// # Errors
    /// Fails if the process is gone, or may not be read.
    pub fn take(process: &ProcessHandle, deadline: Instant, room: &mut usize) -> io::Result<Self> {
        let began = Instant::now();
        let mappings = mappings::read(process)?;
        let map = PageMap::open(process)?;
        let account = Account::read(process)?;
        let time = monotonic_ns();
        let pages = Residents::read(&map, &mappings, deadline, room)?;
        Ok(Self {
            account,
            pages: Some(pages),
            descriptors: Descriptors::of(process).ok(),
            mappings,
            began: time,
            took: began.elapsed(),
            ..Self::default()
        })
    }

    /// Adds what only the end of a run asks for: where threads have their stacks,
    /// glibc's arenas, and other allocators' books. What cannot be read is left out.
    pub fn look_closer(&mut self, process: &ProcessHandle) {
        let threads = process.tasks().unwrap_or_default();
        let threads = threads.into_iter().take(MAX_THREADS);
        self.stacks = threads
            .filter_map(|thread| stack::pointer(process, thread))
            .collect();
        if let (Some(pages), Ok(memory)) = (&self.pages, process.open_proc("mem")) {
            self.arenas = Arenas::find(&memory, &self.mappings, &pages.present);
            self.books = books::find(&memory, &self.mappings, &pages.present);
        }
    }
}
