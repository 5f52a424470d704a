//! What the JVMs among the targets say of their heaps.

use std::time::Duration;

use super::Session;
use crate::jvm::heap_watch::HeapWatch;
use crate::report::model::JavaHeap;

impl Session {
    /// Takes the first class histogram of each target, and more until the end
    /// of the run; `duration` is how long that is, if it is known.
    pub fn watch_java_heaps(&mut self, live_only: bool, duration: Option<Duration>) {
        let watches = self
            .targets
            .iter()
            .map(|target| HeapWatch::start(target.pid, live_only, duration));
        self.java_heaps = watches.collect();
    }

    /// One line for each target whose heap cannot be watched.
    pub fn java_problems(&self) -> Vec<String> {
        let problem = |(watch, pid): (&HeapWatch, u32)| {
            let problem = watch.problem()?;
            Some(format!("no Java heap of {pid}: {problem}"))
        };
        let pids = self.targets.iter().map(|target| target.pid);
        self.java_heaps
            .iter()
            .zip(pids)
            .filter_map(problem)
            .collect()
    }

    /// Asks for the last histograms, without waiting for them.
    pub(super) fn stop_java_heaps(&mut self) {
        self.java_heaps.iter_mut().for_each(HeapWatch::stop);
    }

    /// The heaps' growth until now.
    pub(super) fn java_heaps(&mut self) -> Vec<JavaHeap> {
        let began = self.began.1;
        let since_start = |time: u64| time.saturating_sub(began) as f64 / 1e9;
        self.java_heaps
            .iter_mut()
            .map(|watch| watch.report(since_start))
            .collect()
    }
}
