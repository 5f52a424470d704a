//! Java threads that began during the run.

use std::collections::BTreeMap;

/// Threads that are remembered.
const MAX_THREADS: usize = 1 << 16;

/// A thread that began during the run and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveThread {
    /// Its name when it began.
    pub name: String,
    /// The kernel's id of it, in the initial pid namespace.
    pub id: u32,
    /// When it began, nanoseconds of `CLOCK_MONOTONIC`.
    pub began: u64,
    /// Whether it is a daemon, which does not keep the program alive.
    pub daemon: bool,
}

/// The threads of a virtual machine.
#[derive(Debug, Default)]
pub struct Threads {
    /// Threads that began during the run.
    pub started: u64,
    /// Threads that ended during the run, whenever they began.
    pub stopped: u64,
    live: BTreeMap<u64, LiveThread>,
}

impl Threads {
    /// A thread with this Java id begins.
    pub fn starts(&mut self, id: u64, thread: LiveThread) {
        self.started += 1;
        if self.live.len() < MAX_THREADS {
            self.live.insert(id, thread);
        }
    }

    /// A thread with this Java id ends.
    pub fn stops(&mut self, id: u64) {
        self.stopped += 1;
        self.live.remove(&id);
    }

    /// Those that began during the run and have not ended, oldest first.
    pub fn live(&self) -> Vec<&LiveThread> {
        let mut live: Vec<_> = self.live.values().collect();
        live.sort_by_key(|thread| thread.began);
        live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_stay_are_live() {
        let thread = |began| LiveThread {
            name: "worker".into(),
            id: 7,
            began,
            daemon: false,
        };
        let mut threads = Threads::default();
        threads.starts(2, thread(9));
        threads.starts(1, thread(20));
        threads.starts(3, thread(5));
        threads.stops(3);
        // One from before the run.
        threads.stops(77);
        let live: Vec<_> = threads.live().iter().map(|thread| thread.began).collect();
        assert_eq!(
            (threads.started, threads.stopped, live),
            (3, 2, vec![9, 20])
        );
    }
}
