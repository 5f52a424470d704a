//! What the JVMs among the targets say of their heaps.

use std::collections::HashMap;
use std::time::Duration;

use super::Session;
use super::assemble::stack_end;
use super::images::Image;
use super::paths::same_names;
use crate::jvm::frames::Named;
use crate::jvm::heap_watch::HeapWatch;
use crate::process::code::CodeSpace;
use crate::report::model::{AllocationPath, Frame, JavaHeap};
use crate::symbolize::Symbolizer;

impl Session {
    /// Begins to take class histograms of each target, in the background and
    /// until the end of the run; `duration` is how long that is, if it is
    /// known.
    pub fn watch_java_heaps(&mut self, live_only: bool, duration: Option<Duration>) {
        let watches = self
            .targets
            .iter()
            .map(|target| HeapWatch::start(target.pid, live_only, duration));
        self.java_heaps = watches.collect();
    }

    /// Whether the first histogram of each target was taken, or cannot be.
    pub fn java_heaps_have_begun(&self) -> bool {
        self.java_heaps.iter().all(HeapWatch::has_begun)
    }

    /// One line for each target whose heap cannot be watched.
    pub fn java_problems(&self) -> Vec<String> {
        let problem = |watch: &HeapWatch| {
            let problem = watch.problem()?;
            Some(format!("no Java heap of {}: {problem}", watch.pid()))
        };
        self.java_heaps.iter().filter_map(problem).collect()
    }

    /// Asks for the last histograms, without waiting for them.
    pub(super) fn stop_java_heaps(&mut self) {
        self.java_heaps.iter_mut().for_each(HeapWatch::stop);
    }

    /// The heaps' growth until now, and where growing classes are allocated.
    pub(super) fn java_heaps(&mut self, symbolizer: &mut Symbolizer) -> Vec<JavaHeap> {
        let began = self.began.1;
        let since_start = |time: u64| time.saturating_sub(began) as f64 / 1e9;
        let mut heaps: Vec<JavaHeap> = self
            .java_heaps
            .iter_mut()
            .map(|watch| watch.report(since_start))
            .collect();
        for heap in &mut heaps {
            self.add_samples(heap, symbolizer);
        }
        heaps
    }

    fn add_samples(&self, heap: &mut JavaHeap, symbolizer: &mut Symbolizer) {
        let Some((image, code)) = self.last_image(heap.pid) else {
            return;
        };
        heap.sampled.problem = self.jvms.heap(image.id).err();
        let mut paths: HashMap<String, Vec<AllocationPath>> = HashMap::new();
        for (index, site) in self.object.samples() {
            if site.image != image.id || site.allocated_count == 0 {
                continue;
            }
            heap.sampled.samples += site.allocated_count;
            heap.sampled.bytes += site.allocated_bytes;
            let words = &site.frames[..(site.depth as usize).min(site.frames.len())];
            let named = self.names.of(index, words);
            let Some(class) = named.first().and_then(class_of) else {
                continue;
            };
            let mut frames = symbolizer.frames(code, words, &named, site.first_seen);
            trim(&mut frames);
            let path = AllocationPath {
                samples: site.allocated_count,
                bytes: site.allocated_bytes,
                stack_end: stack_end(site.end),
                frames,
            };
            add_path(paths.entry(class).or_default(), path);
        }
        for class in &mut heap.classes {
            class.allocated = paths.remove(&class.class).unwrap_or_default();
            class
                .allocated
                .sort_by_key(|path| std::cmp::Reverse(path.bytes));
        }
    }

    /// The image that a process had last.
    fn last_image(&self, pid: u32) -> Option<(&Image, &CodeSpace)> {
        let images = self.images.iter().filter(|image| image.pid == pid);
        let image = images.last()?;
        Some((image, self.images.code(image)?))
    }
}

/// The class that a sample's first word stands for.
fn class_of(named: &Option<Named>) -> Option<String> {
    let Some(Ok(frames)) = named else {
        return None;
    };
    frames.first()?.class.as_deref().map(ToOwned::to_owned)
}

/// Leaves out the class, and what the VM itself does to allocate: it differs
/// from tier to tier.
fn trim(frames: &mut Vec<Frame>) {
    frames.pop();
    let java = frames.iter().rposition(|frame| frame.origin.is_java());
    if let Some(last) = java {
        frames.truncate(last + 1);
    }
}

/// Adds a path to others of its class, or to the one of the same names.
fn add_path(paths: &mut Vec<AllocationPath>, path: AllocationPath) {
    let same = |other: &&mut AllocationPath| {
        other.stack_end == path.stack_end && same_names(&other.frames, &path.frames)
    };
    match paths.iter_mut().find(same) {
        Some(known) => {
            known.samples += path.samples;
            known.bytes += path.bytes;
        }
        None => paths.push(path),
    }
}
