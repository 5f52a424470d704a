//! Who holds the objects of the classes that grow, and which objects hold native blocks.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Session;
use crate::holders::ByJava;
use crate::jvm::holders::{search_classes, search_natives};
use crate::model::{Holders, JavaHeap, Link};
use crate::process::clock::thread_cpu_ns;
use crate::report::java_growth::suspects;

impl Session {
    /// Has the heaps' growing classes searched for holders from now on, when the run ends.
    pub fn search_java_holders(&mut self) {
        self.java.searches_holders = true;
    }

    /// Adds to the classes that grow who holds them, once the run has ended.
    pub(super) fn add_java_holders(&self, heaps: &mut [JavaHeap]) {
        if !self.java.searches_holders || self.ended.is_none() {
            return;
        }
        for heap in heaps {
            let names: Vec<_> = suspects(heap).1.map(|class| class.class.clone()).collect();
            let found = self.holders_of(heap.pid, &names);
            for (name, found) in names.iter().zip(found) {
                let mut classes = heap.classes.iter_mut();
                if let Some(class) = classes.find(|class| class.class == *name) {
                    class.holders = Some(found);
                }
            }
        }
    }

    fn holders_of(&self, pid: u32, classes: &[String]) -> Vec<Holders> {
        if classes.is_empty() {
            return vec![];
        }
        let image = self.last_image(pid).map(|(image, _)| image.id);
        let mut machines = self.java.jvms.readable();
        match machines.find(|(of, _)| Some(*of) == image) {
            Some((image, jvm)) => search_classes(jvm, classes, &|handles| {
                self.whose_handles((image, jvm), handles)
            }),
            None => vec![
                Holders {
                    unsearched: vec!["its Java VM cannot be read, or has ended".to_owned()],
                    ..Holders::default()
                };
                classes.len()
            ],
        }
    }

    /// Looks for the Java objects that hold native blocks, once the run has ended.
    pub(super) fn find_java_objects(&mut self) {
        if self.ended.is_none() {
            return;
        }
        let mut pieces: HashMap<u64, Vec<Range<u64>>> = HashMap::new();
        for found in self.holders.found.values().flatten() {
            let is_new = matches!(found.by_java, ByJava::NotSearched);
            let piece = found.in_java().filter(|_| is_new);
            pieces
                .entry(found.image)
                .or_default()
                .extend(piece.cloned());
        }
        let begin = (Instant::now(), thread_cpu_ns());
        let mut links: HashMap<(u64, Range<u64>), Vec<Link>> = HashMap::new();
        for (image, mut pieces) in pieces {
            pieces.sort_unstable_by_key(|piece| (piece.start, piece.end));
            pieces.dedup();
            let mut machines = self.java.jvms.readable();
            let machine = machines.find(|(of, _)| *of == image);
            let Some((_, jvm)) = machine.filter(|_| !pieces.is_empty()) else {
                continue;
            };
            match search_natives(jvm, &pieces) {
                Ok(found) => {
                    let named = pieces.into_iter().zip(found);
                    let named = named.filter_map(|(piece, found)| Some(((image, piece), found?)));
                    links.extend(named);
                }
                Err(problem) => self.holders.unsearched.push(format!("{problem:#}")),
            }
        }
        for found in self.holders.found.values_mut().flatten() {
            if let Some(piece) = found.in_java() {
                let links = links.get(&(found.image, piece.clone()));
                found.by_java = links.map_or(ByJava::NotFound, |it| ByJava::Found(it.clone()));
            }
        }
        if let Some(searched) = &mut self.searched {
            let time = Duration::from_nanos(thread_cpu_ns().saturating_sub(begin.1));
            searched.seconds += begin.0.elapsed().as_secs_f64();
            searched.processor_seconds += time.as_secs_f64();
        }
    }
}
