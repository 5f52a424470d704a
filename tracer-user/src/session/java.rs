//! What the JVMs among the targets say of their heaps.

use std::time::Duration;

use super::Session;
use super::java_samples::NamelessSamples;
use crate::jvm::flight::Flight;
use crate::jvm::heap_watch::HeapWatch;
use crate::model::{JavaHeap, JavaMemory};
use crate::targets::images::Image;
use crate::visible::clean;

impl Session {
    /// Begins to take class histograms of each target, in the background and
    /// until the end of the run; `duration` is how long that is, if it is
    /// known.
    pub fn watch_java_heaps(&mut self, live_only: bool, duration: Option<Duration>) {
        let watches = self
            .targets
            .iter()
            .map(|target| HeapWatch::start(target.pid, live_only, duration));
        self.java.heaps = watches.collect();
    }

    /// Whether the first histogram of each target was taken, or cannot be.
    pub fn java_heaps_have_begun(&self) -> bool {
        self.java.heaps.iter().all(HeapWatch::has_begun)
    }

    /// One line for each target whose heap cannot be watched, or that gave no
    /// perf map.
    pub fn java_problems(&self) -> Vec<String> {
        let problem = |watch: &HeapWatch| {
            let problem = watch.problem()?;
            Some(format!("no Java heap of {}: {problem}", watch.pid()))
        };
        let heaps = self.java.heaps.iter().filter_map(problem);
        let not_flown = |flight: &Flight| {
            let problem = flight.problem()?;
            let problem = clean(&problem).into_owned();
            Some(format!(
                "no flight recording of {}: {problem}",
                flight.pid()
            ))
        };
        let flights = self.java.flights.iter().filter_map(not_flown);
        let no_map = |image: &Image| {
            let problem = self.java.perf_maps.problem(image.id)?;
            Some(format!("no perf map of {}: {}", image.pid, clean(&problem)))
        };
        heaps
            .chain(flights)
            .chain(self.images.iter().filter_map(no_map))
            .collect()
    }

    /// Asks for the last histograms, without waiting for them.
    pub(super) fn stop_java_heaps(&mut self) {
        self.java.heaps.iter_mut().for_each(HeapWatch::stop);
    }

    /// The heaps' growth until now; until the end, if that has come; and where
    /// growing classes are allocated, without names.
    pub(super) fn java_heaps(&mut self) -> (Vec<JavaHeap>, Vec<NamelessSamples>) {
        self.java.heaps.iter_mut().for_each(HeapWatch::settle);
        let heap = |watch: &HeapWatch| watch.heap(|time| self.since_start(time));
        let mut heaps: Vec<_> = self.java.heaps.iter().map(heap).collect();
        let samples = heaps.iter_mut().enumerate();
        let samples = samples.filter_map(|(index, heap)| self.samples(index, heap));
        let samples = samples.collect();
        self.add_java_holders(&mut heaps);
        (heaps, samples)
    }

    /// What the JVMs say of their native memory.
    pub(super) fn java_memory(&self) -> Vec<JavaMemory> {
        let memory = |watch: &HeapWatch| watch.memory(|time| self.since_start(time));
        self.java.heaps.iter().filter_map(memory).collect()
    }
}
